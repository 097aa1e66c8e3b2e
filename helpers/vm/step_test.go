//go:build linux && vmtest

package vm

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"cdblab/helpers/prompt/prompttest"
	"cdblab/helpers/slowness"
)

// stepPrompt is where the reader types.
const stepPrompt = "     > "

// A run with CDB_STEP=1 stops before each step, and what the reader types at the terminal of the host runs in the guest. The reader ends
// the run by q. Then the terminal is as it was, and the exit code is not 0: selftest has the same without a VM.
func TestStepping_TheReaderIsInTheGuest(t *testing.T) {
	questions := filepath.Join(t.TempDir(), "lab.test")
	out, err := exec.Command("go", "test", "-c", "-tags", "vmlab", "-o", questions, "cdblab").CombinedOutput()
	assert.NilError(t, err, "%s", out)
	lab := exec.Command(built.lab, "exec", questions, "-test.v", "-test.timeout=5s", "-test.run=Lifecycle_WhatIsTheDifference")
	lab.Dir = filepath.Join("..", "..") // the questions run there, and lab exec finds the tools by it
	lab.Env = append(os.Environ(), "CDB_STEP=1")
	reader := prompttest.SitDownFor(t, lab, slowness.Scale(10*time.Minute)) // the first boot makes the image

	reader.Sees("stopped before step 1\r\n")
	reader.Sees(stepPrompt)
	reader.Types("\r")
	reader.Sees("stopped before step 2\r\n")
	reader.Sees("runc init   (child of ")
	reader.Sees(stepPrompt)
	reader.Types("cat /etc/hostname\r")
	reader.Sees("\r\nlab\r\n") // the name that the guest has
	reader.Sees(stepPrompt)
	reader.Types("runc --root root state cdb-runc\r")
	reader.Sees(`"status": "created"`)
	reader.Sees(stepPrompt)
	reader.Types("sleep 6\r") // longer than -test.timeout
	reader.Sees(stepPrompt)
	reader.Types("q\r")
	reader.Sees("1 questions asked: 0 answered, 0 failed, 1 skipped")
	reader.Sees("the reader ended the run, so its result says nothing")
	reader.Sees("lab: 1 asked, 0 answered, 0 failed, 1 skipped; Linux ")
	assert.Equal(t, reader.ExitCode(), 1)
}
