//go:build linux && !vmlab

package cdblab

import (
	"os"
	"testing"

	"gotest.tools/v3/assert"

	"cdblab/helpers/syllabus"
)

// Without the tag vmlab no question is asked. This test lists the questions and says how to ask them. It fails if the list cannot
// be read, or if the README has another list. `go test . -update` writes the list into the README.
func TestSyllabus(t *testing.T) {
	questions, err := syllabus.Read(os.DirFS("."))
	assert.NilError(t, err)
	t.Logf("These are the questions of the lab. None was asked: to ask them you need root in a disposable VM, and the tag vmlab.\n%s\n"+
		"To ask them:   sudo go test -tags vmlab ./...     (or make lab-here, which finds go and builds the tools)\n"+
		"To ask some:   make lab-here Q=Lifecycle\n", syllabus.Text(questions))

	keepInStep(t, "README.md", "## Syllabus\n\n", "\n`make syllabus` prints", syllabus.Markdown(questions))
}
