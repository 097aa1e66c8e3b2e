//go:build linux

package main

import (
	"os"
	"path/filepath"
	"testing"

	"gotest.tools/v3/assert"

	"cdblab/helpers/released"
)

// releasedBug makes a bug whose broken version is a program on PATH, and the runs that ask about it. The binary of the questions is a
// script; $STREAM is the stream of a run.
func releasedBug(t *testing.T, script string) (*releasedRuns, released.Bug) {
	t.Helper()
	module(t)
	for _, env := range []string{"CDB_RUNC", "CDB_CONTAINERD", "CDB_CTR", "CDB_SHIM"} {
		t.Setenv(env, "")
	}
	dir, err := os.Getwd()
	assert.NilError(t, err)
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	t.Setenv("STREAM", filepath.Join(dir, "next.json"))
	assert.NilError(t, os.WriteFile("next.json", []byte(stream("", "there")), 0o644))
	for name, script := range map[string]string{"broken-runc": "exit 0", "questions.test": script, "test2json": "exec cat"} {
		assert.NilError(t, os.WriteFile(name, []byte("#!/bin/sh\n"+script+"\n"), 0o755))
	}
	b := released.Bug{ID: "kill", Module: "runc", Broken: "broken-runc", Questions: []string{"TestX"}}
	r := &releasedRuns{where: "here", test2json: "./test2json", command: []string{"./questions.test"}}
	assert.NilError(t, r.begin([]released.Bug{b}))
	return r, b
}

func streamsOf(t *testing.T, b released.Bug) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(releasedDir, b.ID, "*"))
	assert.NilError(t, err)
	return files
}

// What was asked with the old binary is stored under the key of its own source, also if a question was edited meanwhile.
func TestReleased_AnEditMeanwhileIsAnotherRun(t *testing.T) {
	r, b := releasedBug(t, `cat $STREAM; echo "func TestX(t *testing.T) {}" > x_test.go; echo edited >> asked`)
	for range 2 {
		_, err := r.run(t.Context(), b, b.Broken)
		assert.NilError(t, err)
	}
	assert.Equal(t, readFile(t, "asked"), "edited\n", "the second time, the run is there")
	assert.NilError(t, r.begin([]released.Bug{b}))
	_, err := r.run(t.Context(), b, b.Broken)
	assert.NilError(t, err)
	assert.Equal(t, len(streamsOf(t, b)), 2, "the edited question was not asked")

	r.fresh = true
	assert.NilError(t, os.WriteFile("questions.test", []byte("#!/bin/sh\ncat $STREAM\n"), 0o755))
	_, err = r.run(t.Context(), b, b.Broken)
	assert.ErrorIs(t, err, errBuiltAgain)
}

// A failure of the VM says nothing about a bug, also after all questions have ended.
func TestReleased_AFailureOfTheVMIsNoAnswer(t *testing.T) {
	r, b := releasedBug(t, `cat $STREAM; echo "lab: the VM is silent
  what to do: look at cdblab: x"; echo "lab: the machine failed, so nothing is known about the tests (exit code 125)"; exit 125`)
	_, err := r.run(t.Context(), b, b.Broken)
	assert.Error(t, err, "the VM failed, so nothing is known about the bug: lab: the VM is silent\n  what to do: look at cdblab: x")
	assert.Equal(t, len(streamsOf(t, b)), 0)
}

func TestReleased_SaysWhyARunDidNotComeToItsEnd(t *testing.T) {
	r, b := releasedBug(t, `echo '{"Action":"output","Output":"cdblab: this machine is not disposable\\n"}'; exit 1`)
	_, err := r.run(t.Context(), b, b.Broken)
	assert.ErrorContains(t, err, "did not come to its end: this machine is not disposable: see "+releasedDir)
}
