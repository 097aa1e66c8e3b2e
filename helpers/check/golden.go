//go:build linux

package check

import (
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/golden"
)

// Golden asserts that a text is that of a file in testdata. `go test -update` writes the file. [golden.Assert] does the same, and advises
// in its message to update the file: but a program that differs is what the lab looks for.
func Golden(tb testing.TB, observed, name string) {
	tb.Helper()
	if golden.FlagUpdate() {
		golden.Assert(tb, observed, name) // writes it
		return
	}
	expected := string(golden.Get(tb, name))
	assert.Equal(tb, observed, expected, "it differs from testdata/%s", name)
}
