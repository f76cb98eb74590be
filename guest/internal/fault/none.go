//go:build !faults || !linux

package fault

import "io"

// Compiled says whether points do anything.
const Compiled = false

// Point is where the process may die.
func Point(name string) {}

// Torn is where the process may die within a write, of which a part is done.
func Torn(name string, w io.WriterAt, data []byte, at int64) {}
