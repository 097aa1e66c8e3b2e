//go:build linux

package runc

import (
	"strings"

	"cdblab/helpers/lab"
)

// IsRunc reports whether the runtime under test is a runc, directly or behind a wrapper, by the version that it prints. Another
// runtime has the specification in common with runc, but neither its files nor its way of waiting for start: crun and youki
// keep no state.json of libcontainer's, and their init processes do not wait in open(2) of exec.fifo.
func IsRunc(q *lab.Q) bool { return strings.HasPrefix(q.UnderTest("runc").Version, "runc ") }

// SkipUnlessRunc skips a question about what is runc's own.
func SkipUnlessRunc(q *lab.Q, about string) {
	q.Helper()
	if !IsRunc(q) {
		q.Skipf("this is about %s, which is runc's own, and the runtime under test is %s: unset CDB_RUNC", about, q.UnderTest("runc").Version)
	}
}
