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
	r := steadyRun{Number: 7, Code: 1}
	assert.NilError(t, os.WriteFile(r.logFile(), []byte("-test.shuffle 42\n--- FAIL: TestTask_A (1.00s)\n    --- FAIL: TestTask_A/row (0.50s)\n"+
		"cdblab: 2 questions asked: 1 answered, 1 failed, 0 skipped, in 1.0 s\n"), 0o644))
	assert.NilError(t, r.read())
	assert.DeepEqual(t, r.Failed, []string{"TestTask_A", "TestTask_A/row"})
	assert.Equal(t, r.Seed, "42")
}

// A run that passes without asking a question has failed.
func TestSteady_ARunWithoutQuestionsFails(t *testing.T) {
	t.Chdir(t.TempDir())
	assert.NilError(t, os.MkdirAll(steadyDir, 0o755))
	r := steadyRun{Number: 1}
	assert.NilError(t, os.WriteFile(r.logFile(), []byte("PASS\n"), 0o644))
	assert.NilError(t, r.read())
	assert.Equal(t, r.Code, 1)
}

// A series that was stopped goes on, with its first run as the one that the facts are compared with. Another binary begins anew.
func TestSteady_AStoppedSeriesGoesOn(t *testing.T) {
	t.Chdir(t.TempDir())
	assert.NilError(t, os.MkdirAll(steadyDir, 0o755))
	key, argv := runKey{Source: "sha256:1", Where: "here"}, []string{"lab.test"}
	s := steadySeries{Key: key, Argv: argv}
	assert.NilError(t, s.add(steadyRun{Number: 1, Seed: "7"}))
	assert.NilError(t, s.add(steadyRun{Number: 2, Busy: true, Code: 1, Failed: []string{"TestTask_A"}}))

	again, err := readSeries()
	assert.NilError(t, err)
	assert.Assert(t, again.is(key, argv), "the same binary goes on")
	assert.DeepEqual(t, again.Runs, s.Runs)
	assert.Assert(t, !again.is(runKey{Source: "sha256:2", Where: "here"}, argv), "another source begins anew")
	assert.Assert(t, !again.is(key, []string{"lab.test", "-test.run=Task"}), "other questions begin anew")

	assert.Assert(t, !again.isComplete(3), "it goes on with run 3")
	assert.Assert(t, again.isComplete(2), "the same command begins anew")

	assert.NilError(t, removeRuns())
	again, err = readSeries()
	assert.NilError(t, err)
	assert.Equal(t, len(again.Runs), 0)
	assert.Assert(t, !again.is(key, argv))
}

// A binary that was built again from another source would make the series a mixture, and a second series would write the same files.
func TestSteady_IsOneSeriesOfOneBinary(t *testing.T) {
	module(t)
	script := "#!/bin/sh\necho 'cdblab: 1 questions asked: 1 answered, 0 failed, 0 skipped, in 1.0 s'; echo '# next' >> lab.test\n"
	assert.NilError(t, os.WriteFile("lab.test", []byte(script), 0o755))
	assert.Equal(t, steadyMain([]string{"-n", "3", "./lab.test"}), 1)
	s, err := readSeries()
	assert.NilError(t, err)
	assert.Equal(t, len(s.Runs), 1, "after the first run the binary is another one")
	assert.Equal(t, s.Runs[0].Code, 0)

	first, err := openSeries(t.Context(), "here", []string{"./lab.test"}, 3, false)
	assert.NilError(t, err)
	_, err = openSeries(t.Context(), "here", []string{"./lab.test"}, 3, false)
	assert.ErrorContains(t, err, "another process has locked "+steadyDir)
	first.unlock()
}
