//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/vm"
)

// With any other exit code, go test would report a result of tests that did not run; with 0, it would print "ok".
func TestExec_BadUsageIsNoResult(t *testing.T) {
	for _, args := range [][]string{nil, {"-h"}, {"-nonsense"}, {"-mem", "much"}, {"-mem", "1", "/nonexistent/x.test"}} {
		assert.Equal(t, execMain(args), vm.FaultCode, "%q", args)
	}
}

// captureStderr returns what f prints to standard error.
func captureStderr(t *testing.T, f func()) string {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	assert.NilError(t, err)
	defer file.Close()
	stderr := os.Stderr
	os.Stderr = file
	defer func() { os.Stderr = stderr }()
	f()
	return readFile(t, file.Name())
}

// What the questions would refuse is refused before a VM boots, and before a series begins.
func TestSettings_AreCheckedBeforeAnythingStarts(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for _, variable := range []string{"CDB_RUNC", "CDB_CONTAINERD", "CDB_CTR", "CDB_SHIM", "CDB_STEP"} {
		t.Setenv(variable, "")
	}
	binary := filepath.Join(t.TempDir(), "x.test")
	assert.NilError(t, os.WriteFile(binary, []byte("#!/bin/sh\ntouch started\n"), 0o755))
	for _, row := range []struct {
		variable, value string
		run             func([]string) int
		args            []string
		want            int
	}{
		{"CDB_KEEP", "flase", execMain, []string{binary}, vm.FaultCode},
		{"CDB_TIMEOUT", "5", execMain, []string{binary}, vm.FaultCode},
		{"CDB_KEPE", "1", diskMain, []string{"-disk", "node.qcow2", "-tarball", dir, "-test2json", binary}, vm.FaultCode},
		{"CDB_KEEP", "flase", steadyMain, []string{binary}, 1},
		{"CDB_KEEP", "flase", runMain, []string{binary, "test"}, 1},
		{"CDB_KEEP", "flase", mutantsMain, []string{"-test2json", binary}, 1},
		{"CDB_KEEP", "flase", sabotageMain, []string{"-test2json", binary}, 1},
		{"CDB_KEEP", "flase", releasedMain, []string{"-test2json", binary, binary}, 1},
		{"CDB_MEM", "512M", runMain, []string{binary, "test"}, 1},
		{"CDB_FIRMWARE", "UEFI", diskMain, []string{"-disk", "node.qcow2", "-tarball", dir, "-test2json", binary}, vm.FaultCode},
	} {
		t.Run(row.variable, func(t *testing.T) {
			t.Setenv(row.variable, row.value)
			var code int
			out := captureStderr(t, func() { code = row.run(row.args) })
			assert.Check(t, cmp.Equal(code, row.want))
			ofQuestions, ofVM := row.variable+"="+row.value+" has no meaning", strings.TrimPrefix(row.variable, "CDB_")+` is "`+row.value+`"`
			assert.Check(t, strings.Contains(out, ofQuestions) || strings.Contains(out, ofVM), out)
			left, err := os.ReadDir(dir)
			assert.NilError(t, err)
			assert.Check(t, cmp.Len(left, 0), "what was begun")
		})
	}
}
