//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/host"
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
	for _, setting := range slices.Concat(settingsOfVM, settingsOfQuestions) {
		key(setting, setting+"=1")
	}
	key("emulation", "CDB_ACCEL=tcg")
	key("KVM", "CDB_ACCEL=kvm")
	key("another command line", "CDB_VM_APPEND=quiet")
	key("other modules", "CDB_MODULES=/lib/modules")
	write("base.raw", "2")
	key("another file below the image")
}

// What decides a verdict on this machine is part of the key as well.
func TestRunKey_OfThisMachine(t *testing.T) {
	module(t)
	plain, err := newRunKey(t.Context(), "here", nil)
	assert.NilError(t, err)
	assert.DeepEqual(t, plain.Node, host.Properties())
	again, err := newRunKey(t.Context(), "here", nil)
	assert.NilError(t, err)
	assert.Equal(t, again.dir(), plain.dir(), "the same run")
	again.Node = append(again.Node, host.Property{Name: host.ContainerdConfig + " version", Value: "3"})
	assert.Check(t, again.dir() != plain.dir(), "another machine")
	pinned, err := newRunKey(t.Context(), "here", []string{"CDB_PINNED=CDB_RUNC"})
	assert.NilError(t, err)
	assert.Check(t, pinned.dir() != plain.dir(), "held to all assertions")
}

func TestSourceDigest_IsOfWhatARunIsMadeOf(t *testing.T) {
	t.Chdir(t.TempDir())
	digest := func(file, where string) string {
		assert.NilError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		assert.NilError(t, os.WriteFile(file, []byte("x"), 0o644))
		d, err := sourceDigest(where, nil)
		assert.NilError(t, err)
		return d
	}
	last := digest("go.mod", "vm")
	for _, file := range []string{"task_test.go", "helpers/lab/run.go", "helpers/schema/defs.json", "testdata/death.golden",
		"cmd/lab-init/main.go", "helpers/vm/command.go", "helpers/vm/seed/start.sh"} {
		next := digest(file, "vm")
		assert.Check(t, next != last, "%s does not count", file)
		last = next
	}
	others := []string{"README.md", "cmd/lab/run.go", "cmd/lab-init/main_test.go", "helpers/lab/run_test.go", "helpers/lab/testdata/x.go",
		"helpers/notebook/page.go", ".lab/results/x.go", "selftest/x_test.go", "scripts/deps.sh", "testdata/mutants.csv",
		"testdata/sabotage.toml", "testdata/released-bugs.toml"}
	for _, file := range others {
		assert.Check(t, cmp.Equal(digest(file, "vm"), last), "%s counts", file)
	}
	last = digest("go.mod", "here")
	for _, file := range []string{"cmd/lab-init/cgroup.go", "helpers/vm/kernel.go"} {
		assert.Check(t, cmp.Equal(digest(file, "here"), last), "%s counts, and no VM is there", file)
	}
}

// No package of the questions is in a directory that the digest leaves out.
func TestSourceDigest_LeavesOutNoPackageOfTheQuestions(t *testing.T) {
	list := exec.Command("go", "list", "-deps", "-test", "-tags", "vmlab", ".")
	list.Dir = "../.."
	out, err := list.Output()
	assert.NilError(t, err)
	packages := strings.Fields(string(out))
	assert.Check(t, cmp.Contains(packages, "cdblab/helpers/lab"))
	for _, dir := range slices.Concat(notInBinary, onlyInVM) {
		_, err := os.Stat(filepath.Join("../..", dir))
		assert.NilError(t, err)
		for _, p := range packages {
			assert.Check(t, !strings.HasPrefix(p+"/", "cdblab/"+dir+"/"), "the questions import %s", p)
		}
	}
}
