//go:build linux && vmtest

package host

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/cgroup"
)

// The controllers of the v2 hierarchy's root are those of the whole machine, so these tests run in the throw-away VM only.
// TestControllers in helpers/vm runs them, and so does: go test -tags vmtest -exec "$PWD/.lab/bin/lab exec" ./helpers/host

// v2Root returns the v2 hierarchy, with these cgroups of the host, and with a note of the lab. The controllers pids and memory
// are disabled at the root.
func v2Root(t *testing.T, hostCgroups ...string) cgroup.Hierarchy {
	t.Helper()
	if os.Geteuid() != 0 || os.Getenv("CDB_DISPOSABLE") != "yes" {
		t.Skip("it changes the controllers of the whole machine: run it in the VM (make test-vm)")
	}
	h, ok := v2Hierarchy()
	available, _ := os.ReadFile(filepath.Join(h.Mountpoint, "cgroup.controllers"))
	for _, controller := range []string{"pids", "memory"} {
		if !ok || !slices.Contains(strings.Fields(string(available)), controller) {
			t.Skipf("this machine has no v2 hierarchy with the controller %s: run it with CGROUP=v2", controller)
		}
	}
	assert.Assert(t, !exists(Dir), "a run of the lab is in progress")
	before := enabled(t, h.Mountpoint)
	disable(t, h.Mountpoint, "pids", "memory")
	for _, path := range hostCgroups {
		hostCgroup(t, h, path)
	}
	assert.NilError(t, os.Mkdir(Dir, dirMode))
	assert.NilError(t, noteControllers())
	t.Cleanup(func() {
		assert.Check(t, os.RemoveAll(Dir))
		if err := unix.Rmdir(h.Path(Cgroup)); !errors.Is(err, unix.ENOENT) {
			assert.Check(t, err)
		}
		enable(t, h.Mountpoint, before...)
	})
	return h
}

// runAsRuntime enables the controllers as a runtime does for a container with limits: from the root down to the container's
// parent. It makes the lab's cgroup, and removes the run's again, as the end of a run does.
func runAsRuntime(t *testing.T, h cgroup.Hierarchy) {
	t.Helper()
	container := h.Path(Cgroup + "/1/q1/cdb-runc")
	assert.NilError(t, os.MkdirAll(container, 0o755))
	for _, dir := range []string{h.Mountpoint, h.Path(Cgroup), h.Path(Cgroup + "/1"), h.Path(Cgroup + "/1/q1")} {
		enable(t, dir, "pids", "memory")
	}
	write(t, filepath.Join(container, "pids.max"), "77")
	_, err := removeCgroups(NewOwner("1", ""))
	assert.NilError(t, err)
}

func enabled(t *testing.T, dir string) []string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, controllersFile))
	assert.NilError(t, err)
	return strings.Fields(string(data))
}

func enable(t *testing.T, dir string, controllers ...string) {
	t.Helper()
	for _, controller := range controllers {
		write(t, filepath.Join(dir, controllersFile), "+"+controller)
	}
}

func disable(t *testing.T, dir string, controllers ...string) {
	t.Helper()
	for _, controller := range controllers {
		write(t, filepath.Join(dir, controllersFile), "-"+controller)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	assert.NilError(t, os.WriteFile(path, []byte(text), 0o644))
}

// hostCgroup makes a cgroup that is not the lab's.
func hostCgroup(t *testing.T, h cgroup.Hierarchy, path string) string {
	t.Helper()
	dir := h.Path(path)
	assert.NilError(t, os.Mkdir(dir, 0o755))
	t.Cleanup(func() { assert.Check(t, unix.Rmdir(dir)) })
	return dir
}

func TestControllers_WhatTheRuntimeEnabledIsDisabledAgain(t *testing.T) {
	h := v2Root(t)
	before := enabled(t, h.Mountpoint)
	runAsRuntime(t, h)
	assert.Check(t, !slices.Equal(enabled(t, h.Mountpoint), before), "the runtime has enabled nothing, so there is nothing to restore")
	assert.NilError(t, restoreControllers())
	assert.Check(t, cmp.DeepEqual(enabled(t, h.Mountpoint), before))
	assert.Check(t, !exists(filepath.Join(Dir, controllersFile)), "the note is still there")
}

func TestControllers_WhatWasEnabledBeforeTheLabStaysEnabled(t *testing.T) {
	h := v2Root(t)
	assert.NilError(t, os.Remove(filepath.Join(Dir, controllersFile)))
	enable(t, h.Mountpoint, "pids") // by the host, before the lab's first run
	assert.NilError(t, noteControllers())
	runAsRuntime(t, h)
	assert.NilError(t, noteControllers()) // of a second run: the first note counts
	assert.NilError(t, restoreControllers())
	assert.Check(t, cmp.Contains(enabled(t, h.Mountpoint), "pids"))
	assert.Check(t, !slices.Contains(enabled(t, h.Mountpoint), "memory"), "what the lab's runtime enabled is still enabled")
}

func TestControllers_WhatTheHostUsesByNowStaysEnabled(t *testing.T) {
	for _, row := range []struct {
		name   string
		before []string                               // cgroups that are there before the lab's first run
		use    func(t *testing.T, h cgroup.Hierarchy) // of the controller pids
	}{
		{"a limit", []string{"/host-app"}, func(t *testing.T, h cgroup.Hierarchy) {
			write(t, h.Path("/host-app/pids.max"), "55")
		}},
		{"enabled for the children of a cgroup", []string{"/host-slice"}, func(t *testing.T, h cgroup.Hierarchy) {
			enable(t, h.Path("/host-slice"), "pids")
		}},
		{"a limit further down", []string{"/host-slice", "/host-slice/app"}, func(t *testing.T, h cgroup.Hierarchy) {
			enable(t, h.Path("/host-slice"), "pids")
			write(t, h.Path("/host-slice/app/pids.max"), "55")
		}},
		{"measured by a new cgroup", nil, func(t *testing.T, h cgroup.Hierarchy) {
			_, err := os.ReadFile(filepath.Join(hostCgroup(t, h, "/host-new"), "pids.current"))
			assert.NilError(t, err)
		}},
		{"measured by a cgroup that was made again", []string{"/host-app"}, func(t *testing.T, h cgroup.Hierarchy) {
			assert.NilError(t, unix.Rmdir(h.Path("/host-app")))
			assert.NilError(t, os.Mkdir(h.Path("/host-app"), 0o755))
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			h := v2Root(t, row.before...)
			runAsRuntime(t, h)
			row.use(t, h)
			assert.NilError(t, restoreControllers())
			assert.Check(t, cmp.Contains(enabled(t, h.Mountpoint), "pids"), "the host uses this controller")
		})
	}
}

// Without it, the test above would also pass if nothing were ever disabled where the host has cgroups.
func TestControllers_AnIdleCgroupOfTheHostKeepsNothingEnabled(t *testing.T) {
	h := v2Root(t, "/host-app")
	before := enabled(t, h.Mountpoint)
	runAsRuntime(t, h)
	assert.NilError(t, restoreControllers())
	assert.Check(t, cmp.DeepEqual(enabled(t, h.Mountpoint), before))
}
