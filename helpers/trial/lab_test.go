//go:build linux

package trial

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/results"
)

// ask asks with a script in place of lab confine. What it prints is the stream, and $why is the file that says why it was cut off.
func ask(t *testing.T, log, script string) (Outcome, error) {
	t.Helper()
	const options = "while [ \"$1\" != -- ]; do [ \"$1\" != -why ] || why=$2; shift; done\n"
	convert := filepath.Join(t.TempDir(), "test2json")
	assert.NilError(t, os.WriteFile(convert, []byte("#!/bin/sh\nexec cat\n"), 0o755))
	l := Lab{Binary: "lab.test", Confine: []string{"sh", "-c", options + script, "sh"}, Test2JSON: convert, Jobs: 1}
	return l.Ask(t.Context(), Trial{Log: log, Deadline: time.Minute})
}

// What is said of a VM that failed counts, and not what the lab had said in it.
func TestLastWord_OfAVMThatFailed(t *testing.T) {
	failed := "lab: the machine failed, so nothing is known about the tests (exit code 125)"
	assert.Equal(t, LastWord([]string{"cdblab: skipped, with the reason:", "lab: no space left", failed, "FAIL"}), failed)
	changed := []string{"cdblab: the run changed the host", "lab: exit code 1; Linux 6.1", "FAIL"}
	assert.Equal(t, LastWord(changed), "the run changed the host")
}

// A machine that the lab refuses says nothing about a program under test.
func TestAsk_WithoutAQuestionIsAnError(t *testing.T) {
	const refuses = `printf '%s\n' '{"Action":"output","Output":"cdblab: this machine is not disposable\n"}'; : > "$why"; exit 1`
	_, err := ask(t, filepath.Join(t.TempDir(), "a.log"), refuses)
	assert.ErrorContains(t, err, "no question was asked: the run ended with exit code 1: this machine is not disposable")

	o, err := ask(t, filepath.Join(t.TempDir(), "a.log"), "echo deadline > $why; exit 137")
	assert.NilError(t, err)
	assert.Equal(t, o.CutOff, "deadline")
}

func TestAsk_ForgetsWhyARunBeforeWasCutOff(t *testing.T) {
	log := filepath.Join(t.TempDir(), "a.log")
	assert.NilError(t, os.WriteFile(log+".why", []byte("deadline"), 0o644)) // of a run that was killed
	_, err := ask(t, log, "exit 125")
	assert.ErrorIs(t, err, ErrNotConfined)
}

// A run that has ended early has not asked all questions, also if none of those that it has begun is unfinished.
func TestWhole_IsARunThatHasCountedItsQuestions(t *testing.T) {
	count := "cdblab: 2 questions asked: 1 answered, 1 failed, 0 skipped, in 1.0 s"
	for _, c := range []struct {
		lines  []string
		cutOff string
		want   bool
	}{
		{[]string{"FAIL", count}, "", true},
		{[]string{"cdblab: under test", "panic: index out of range", "FAIL"}, "", false},
		{[]string{"FAIL", count}, "memory: this machine has only 3 MB available", false},
	} {
		o := Outcome{Run: &results.Run{Lines: c.lines}, Code: 1, CutOff: c.cutOff}
		assert.Check(t, cmp.Equal(o.Whole(), c.want), "%q", c.lines)
	}
}
