package replay_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"tallystick/replay"
	"tallystick/rtmr"
)

// BenchmarkExplain searches one fault in a list of 10,000 entries, near the
// list's end, in the middle, and near its beginning, where the whole list has
// to be searched. folds/s over bare-folds/s, which is the hash alone on one
// core, says what the search makes of the machine.
func BenchmarkExplain(b *testing.B) {
	const entries = 10_000
	for _, alg := range []rtmr.Alg{rtmr.SHA1, rtmr.SHA256, rtmr.SHA384} {
		trails := listOf(entries, alg)
		floor := bareFold(alg)
		for _, fault := range []struct {
			name string
			edit func(e extended, i int) extended
		}{
			{"missing", func(e extended, i int) extended { return slices.Delete(e, i, i+1) }},
			{"repeated", func(e extended, i int) extended { return slices.Insert(e, i, e[i]) }},
			{"swapped", func(e extended, i int) extended {
				e[i], e[i+1] = e[i+1], e[i]
				return e
			}},
			{"profile", func(e extended, i int) extended {
				for k := range i {
					e[k] = padded(alg, trails[0].Steps[k].SHA1)
				}
				return e
			}},
		} {
			for _, i := range []int{entries - 100, entries / 2, 10} {
				if fault.name == "profile" {
					if alg == rtmr.SHA1 || i != 10 {
						continue
					}
					i = entries
				}
				quoted := hardware(trails, func(x *replay.Trail, e extended) extended { return fault.edit(e, i) })
				b.Run(fmt.Sprintf("%s/%s/at=%d", alg, fault.name, i), func(b *testing.B) {
					folds := uint64(0)
					for b.Loop() {
						r := replay.Explain(b.Context(), trails, quoted, replay.SearchOptions{})
						if len(r.Found) != 1 || !r.Found[0].Proven {
							b.Fatalf("%+v", r)
						}
						folds += r.Folds
					}
					rate := float64(folds) / b.Elapsed().Seconds()
					b.ReportMetric(float64(folds)/float64(b.N), "folds/op")
					b.ReportMetric(rate/floor, "x-bare-fold")
				})
			}
		}
	}
}

// BenchmarkExplainComposite searches a missing entry under a quote's digest over
// eleven registers, of which any may be the one that is wrong.
func BenchmarkExplainComposite(b *testing.B) {
	const entries = 10_000
	trails := listOf(entries, rtmr.SHA256)
	c := rtmr.Composite{Digest: rtmr.Digest{Alg: rtmr.SHA256}}
	for i := range 11 {
		reg, _ := rtmr.PCR(i).Register()
		c.Selection = append(c.Selection, rtmr.Selected{Alg: rtmr.SHA256, Register: reg})
		if reg != pcr10 {
			trails = append(trails, &replay.Trail{Register: reg, Alg: rtmr.SHA256, Start: reg.StartValue(rtmr.SHA256)})
		}
	}
	for _, i := range []int{entries - 100, entries / 2} {
		values := hardware(trails, func(x *replay.Trail, e extended) extended {
			if x.Register == pcr10 {
				return slices.Delete(e, i, i+1)
			}
			return e
		})
		c.Digest.Sum, _ = c.Of(values)
		b.Run(fmt.Sprintf("missing/at=%d", i), func(b *testing.B) {
			for b.Loop() {
				r := replay.Explain(b.Context(), trails, nil, replay.SearchOptions{Composites: []rtmr.Composite{c}})
				if len(r.Found) != 1 || !r.Found[0].Proven {
					b.Fatalf("%+v", r)
				}
			}
		})
	}
}

// bareFold returns how often a second one core folds a value, with nothing else.
func bareFold(alg rtmr.Alg) float64 {
	value, digest := make([]byte, alg.Size()), digestOf(alg, 1)
	const n = 500_000
	began := time.Now()
	for range n {
		alg.Extend(value, digest)
	}
	return n / time.Since(began).Seconds()
}
