//go:build linux

package runc

import (
	"strings"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/lab"
)

// IsRunc reports whether the runtime under test is a runc, directly or behind a wrapper. It is, unless it prints the version of
// another runtime ("crun version 1.8.1"): a program that prints none is broken, and has to fail.
//
// Another runtime has the specification in common with runc, but neither its files nor its way of waiting for start: crun and
// youki keep no state.json of libcontainer's, and their init processes do not wait in open(2) of exec.fifo.
func IsRunc(q *lab.Q) bool {
	name, _, ok := strings.Cut(q.UnderTest("runc").Version, " version ")
	return !ok || name == "runc" || strings.Contains(name, " ") // a wrapper prints its own name: "NVIDIA Container Runtime"
}

// SkipUnlessRunc skips a question about what is runc's own.
func SkipUnlessRunc(q *lab.Q, about string) {
	q.Helper()
	if !IsRunc(q) {
		q.Skipf("this is about %s, which is runc's own, and the runtime under test is %s: unset CDB_RUNC", about, q.UnderTest("runc").Version)
	}
}

// AssertMessage asserts that an error of the runtime matches a regular expression, in upper or lower case. It asserts this of
// a runc only: the specification says when an operation has to fail, and not in which words.
func AssertMessage(q *lab.Q, message, want string) {
	q.Helper()
	if IsRunc(q) {
		assert.Check(q, cmp.Regexp("(?i)"+want, message), "the error does not name what is wrong or missing")
	}
}
