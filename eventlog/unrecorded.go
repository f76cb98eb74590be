package eventlog

import "fmt"

// unrecorded counts a log's entries that have no digest of their own: the
// reader makes it from their data, as what extended the register did. Data
// cannot prove a digest that was made from them, so such an entry's Verify says
// CannotCheck. What proves it is the register that the log folds to.
type unrecorded int

func (n unrecorded) warnings() []string {
	if n == 0 {
		return nil
	}
	return []string{fmt.Sprintf("the log holds no digest of %d of its entries: it was computed from their data, which nothing but the register's value proves", n)}
}
