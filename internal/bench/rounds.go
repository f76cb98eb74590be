package main

import (
	"fmt"
	"os"
	"slices"
	"time"
)

// contender is one of those that are measured side by side.
type contender struct {
	name string
	run  func() error
}

// race runs every contender once a round and returns their times: times[i][k]
// is of contender i in round k. Each round begins with another contender, so
// that none always follows the same one. One round more, the first, is not
// counted: it fills caches.
func race(rounds int, contenders []contender) (times [][]time.Duration, err error) {
	times = make([][]time.Duration, len(contenders))
	for k := range rounds + 1 {
		for j := range contenders {
			i := (j + k) % len(contenders)
			start := time.Now()
			if err := contenders[i].run(); err != nil {
				return nil, fmt.Errorf("%s: %w", contenders[i].name, err)
			}
			if k > 0 {
				times[i] = append(times[i], time.Since(start))
			}
		}
		fmt.Fprint(os.Stderr, ".")
	}
	fmt.Fprintln(os.Stderr)
	return times, nil
}

// spread is the median of a ratio over the rounds, and the middle half.
type spread struct{ median, low, high float64 }

// ratio divides two contenders' times round by round, which cancels what
// slowed a whole round.
func ratio(of, by []time.Duration) spread {
	r := make([]float64, len(of))
	for i := range of {
		r[i] = float64(of[i]) / float64(by[i])
	}
	slices.Sort(r)
	n := len(r)
	return spread{r[n/2], r[n/4], r[n-1-n/4]}
}
