//go:build linux

package runc

import (
	"os"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/file"
)

// AssertNoStateOrCgroup asserts that the runtime has no state of any container below the root, and that the container's
// cgroup does not exist. A cgroup that does not exist holds no process (cgroups(7)).
//
// This takes a hundredth of the time of an inventory of the host, and does not see processes outside of the cgroup.
func (c *Container) AssertNoStateOrCgroup() {
	c.q.Helper()
	states, err := os.ReadDir(c.Root)
	assert.NilError(c.q, err)
	assert.Check(c.q, cmp.Len(states, 0), "state is left below %s", c.Root)
	for _, dir := range cgroup.Of(c.q, c.Bundle.Spec.Linux.CgroupsPath).Dirs() {
		assert.Check(c.q, !file.Exists(dir), "the cgroup is left: %s", dir)
	}
}
