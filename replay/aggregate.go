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
// far. Without a boot log in its bank, or with the zeros of a machine that has
// no TPM, it cannot be checked.
func (f *Fold) checkAggregate(m *rtmr.Measurement) {
	e, ok := m.Entry.(aggregator)
	if !ok {
		return
	}
	d, ok := e.BootAggregate()
	f.booted = f.booted || ok
	if !ok || allZero(d.Sum) || !d.Alg.Available() {
		return
	}
	forms, complete := f.aggregateForms(d.Alg)
	for _, form := range forms {
		if bytes.Equal(d.Sum, form.sum) {
			f.aggregates++
			return
		}
	}
	if complete {
		f.report(m, "boot_aggregate", "it is not the hash over "+forms[0].over, d, forms[0].sum)
	}
}

// aggregateForm is a value that a boot_aggregate may have.
type aggregateForm struct {
	over string
	sum  []byte
}

// aggregateForms returns what a boot_aggregate in that algorithm may be, the
// likeliest first; complete says that it must be one of them.
//
//   - Over PCR 0 to 9, or 0 to 7 as SHA-1 and kernels before 5.8 have it
//     (ima_crypto.c, ima_calc_boot_aggregate_tfm).
//   - In a TD, over MRTD and RTMR0 to RTMR2, registers that are zero left out
//     (IMA patched for RTMRs). MRTD is in no log: it is given, or missing.
func (f *Fold) aggregateForms(alg rtmr.Alg) (forms []aggregateForm, complete bool) {
	if f.hasBoot(alg, rtmr.KindPCR, 8) {
		nine := aggregateForm{"the boot log's PCR 0 to 9 or 0 to 7", f.aggregate(alg, nil, rtmr.KindPCR, 10)}
		seven := aggregateForm{nine.over, f.aggregate(alg, nil, rtmr.KindPCR, 8)}
		forms = []aggregateForm{nine, seven}
		if alg == rtmr.SHA1 {
			forms = []aggregateForm{seven, nine}
		}
		complete = true
	}
	if alg == rtmr.SHA384 && f.hasBoot(alg, rtmr.KindRTMR, 3) {
		td := aggregateForm{"MRTD and the boot log's RTMR0 to RTMR2", f.aggregate(alg, f.opts.MRTD, rtmr.KindRTMR, 3)}
		forms = append(forms, td)
		complete = f.opts.MRTD != nil
	}
	return forms, complete
}

// aggregate hashes first, if it is given, and the values of a family's first n
// registers. RTMRs that are zero are left out.
func (f *Fold) aggregate(alg rtmr.Alg, first []byte, kind rtmr.Kind, n int) []byte {
	all := slices.Clone(first)
	for i := range n {
		var reg rtmr.Register
		if kind == rtmr.KindPCR {
			reg, _ = rtmr.PCR(i).Register()
		} else {
			reg, _ = rtmr.Index(i).RTMR()
		}
		value := f.cell(reg, alg).value
		if kind == rtmr.KindPCR || !allZero(value) {
			all = append(all, value...)
		}
	}
	return alg.AppendHash(nil, all)
}

// hasBoot reports whether a boot log has extended one of a family's first n
// registers in a bank. What IMA extended is none, nor is a PCR's measurement
// that was put into another register.
func (f *Fold) hasBoot(alg rtmr.Alg, kind rtmr.Kind, n int) bool {
	return slices.ContainsFunc(f.cells, func(c cell) bool {
		return c.alg == alg && c.reg.Kind() == kind && c.reg.Index() < n && c.boot
	})
}

// BootBanks returns the banks in which a boot log has extended its registers,
// which are the device's; nil without one.
func (f *Fold) BootBanks() (banks []rtmr.Alg) {
	for _, c := range f.cells {
		if c.reg.Index() < 8 && c.events > 0 && !slices.Contains(banks, c.alg) {
			banks = append(banks, c.alg)
		}
	}
	slices.Sort(banks)
	return banks
}

func allZero(b []byte) bool {
	return !slices.ContainsFunc(b, func(c byte) bool { return c != 0 })
}
