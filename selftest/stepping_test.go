//go:build linux && vmlab && selftest

package selftest

import (
	"fmt"
	"syscall"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/prompt/prompttest"
)

const differenceQuestion = "-test.run=Lifecycle_WhatIsTheDifference"

// stepPrompt is where the reader types.
const stepPrompt = "     > "

// A run with CDB_STEP=1 stops before each step. The reader looks at the state with commands, and takes longer than go test's
// deadline allows.
func TestStepping_StopsAtEachStepUntilTheReaderGoesOn(t *testing.T) {
	before := takeInventory(t)
	reader := prompttest.SitDown(t, newLab("CDB_STEP=1", "-test.v", "-test.timeout=5s", "-test.parallel=4", differenceQuestion).Cmd)
	reader.Sees("stopped before step 1\r\n")
	reader.Sees(stepPrompt)
	reader.Types("\r")
	reader.Sees("stopped before step 2\r\n")
	for _, text := range []string{"runc init   (child of ", "/q1/cdb-runc", "nsenter -t ", "runs here:", stepPrompt} {
		reader.Sees(text)
	}
	reader.Types("runc --root root state cdb-runc\r")
	reader.Sees(`"status": "created"`)
	reader.Sees(stepPrompt)
	reader.Types("sleep 6\r") // longer than -test.timeout
	step, controls := 3, 0
	for {
		reader.Sees(stepPrompt)
		reader.Types("\r")
		next := fmt.Sprintf("stopped before step %d\r\n", step)
		const control = "stopped before this control"
		seen := reader.SeesOneOf(next, control, "1 answered, 0 failed")
		if seen != next && seen != control {
			break
		}
		if seen == next {
			step++
		} else {
			controls++
		}
	}
	assert.Check(t, step > 5 && controls > 0, "the run stopped before steps 1 to %d, and before %d controls", step-1, controls)
	assert.Equal(t, reader.ExitCode(), 0)
	assertHostUnchanged(t, before)
}

// The reader ends the run by q. The question is taken down, the next one is not asked, and the run is not green.
func TestStepping_TheReaderEndsTheRun(t *testing.T) {
	before := takeInventory(t)
	reader := prompttest.SitDown(t, newLab("CDB_STEP=1", "-test.v", "-test.run=Lifecycle_WhatIs").Cmd)
	reader.Sees("stopped before step 1\r\n")
	reader.Sees(stepPrompt)
	reader.Types("\r")
	reader.Sees("stopped before step 2\r\n")
	reader.Sees(stepPrompt)
	reader.Types("q\r")
	reader.Sees("1 questions asked: 0 answered, 0 failed, 1 skipped")
	reader.Sees("the reader ended the run, so its result says nothing")
	assert.Equal(t, reader.ExitCode(), 1)
	assertHostUnchanged(t, before)
}

// The state of a question that fails can be looked at before it is taken down.
func TestStepping_StopsAtAFailure(t *testing.T) {
	before := takeInventory(t)
	lab := newLab("CDB_STEP=1", "CDB_RUNC=/bin/false", "-test.v", differenceQuestion)
	reader := prompttest.SitDown(t, lab.Cmd)
	reader.Sees("stopped because the question has failed")
	reader.Sees(stepPrompt)
	reader.Types("\r")
	reader.Sees("0 answered, 1 failed")
	assert.Equal(t, reader.ExitCode(), 1)
	assertHostUnchanged(t, before)
}

func TestStepping_IsRefusedWithoutATerminal(t *testing.T) {
	before := takeInventory(t)
	l := newLab("CDB_STEP=1", "-test.v", differenceQuestion)
	l.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	code, out := l.run(t)
	assert.Check(t, cmp.Equal(code, 1))
	for _, words := range []string{"CDB_STEP=1 stops at each step", "this process has no terminal", "make lab-here Q=", "CDB_KEEP=1"} {
		assert.Check(t, cmp.Contains(out, words))
	}
	assert.Check(t, !cmp.Contains(out, "=== RUN")().Success(), "a question was asked:\n%s", out)
	assertHostUnchanged(t, before)
}
