// Package ima reads the kernel's IMA measurement lists: every template, both
// byte orders, the per-bank lists, binary and ASCII. It parses and never
// judges.
//
//	r, err := ima.NewReader(f, ima.Options{Banks: []rtmr.Alg{rtmr.SHA256}})
//	for m, err := range r.Measurements() { .. }
//
// A list holds one template hash an entry, in one algorithm. The digests of
// every other bank are recomputed from the template data, which is what a
// kernel since 5.8 extends; [Profile] names the ways in which kernels deviate.
//
// A record of the binary list (security/integrity/ima/ima_fs.c,
// ima_measurements_show), integers in the host's order or little-endian with
// ima_canonical_fmt:
//
//	u32 pcr | digest[20, 32, 48 or 64] | u32 name_len | name |
//	u32 data_len | data = {u32 len, field}*
//
// The template "ima" alone has no data_len, and its first field no length.
package ima
