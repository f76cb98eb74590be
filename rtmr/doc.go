// Package rtmr is the ground floor of Tallystick: hash algorithms, digests,
// the names of run-time measurement registers, and the fold by which a
// register grows.
//
// A register only ever changes by
//
//	value = H(value ‖ digest)
//
// so its value stands for the whole ordered list of digests before it. A
// [Measurement] is one entry of such a list as a log tells it; a log of any
// format is an iter.Seq2[Measurement, error]. Package replay folds them.
//
// Three index spaces are never to be confused, so each is its own type:
// [PCR] is a TPM's index, [Index] the 0-based index of RTMR0..3 or REM0..3,
// and eventlog.CCMRIndex the 1-based one that CCEL uses. All of them lead to a
// [Register], which has one spelling ("pcr10", "rtmr2") in code, flags and JSON.
package rtmr
