//go:build linux && vmlab

package cdblab

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/host"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// assertInCgroup asserts, in every hierarchy, that the process is the only one of the cgroup, by both what the process
// and what the cgroup says.
func assertInCgroup(q *lab.Q, id proc.Identity, path string) {
	q.Helper()
	hs, err := cgroup.Hierarchies()
	assert.NilError(q, err)
	for _, h := range hs {
		key := h.Name
		if h.V2 {
			key = ""
		}
		assert.Check(q, cmp.Equal(id.Cgroups[key], path), "/proc/%d/cgroup, hierarchy %s", id.PID, h.Name)
		procs, err := os.ReadFile(filepath.Join(h.Path(path), "cgroup.procs"))
		assert.NilError(q, err)
		assert.Check(q, cmp.Equal(strings.TrimSpace(string(procs)), strconv.Itoa(int(id.PID))), "members in hierarchy %s", h.Name)
	}
}

// assertNoCgroup asserts that no hierarchy has the cgroup.
func assertNoCgroup(q *lab.Q, path string) {
	q.Helper()
	hs, err := cgroup.Hierarchies()
	assert.NilError(q, err)
	for _, h := range hs {
		_, err := os.Stat(h.Path(path))
		assert.Check(q, os.IsNotExist(err), "cgroup %s is still there in hierarchy %s: %v", path, h.Name, err)
	}
}

// sharesMounts says whether the process still sees a mount of the host's, by where the lab lives on the host.
func sharesMounts(p proc.Process) bool {
	return slices.ContainsFunc(p.Mounts, func(m string) bool { return strings.HasPrefix(m, host.Dir) })
}

// opensFile returns the file that the process is about to open. runc's stand-in opens its own descriptor once more, as
// /proc/self/fd/N or as N below a descriptor of that directory, and what descriptor N refers to is the file.
func opensFile(p proc.Process, path string) string {
	fd, err := strconv.Atoi(filepath.Base(path))
	if err != nil {
		return path
	}
	return p.FDs[fd]
}

// mountAt returns the mount whose mount point is path, as /proc/self/mountinfo has it; nil where there is none.
func mountAt(q *lab.Q, path string) *mountinfo.Info {
	q.Helper()
	ms, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(path))
	assert.NilError(q, err)
	if len(ms) == 0 {
		return nil
	}
	return ms[0]
}

// cgroupVersion is the version of the hierarchy that has the controllers: v1 (also in hybrid mode) or v2.
func cgroupVersion(q *lab.Q) string {
	q.Helper()
	hs, err := cgroup.Hierarchies()
	assert.NilError(q, err)
	if cgroup.ModeOf(hs) == cgroup.ModeV2 {
		return "v2"
	}
	return "v1"
}
