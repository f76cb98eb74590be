package replay

import (
	"bytes"
	"slices"

	"tallystick/rtmr"
)

// aggregator is an entry that may be IMA's boot_aggregate.
type aggregator interface {
	BootAggregate() (d rtmr.Digest, ok bool)
}

// checkAggregate holds a boot_aggregate against the boot registers folded so
// far: the hash over PCR 0 to 9 of the bank in its own algorithm, or over 0 to
// 7, which SHA-1 and kernels before 5.8 have (ima_crypto.c,
// ima_calc_boot_aggregate_tfm). Without a boot log in that bank, or with the
// zeros of a machine that has no TPM, it cannot be checked.
func (f *Fold) checkAggregate(m *rtmr.Measurement) {
	e, ok := m.Entry.(aggregator)
	if !ok || m.Register.Kind() != rtmr.KindPCR {
		return
	}
	d, ok := e.BootAggregate()
	zero := !slices.ContainsFunc(d.Sum, func(c byte) bool { return c != 0 })
	if !ok || zero || !d.Alg.Available() || !f.hasBoot(d.Alg) {
		return
	}
	over9, over7 := f.aggregate(d.Alg, 9), f.aggregate(d.Alg, 7)
	if bytes.Equal(d.Sum, over9) || bytes.Equal(d.Sum, over7) {
		f.aggregates++
		return
	}
	want := over9
	if d.Alg == rtmr.SHA1 {
		want = over7
	}
	f.report(m, "boot_aggregate", d, want)
}

// aggregate hashes the values of PCR 0 to last.
func (f *Fold) aggregate(alg rtmr.Alg, last int) []byte {
	var all []byte
	for i := range last + 1 {
		reg, _ := rtmr.PCR(i).Register()
		all = append(all, f.cell(reg, alg).value...)
	}
	return alg.AppendHash(nil, all)
}

// hasBoot reports whether a boot log has been folded in a bank.
func (f *Fold) hasBoot(alg rtmr.Alg) bool {
	return slices.ContainsFunc(f.cells, func(c cell) bool {
		return c.alg == alg && c.reg.Kind() == rtmr.KindPCR && c.reg.Index() < 8 && c.events > 0
	})
}

// BootAggregates returns how many boot_aggregate entries the folded boot
// registers proved. Those that they contradict are findings.
func (f *Fold) BootAggregates() int { return f.aggregates }
