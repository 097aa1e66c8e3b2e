//go:build linux

package host

import (
	"os"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

func TestOwner_OwnsByNameAlone(t *testing.T) {
	run, question := NewOwner("1", ""), NewOwner("1", "q2")
	assert.Equal(t, question.Dir(), "/run/cdb-lab/1/q2")
	assert.Equal(t, question.Cgroup(), "/cdb-lab/1/q2")
	assert.Equal(t, question.ID("cdb-task"), "cdb-task-1-q2")
	for _, c := range []struct {
		s             string
		run, question bool
	}{
		{"/run/cdb-lab/1/q2/bundle", true, true},
		{"/run/cdb-lab/1", true, false},
		{"/run/cdb-lab/1/q20", true, false},
		{"/run/cdb-lab/10/q2", false, false},
		{"pids:/cdb-lab/cdb-task-1-q2", true, true},
		{"pids:/cdb-lab/cdb-task-1-q2/below", true, true},
		{"pids:/cdb-lab/cdb-task-1-q20", true, false},
		{"pids:/cdb-lab/cdb-task-11-q2", false, false},
		{"pids:/cdb-lab/cdb-task", false, false}, // the host's own containerd may have a container with the chapter's id
		{"/sys/fs/cgroup/pids", false, false},
		{"", false, false},
	} {
		assert.Check(t, cmp.Equal(run.Owns(c.s), c.run), "run 1, %q", c.s)
		assert.Check(t, cmp.Equal(question.Owns(c.s), c.question), "question 2 of run 1, %q", c.s)
	}
}

func TestRunOf_FindsTheRunInTheNameOfAnEntry(t *testing.T) {
	for name, want := range map[string]string{"7": "7", "cdb-task-7-q12": "7", "cdb-task-2-7-q1": "7", "cdb-task": "", "lock": ""} {
		run, ok := runOf(name)
		assert.Check(t, cmp.Equal(ok, want != ""), name)
		if ok {
			assert.Check(t, cmp.Equal(run, want), name)
		}
	}
}

func TestDiff_ReportsWhatAppearedAndWhatDisappeared(t *testing.T) {
	before := Inventory{"mount": {"/a (tmpfs)": "from tmpfs /", "/b (tmpfs)": "from tmpfs /"}}
	after := Inventory{"mount": {"/b (tmpfs)": "from tmpfs /", "/run/cdb-lab/1/q1/rootfs (overlay)": "from overlay /"}}
	changes := Diff(before, after)
	assert.DeepEqual(t, changes, []Change{
		{"mount", "/run/cdb-lab/1/q1/rootfs (overlay)", "from overlay /", false},
		{"mount", "/a (tmpfs)", "from tmpfs /", true},
	})
	assert.DeepEqual(t, OwnedBy(changes, before, NewOwner("1", "")), changes[:1])
	assert.Check(t, cmp.Len(OwnedBy(changes, before, NewOwner("2", "")), 0))
}

func TestOwnedBy_DefaultPlacesAndTheNullDevice(t *testing.T) {
	owner := NewOwner("1", "")
	unusedPlace := Inventory{}
	usedPlace := Inventory{"directory": {"/run/containerd": "d---------"}}
	socket := Change{"socket file", "/run/containerd/s/0123", "S---------", false}
	bundle := Change{"directory", "/run/containerd/io.containerd.runtime.v2.task/cdb-lab/cdb-task", "d---------", false}
	beside := Change{"directory", "/run/containerd/runc/cdb-lab-2-q3", "d---------", false}
	null := Change{"device", "/dev/null is no character device (mode 100644)", "", false}
	assert.Check(t, cmp.Len(OwnedBy([]Change{socket}, unusedPlace, owner), 1), "no program of the host uses the place")
	assert.Check(t, cmp.Len(OwnedBy([]Change{socket}, usedPlace, owner), 0), "the host's own containerd may have made it")
	assert.Check(t, cmp.Len(OwnedBy([]Change{bundle}, usedPlace, owner), 1), "the host's own containerd does not use an id of the lab")
	assert.Check(t, cmp.Len(OwnedBy([]Change{beside}, unusedPlace, owner), 0), "another run of the lab made it")
	assert.Check(t, cmp.Len(OwnedBy([]Change{beside}, unusedPlace, NewOwner("2", "q3")), 1))
	assert.Check(t, cmp.Len(OwnedBy([]Change{null}, unusedPlace, owner), 1))
}

func TestTakeInventory_NeedsNoRoot(t *testing.T) {
	inventory, err := TakeInventory()
	assert.NilError(t, err)
	assert.Check(t, len(inventory["mount"]) > 0)
	assert.Check(t, len(inventory["process"]) > 0)
	assert.Check(t, cmp.Len(Diff(inventory, inventory), 0))
}

func TestVirtual_RecognisesFlagAndFirmware(t *testing.T) {
	assert.Check(t, hypervisorFlag("processor\t: 0\nflags\t\t: fpu vme hypervisor lahf_lm\n"))
	assert.Check(t, hypervisorFlag("flags\t\t: fpu hypervisor\n"))
	assert.Check(t, !hypervisorFlag("processor\t: 0\nflags\t\t: fpu vme\n"))
	assert.Check(t, hypervisorFirmware("QEMU\n"))
	assert.Check(t, !hypervisorFirmware("Amazon EC2\n"), "its bare metal has the same vendor")
}

func TestTryLock_SucceedsAfterTheHolderHasClosedTheLock(t *testing.T) {
	dir := t.TempDir()
	held, err := tryLock(dir)
	assert.NilError(t, err)
	_, err = tryLock(dir)
	assert.ErrorIs(t, err, errLocked)
	assert.NilError(t, held.Close())
	again, err := tryLock(dir)
	assert.NilError(t, err)
	assert.NilError(t, again.Close())
}

func TestRemove_CountsEntriesThatAreNoDirectories(t *testing.T) {
	dir := t.TempDir() + "/d"
	assert.NilError(t, os.MkdirAll(dir+"/below", 0o755))
	assert.NilError(t, os.WriteFile(dir+"/below/f", nil, 0o644))
	files, err := Remove(dir)
	assert.NilError(t, err)
	assert.Equal(t, files, 1)
	_, err = os.Stat(dir)
	assert.ErrorIs(t, err, os.ErrNotExist)
}
