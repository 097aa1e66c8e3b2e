//go:build linux

package runc

import (
	"os"
	"path/filepath"

	"gotest.tools/v3/assert"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/file"
	"cdblab/helpers/host"
	"cdblab/helpers/proc"
)

// AssertNoStateOrCgroup asserts that the runtime has no state of any container below the root, and that the container's
// cgroup does not exist. A cgroup that does not exist holds no process (cgroups(7)).
//
// It removes what it finds. Otherwise each later container of the same id would fail for the leftover of this one.
//
// This takes a hundredth of the time of an inventory of the host, and does not see processes outside of the cgroup.
func (c *Container) AssertNoStateOrCgroup() {
	c.q.Helper()
	states, err := os.ReadDir(c.Root)
	assert.NilError(c.q, err)
	for _, state := range states {
		path := filepath.Join(c.Root, state.Name())
		c.q.Errorf("the runtime left the state %s. The lab removes it, and goes on", path)
		_, err := host.Remove(path) // a runtime that is broken may have left a mount there
		assert.Check(c.q, err)
	}
	for _, dir := range cgroup.Of(c.q, c.Bundle.Spec.Linux.CgroupsPath).Dirs() {
		if file.Exists(dir) {
			c.q.Errorf("the runtime left the cgroup %s, with the processes %v. The lab removes it, and goes on", dir, cgroup.ProcsIn(dir))
			c.removeCgroup(dir)
		}
	}
}

// removeCgroup kills the processes of one of the container's cgroups, and removes it.
func (c *Container) removeCgroup(dir string) {
	c.q.Helper()
	for _, pid := range cgroup.ProcsIn(dir) {
		c.q.KillProcess(proc.Snapshot(c.q, pid))
	}
	proc.WaitFor(c.q, cgroup.Removed(dir))
}
