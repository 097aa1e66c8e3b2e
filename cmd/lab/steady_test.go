//go:build linux

package main

import (
	"os"
	"testing"

	"gotest.tools/v3/assert"
)

func TestSteady_ReadsWhatFailed(t *testing.T) {
	t.Chdir(t.TempDir())
	assert.NilError(t, os.MkdirAll(steadyDir, 0o755))
	r := steadyRun{number: 7, code: 1}
	assert.NilError(t, os.WriteFile(r.logFile(), []byte("-test.shuffle 42\n--- FAIL: TestTask_A (1.00s)\n    --- FAIL: TestTask_A/row (0.50s)\n"+
		"cdblab: 2 questions asked: 1 answered, 1 failed, 0 skipped, in 1.0 s\n"), 0o644))
	assert.NilError(t, r.read())
	assert.DeepEqual(t, r.failed, []string{"TestTask_A", "TestTask_A/row"})
	assert.Equal(t, r.seed, "42")
}

// A run that passes without asking a question has failed.
func TestSteady_ARunWithoutQuestionsFails(t *testing.T) {
	t.Chdir(t.TempDir())
	assert.NilError(t, os.MkdirAll(steadyDir, 0o755))
	r := steadyRun{number: 1}
	assert.NilError(t, os.WriteFile(r.logFile(), []byte("PASS\n"), 0o644))
	assert.NilError(t, r.read())
	assert.Equal(t, r.code, 1)
}
