//go:build linux

package main

import (
	"os"
	"path/filepath"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/vm"
)

// A disk image has programs of its own. A run that left the named one out would be green, and two such runs would be equal.
func TestDisk_RefusesAnotherProgram(t *testing.T) {
	t.Chdir(t.TempDir())
	assert.NilError(t, os.WriteFile("go.mod", []byte("module cdblab\n"), 0o644))
	test2json, err := filepath.Abs("test2json")
	assert.NilError(t, err)
	assert.NilError(t, os.WriteFile(test2json, []byte("#!/bin/sh\ntouch started\n"), 0o755))
	all := []string{"RUNC", "CONTAINERD", "CTR", "SHIM", "CDB_RUNC", "CDB_CONTAINERD", "CDB_CTR", "CDB_SHIM"}
	for _, variable := range all {
		t.Setenv(variable, "")
	}
	for _, variable := range all {
		t.Setenv(variable, "1.2.5")
		for _, run := range []func() int{
			func() int { return diskMain([]string{"-disk", "node.qcow2", "-tarball", ".", "-test2json", test2json}) },
			func() int { return shellMain([]string{"-disk", "node.qcow2", "-tarball", "."}) },
		} {
			var code int
			out := captureStderr(t, func() { code = run() })
			assert.Check(t, cmp.Equal(code, vm.FaultCode))
			assert.Check(t, cmp.Contains(out, variable+` is "1.2.5", and a disk image has programs of its own`))
		}
		_, err = newRunKey(t.Context(), "vm", []string{"CDB_DISK=node.qcow2", variable + "=1.2.5"})
		assert.Check(t, cmp.ErrorContains(err, variable+` is "1.2.5"`))
		_, err = checkNamed("node.qcow2")
		assert.Check(t, cmp.ErrorContains(err, variable+` is "1.2.5"`))
		t.Setenv(variable, "")
	}
	_, err = os.Stat("started")
	assert.ErrorIs(t, err, os.ErrNotExist)
}

// What was given to lab disk for the VM reaches lab exec, which boots it.
func TestDisk_HandsOnTheSettingsOfTheVM(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, name := range []string{"RUNC", "CONTAINERD", "CTR", "SHIM"} {
		t.Setenv(name, "")
		t.Setenv("CDB_"+name, "")
	}
	assert.NilError(t, os.WriteFile("test2json", []byte("#!/bin/sh\necho \" $* \" > args\n"), 0o755))
	diskMain([]string{"-disk", "node.qcow2", "-tarball", "lab.tar.gz", "-firmware", "uefi", "-mem", "4096", "-test2json", "./test2json"})
	args := readFile(t, "args")
	for _, want := range []string{" -firmware=uefi ", " -mem=4096 ", " -disk node.qcow2 ", " -tarball lab.tar.gz "} {
		assert.Check(t, cmp.Contains(args, want))
	}
}

// How long the rest takes is estimated from runs of the same image.
func TestRun_TheTimesOfADiskAreItsOwn(t *testing.T) {
	here := labRun{argv: []string{"lab.test", "-test.v"}}
	disk := labRun{argv: []string{"cdblab", "exec", "-disk", "node.qcow2", "lab.test"}}
	assert.Check(t, here.kind() != disk.kind())
	assert.Check(t, cmp.Contains(disk.kind(), "node.qcow2"))
}

// make doctor is asked before a run that may build for minutes.
func TestDoctor_ReadsWhatIsNamed(t *testing.T) {
	for _, name := range []string{"RUNC", "CONTAINERD", "CTR", "SHIM"} {
		t.Setenv(name, "")
		assert.NilError(t, os.Unsetenv(name))
	}
	seen, err := checkNamed("")
	assert.NilError(t, err)
	assert.Equal(t, seen, "not set")
	t.Setenv("RUNC", "1.2.5")
	seen, err = checkNamed("")
	assert.NilError(t, err)
	assert.Check(t, cmp.Contains(seen, "RUNC=1.2.5"))
	t.Setenv("RUNC", "no-such-runc")
	_, err = checkNamed("")
	assert.ErrorContains(t, err, "neither a version nor a program on PATH")
}
