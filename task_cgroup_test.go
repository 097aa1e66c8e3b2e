//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/check"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// The task is in /<containerd namespace>/<container id>, which is its own; the shim is where containerd is, unless the
// runtime option ShimCgroup says otherwise.
//
// The path is in config.json, written by whoever created the container, and runc makes the cgroup, in each hierarchy. The
// shim inherits the daemon's: its memory counts as containerd's, and a limit on containerd's service is one on all shims.
// No limit of the task's is one on its shim, and the task's death of an OOM is not the shim's.
//
// Hint: /proc/PID/cgroup of both; `ctr containers info` and linux.cgroupsPath.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#cgroups-path
// Kernel: https://man7.org/linux/man-pages/man7/cgroups.7.html, "/proc files"
func TestTask_WhichCgroupIsItInAndTheShim(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Which cgroup is it in, and the shim?")
	hs, err := cgroup.Hierarchies()
	assert.NilError(q, err)
	room := q.Cgroup + "/shim"
	makeCgroup(q, hs, room) // before the daemon, so that it is removed when no shim is left
	d := ctrd.Shared(q)
	id, apart := q.ID(ctrd.ContainerID), q.ID(ctrd.ContainerID+"-apart")
	ref := d.PullImage()

	q.Step("the task: in a cgroup of its own, in each hierarchy")
	d.CreateContainer(ref, id, "sleep", "300")
	task := d.StartTaskAndWait(id)
	own := "/" + d.Namespace + "/" + id
	assert.Check(q, cmp.Equal(d.Spec(id).Linux.CgroupsPath, own))
	check.OnlyProcessInCgroup(q, task.Identity, own)
	q.Fact("the task", own)
	q.Fact("hierarchies", len(hs))

	q.Step("the shim: where containerd is, and not where its task is")
	shim := proc.Snapshot(q, task.Parent)
	daemon := proc.Snapshot(q, d.PID())
	assert.Check(q, cmp.DeepEqual(shim.Cgroups, daemon.Cgroups), "the shim's cgroups, against containerd's")
	for name, path := range shim.Cgroups {
		assert.Check(q, path != own, "the shim is in its task's cgroup in hierarchy %s", name)
	}
	q.Fact("the shim", "containerd's cgroup")

	q.Control("with the runtime option ShimCgroup, the shim is in that one, and the task is where it would be")
	d.CreateContainerByClient(ctrd.ClientOptions{ShimCgroup: room}, ref, apart, "sleep", "300")
	other := d.StartTaskAndWait(apart)
	check.OnlyProcessInCgroup(q, other.Identity, "/"+d.Namespace+"/"+apart)
	moved := proc.Snapshot(q, other.Parent)
	assert.Check(q, moved.PID != shim.PID)
	var in, stayed []string
	for _, h := range hs {
		key := h.Name
		if h.V2 {
			key = ""
		}
		if moved.Cgroups[key] != room {
			assert.Check(q, cmp.Equal(moved.Cgroups[key], daemon.Cgroups[key]), "the shim's cgroup in hierarchy %s", h.Name)
			stayed = append(stayed, h.Name)
			continue
		}
		assert.Check(q, cmp.Equal(file.Read(q, filepath.Join(h.Path(room), "cgroup.procs")), fmt.Sprint(moved.PID)), "members in hierarchy %s", h.Name)
		in = append(in, h.Name)
	}
	// The shim's library knows v2 alone or v1 alone, and of v1 the controllers of its day.
	must := cgroup.Of(q, room)
	for _, controller := range []string{"cpu", "memory", "pids"} {
		if must.Has(controller) {
			where := file.Read(q, filepath.Join(must.Dir(controller), "cgroup.procs"))
			assert.Check(q, cmp.Equal(where, fmt.Sprint(moved.PID)), "members where %s is controlled", controller)
		}
	}
	assert.Check(q, len(in) > 0, "the shim is nowhere in %s: %v", room, moved.Cgroups)
	q.Fact("hierarchies in which it is there", len(in))
	q.Fact("in which it stayed with containerd", stayed)

	q.Control("a ShimCgroup that does not exist is not made: no task")
	missing := q.ID(ctrd.ContainerID + "-missing")
	d.CreateContainerByClient(ctrd.ClientOptions{ShimCgroup: room + "/missing"}, ref, missing, "sleep", "300")
	refused := d.TryCtr("tasks", "start", "-d", "--fifo-dir", d.FifoDir, missing)
	assert.Check(q, refused.Code != 0, "a task in spite of it:\n%s", refused)
	check.NoCgroup(q, room+"/missing")
	q.Fact("tasks start says", runc.LastLogMessage(refused))

	q.TearDown("delete: the task's cgroup goes, that of the containerd namespace stays, and who made the shim's removes it", func() {
		for _, name := range []string{id, apart} {
			d.KillAndDeleteTask(name)
			check.NoCgroup(q, "/"+d.Namespace+"/"+name)
		}
		proc.WaitFor(q, d.HasShims(0))
		var left []string
		for _, h := range hs {
			if file.Exists(h.Path("/" + d.Namespace)) {
				left = append(left, h.Name)
			}
		}
		if q.Pinned() {
			assert.Check(q, cmp.Len(left, len(hs)), "hierarchies in which /%s was left", d.Namespace)
		}
		q.Fact("left of /<namespace>, in hierarchies", len(left))
	})

	q.Answer("The task in /<namespace>/<id>, its own. The shim in containerd's, so that no limit of the task's is its.")
}

// makeCgroup makes a cgroup in each hierarchy, in which processes can be, until the question ends.
func makeCgroup(q *lab.Q, hs []cgroup.Hierarchy, path string) {
	q.Helper()
	q.LogCommand("mkdir -p /sys/fs/cgroup/*%s", path)
	for _, h := range hs {
		dir := h.Mountpoint
		for part := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
			above := dir
			dir = filepath.Join(dir, part)
			assert.NilError(q, os.MkdirAll(dir, 0o755))
			if h.V2 {
				continue
			}
			// On v1 a cpuset begins empty, and takes no process.
			for _, path := range []string{"cpuset.cpus", "cpuset.mems"} {
				if file.Exists(filepath.Join(dir, path)) && file.Read(q, filepath.Join(dir, path)) == "" {
					assert.NilError(q, os.WriteFile(filepath.Join(dir, path), []byte(file.Read(q, filepath.Join(above, path))), 0o644))
				}
			}
		}
	}
	q.Cleanup(func() {
		for _, h := range hs {
			proc.WaitFor(q, cgroup.Removed(h.Path(path)))
		}
	})
}
