//go:build linux

package vm

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

// makeIn runs make with words of its command line. Words such as CDB_CGROUP=v1 before "make" are variables of the environment.
func makeIn(t *testing.T, dir, line string) (output string, err error) {
	t.Helper()
	environ, words, _ := strings.Cut(line, "make ")
	c := exec.Command("make", strings.Fields(words)...)
	c.Dir, c.Env = dir, append(os.Environ(), strings.Fields(environ)...)
	out, err := c.CombinedOutput()
	return string(out), err
}

// fakeTests writes a test where each target looks for those of the lab itself.
func fakeTests(t *testing.T, dir string) {
	t.Helper()
	for _, name := range []string{"selftest", "helpers/vm", "helpers/node"} {
		assert.NilError(t, os.MkdirAll(filepath.Join(dir, name), 0o755))
		assert.NilError(t, os.WriteFile(filepath.Join(dir, name, "x_test.go"), []byte("func TestKilled_Sweeps(t *testing.T) {\n"), 0o644))
	}
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "node.qcow2"), nil, 0o644))
}

// What make does not hand on is an error before anything begins. In silence, a run of something else would be green.
func TestMake_RefusesWhatItWouldIgnore(t *testing.T) {
	dir, log := fakeCheckout(t)
	fakeTests(t, dir)
	const isForVM = "asks on this machine, and only a VM has "
	for line, want := range map[string]string{
		"make lab-here CGROUP=v1":                "make lab-here " + isForVM + "CGROUP",
		"make lab-here DISK=node.qcow2":          isForVM + "DISK",
		"CDB_CGROUP=v1 make lab-here":            isForVM + "CDB_CGROUP",
		"make steady KERNEL=6.12":                isForVM + "KERNEL",
		"make watch CGROUP=v1":                   isForVM + "CGROUP",
		"make released ACCEL=tcg":                isForVM + "ACCEL",
		"make mutants CGROUP=v1 MEM=2048":        isForVM + "CGROUP MEM",
		"make sabotage CGROUP=v1":                isForVM + "CGROUP",
		"make selftest CGROUP=v1":                isForVM + "CGROUP",
		"make lab-here WHERE=vm":                 "make lab-here asks on this machine only",
		"make mutants WHERE=vm":                  "make mutants asks on this machine only",
		"make sabotage WHERE=vm":                 "make sabotage asks on this machine only",
		"make selftest WHERE=vm":                 "make selftest asks on this machine only",
		"make mutants RUNC=1.2.5":                "about the pinned programs, and RUNC names another one",
		"CDB_SHIM=/x make sabotage":              "about the pinned programs, and CDB_SHIM names another one",
		"make selftest CONTAINERD=1.7.29":        "about the pinned programs, and CONTAINERD names another one",
		"make released Q=Pause":                  "ID=",
		"make selftest Q=Lifecycle":              "No test in selftest matches Q=Lifecycle",
		"make test-vm Q=Typo":                    "No test in helpers/vm matches Q=Typo",
		"make test-disk Q=Typo/sub":              "No test in helpers/node matches Q=Typo/sub",
		"make lab CGROUP= KERNEL=":               "KERNEL= CGROUP= has no value",
		"make lab DISK=":                         "DISK= has no value",
		"make lab DISK=node.qcow2 ARTIFACTS=dir": "ARTIFACTS= cannot be combined with DISK=",
		"make lab DISK=typo.qcow2":               "DISK=typo.qcow2: there is no such file",
		"make shell DISK=typo.qcow2":             "DISK=typo.qcow2: there is no such file",
	} {
		out, err := makeIn(t, dir, line)
		assert.Check(t, err != nil, "%s: %s", line, out)
		assert.Check(t, cmp.Contains(out, want), line)
	}
	_, err := os.Stat(log)
	assert.ErrorIs(t, err, os.ErrNotExist, "something has begun")
}

// With -n make prints what it would run.
func TestMake_HandsOnWhatIsTyped(t *testing.T) {
	dir, _ := fakeCheckout(t)
	fakeTests(t, dir)
	for line, want := range map[string]string{
		"make -n lab CGROUP=v1":                          "CDB_CGROUP='v1' ",
		"make -n steady CGROUP=v1 WHERE=vm":              "CDB_CGROUP='v1' ",
		"KERNEL=src make -n lab-here":                    ".lab/bin/lab run", // a developer of the kernel has such a variable
		"make -n released RUNC=1.1.12":                   "RUNC=1.1.12",
		"make -n selftest Q=Killed_Sw/sub":               "-run 'Killed_Sw/sub'",
		"make -n test-vm Q=^TestKilled_Sweeps$$|^B":      "-run '^TestKilled_Sweeps",
		"make -n matrix DISK=node.qcow2 DISK_PINNED=1":   "DISK_PINNED='1'",
		"make -n matrix DISK=node.qcow2 FIRMWARE=uefi":   "FIRMWARE='uefi'",
		"make -n matrix DISK=node.qcow2 USER_DATA=a.yml": "USER_DATA='a.yml'",
		"make -n dist ARCH=arm64":                        "lab dist -arch 'arm64'",
	} {
		out, err := makeIn(t, dir, line)
		assert.Check(t, err, "%s: %s", line, out)
		assert.Check(t, cmp.Contains(out, want), line)
	}
	// The tarball is for this machine, whatever a developer of the kernel has in ARCH.
	out, err := makeIn(t, dir, "ARCH=arm64 make -n lab DISK=node.qcow2")
	assert.NilError(t, err, out)
	assert.Check(t, cmp.Contains(out, "lab dist"))
	assert.Check(t, !strings.Contains(out, "-arch"), out)
}

// A run that stops at each step has no display that draws over the prompt, and no deadline.
func TestMake_StepIsTheSameFromTheEnvironment(t *testing.T) {
	dir, _ := fakeCheckout(t)
	for line, stops := range map[string]bool{
		"make -n lab-here":                   false,
		"make -n lab-here STEP=1":            true,
		"CDB_STEP=1 make -n lab-here":        true,
		"make -n lab-here STEP=0":            false,
		"CDB_STEP=0 make -n lab-here":        false,
		"CDB_STEP=1 make -n lab-here STEP=0": false,
	} {
		out, err := makeIn(t, dir, line)
		assert.NilError(t, err, out)
		assert.Check(t, cmp.Equal(strings.Contains(out, "-timeout 0 -v"), stops), "%s: %s", line, out)
		assert.Check(t, cmp.Equal(strings.Contains(out, "lab run"), !stops), "%s: %s", line, out)
	}
	// The programs see the same.
	assert.NilError(t, os.WriteFile(dir+"/scripts/deps.sh", []byte("#!/bin/sh\necho \"<$CDB_STEP>\"\n"), 0o755))
	for line, want := range map[string]string{
		"make deps STEP=1": "<1>\n", "CDB_STEP=1 make deps": "<1>\n", "CDB_STEP=1 make deps STEP=0": "<>\n", "make deps": "<>\n",
	} {
		out, err := makeIn(t, dir, line)
		assert.NilError(t, err, out)
		assert.Check(t, cmp.Equal(out, want), line)
	}
}

// lab steady runs as root. In a directory of the user, the user can remove what it leaves.
func TestMake_TheDirectoryOfASeriesIsTheUsers(t *testing.T) {
	dir, _ := fakeCheckout(t)
	out, err := makeIn(t, dir, "make steady")
	assert.NilError(t, err, out)
	info, err := os.Stat(dir + "/.lab/steady")
	assert.NilError(t, err)
	assert.Check(t, info.IsDir())
}
