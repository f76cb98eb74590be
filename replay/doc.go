// Package replay folds logs into register values.
//
// It knows measurements and no formats: a log is anything that yields
// iter.Seq2[rtmr.Measurement, error]. Logs of one machine are layers of one
// stack and are folded in order into the same registers:
//
//	f := replay.New(replay.Options{})
//	err := f.Log(boot.Measurements())
//	err = f.Log(list.Measurements())
//	values := f.Values()
//
// A [Reconciler] is a Fold that holds every register against what a quote says
// of it, and [Explain] searches the edits of the logs that make them fold to it.
//
// [Diff] sets two logs side by side and says what each measured that the other
// did not, what changed, and what moved.
package replay
