// Package fault marks the places where a helper's tests have it die.
//
// A program that is built with the tag "faults" ends itself there, as kill -9 does,
// when its environment says so; see faults.go. In any other program a point is an
// empty function, of which the compiler leaves nothing.
//
// Points are named "what.when", by string literals: tests find all of them in the
// source, and fail for one that is never met.
package fault
