//go:build linux && vmlab && selftest

package selftest

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/host"
)

// CDB_KEEP=1 keeps the state, and the run prints how to look at it. The next run does not touch it. A sweep removes it.
func TestKept_StaysUntilItIsSwept(t *testing.T) {
	before := takeInventory(t)
	code, out := newLab("CDB_KEEP=1", "-test.v", "-test.run=Lifecycle_WhatIsTheDifference|Task_WhereDo").run(t)
	assert.Check(t, cmp.Equal(code, 0), "%s", out)
	assert.Check(t, cmp.Contains(out, "make sweep"))
	dirs := regexp.MustCompile(`cd (/run/cdb-lab/[0-9]+/q[0-9]+)\n`).FindAllStringSubmatch(out, -1)
	assert.Assert(t, len(dirs) > 0, "%s", out)
	_, err := os.Stat(dirs[0][1])
	assert.NilError(t, err)
	processes, err := host.Processes()
	assert.NilError(t, err)
	var alive []string
	for _, p := range processes {
		if strings.Contains(p.Cgroup, filepath.Dir(strings.TrimPrefix(dirs[0][1], "/run"))+"/") {
			alive = append(alive, p.Comm)
		}
	}
	assert.Check(t, cmp.Contains(alive, "sleep"), "no container was kept")

	code, out = newLab("-test.run=Lifecycle_WhatIsTheDifference").run(t)
	assert.Check(t, cmp.Equal(code, 0), "%s", out)
	_, err = os.Stat(dirs[0][1])
	assert.Check(t, err, "the next run removed the kept state")

	assert.Check(t, cmp.Contains(sweep(t), "swept /run/cdb-lab/"))
	assertHostUnchanged(t, before)
}

// CDB_KEEP=failed keeps nothing of a question that succeeds.
func TestKeepFailed_KeepsNoStateOfASuccess(t *testing.T) {
	before := takeInventory(t)
	code, out := newLab("CDB_KEEP=failed", "-test.run=Lifecycle_WhatIsTheDifference").run(t)
	assert.Check(t, cmp.Equal(code, 0), "%s", out)
	assertHostUnchanged(t, before)
}
