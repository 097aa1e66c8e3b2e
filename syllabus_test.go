//go:build linux && !vmlab

package cdblab

import (
	"os"
	"testing"

	"gotest.tools/v3/assert"

	"cdblab/helpers/syllabus"
)

// Without the tag no question is asked: this lists them and says how to ask them. It fails where the list cannot be
// read, or where the README's is another one, which `go test . -update` mends.
func TestSyllabus(t *testing.T) {
	questions, err := syllabus.Read(os.DirFS("."))
	assert.NilError(t, err)
	t.Logf("The questions of the lab. None was asked: that takes root in a disposable VM, and the tag vmlab.\n%s\n"+
		"To ask them:   sudo go test -tags vmlab ./...     (or make lab-here, which finds go and builds the tools)\n"+
		"To ask some:   make lab-here Q=Lifecycle\n", syllabus.Text(questions))

	keepInStep(t, "README.md", "## Syllabus\n\n", "\n`make syllabus` prints", syllabus.Markdown(questions))
}
