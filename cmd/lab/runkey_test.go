//go:build linux

package main

import (
	"os"
	"path/filepath"
	"testing"

	"gotest.tools/v3/assert"
)

// The key of a run of a disk image changes with each setting, and with a file below the image.
func TestRunKey_OfADiskImage(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	img := filepath.Join(dir, "bin", "qemu-img")
	assert.NilError(t, os.Mkdir("bin", 0o755))
	assert.NilError(t, os.WriteFile(img, []byte("#!/bin/sh\n"+`echo '[{"filename": "node.qcow2"}, {"filename": "base.raw"}]'`+"\n"), 0o755))
	t.Setenv("PATH", filepath.Dir(img)+":"+os.Getenv("PATH"))
	write := func(name, content string) { assert.NilError(t, os.WriteFile(name, []byte(content), 0o644)) }
	write("go.mod", "module cdblab\n")
	write("node.qcow2", "an overlay")
	write("base.raw", "1")
	seen := map[string]string{}
	key := func(what string, settings ...string) {
		t.Helper()
		k, err := newRunKey(t.Context(), "vm", append([]string{"CDB_DISK=node.qcow2"}, settings...))
		assert.NilError(t, err)
		assert.Equal(t, seen[k.dir()], "", "%s has the same key as this run", what)
		seen[k.dir()] = what
	}
	key("the first run")
	for _, setting := range settingsOfRun {
		key(setting, setting+"=1")
	}
	key("emulation", "CDB_ACCEL=tcg")
	key("KVM", "CDB_ACCEL=kvm")
	key("another command line", "CDB_VM_APPEND=quiet")
	key("other modules", "CDB_MODULES=/lib/modules")
	write("base.raw", "2")
	key("another file below the image")
}
