//go:build linux

package guest

// What is fuzzed without files.
var (
	BuildID = buildID
	CPU     = cpu
)
