//go:build linux && vmlab

package cdblab

import (
	"fmt"
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

// By default, the task is in a cgroup of its own, /<containerd namespace>/<container id>. The shim is where containerd is, unless the
// runtime option ShimCgroup says otherwise.
//
// The path is in config.json, written by the client that created the container, and runc makes the cgroup, in each hierarchy. The shim
// inherits the daemon's cgroup. So the shim's memory counts as containerd's, and a limit on containerd's service is one on all shims.
// No limit of the task applies to its shim, and where an OOM kills the task, the shim lives on.
//
// Hint: /proc/PID/cgroup of both; `ctr containers info` and linux.cgroupsPath.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#cgroups-path
// Kernel: https://man7.org/linux/man-pages/man7/cgroups.7.html, "/proc files"
func TestTask_WhichCgroupIsItInAndTheShim(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Which cgroup is it in, and the shim?")
	defer q.Recover()
	hs, err := cgroup.Hierarchies()
	assert.NilError(q, err)
	shimCgroup := q.Cgroup + "/shim"
	q.LogCommand("mkdir -p /sys/fs/cgroup/*%s", shimCgroup)
	cgroup.Of(q, shimCgroup).Make() // before the daemon, so that it is removed when no shim is left
	d := ctrd.Shared(q)
	id, apart := q.ID(ctrd.ContainerID), q.ID(ctrd.ContainerID+"-apart")
	ref := d.PullImage()

	q.Step("start a task: it is in a cgroup of its own, in each hierarchy")
	d.CreateContainer(ref, id, "sleep", "3600")
	task := d.StartTaskAndWait(id)
	own := "/" + d.Namespace + "/" + id
	assert.Check(q, cmp.Equal(d.Spec(id).Linux.CgroupsPath, own))
	check.OnlyProcessInCgroup(q, task.Identity, own)
	q.Fact("the task", own)
	q.Fact("hierarchies", len(hs))

	q.Step("look at the shim: it is where containerd is, and not where its task is")
	shim := proc.Snapshot(q, task.Parent)
	daemon := proc.Snapshot(q, d.PID())
	assert.Check(q, cmp.DeepEqual(shim.Cgroups, daemon.Cgroups), "the shim's cgroups, against containerd's")
	withDaemon := 0
	for name, path := range shim.Cgroups {
		assert.Check(q, path != own, "the shim is in its task's cgroup in hierarchy %s", name)
		if path == daemon.Cgroups[name] {
			withDaemon++
		}
	}
	q.Fact("hierarchies in which the shim is in containerd's cgroup", withDaemon)

	q.Control("start a task with the runtime option ShimCgroup: its shim is in that cgroup, and the task is in its own")
	d.CreateContainerByClient(ctrd.ClientOptions{ShimCgroup: shimCgroup}, ref, apart, "sleep", "3600")
	taskApart := d.StartTaskAndWait(apart)
	check.OnlyProcessInCgroup(q, taskApart.Identity, "/"+d.Namespace+"/"+apart)
	shimApart := proc.Snapshot(q, taskApart.Parent)
	assert.Check(q, shimApart.PID != shim.PID)
	recordShimCgroup(q, hs, shimCgroup, shimApart, daemon)

	q.Control("start a task with a ShimCgroup that does not exist: it is not made, and the task is refused")
	missing := q.ID(ctrd.ContainerID + "-missing")
	d.CreateContainerByClient(ctrd.ClientOptions{ShimCgroup: shimCgroup + "/missing"}, ref, missing, "sleep", "3600")
	refused := d.TryCtr("tasks", "start", "-d", "--fifo-dir", d.FifoDir, missing)
	assert.Check(q, refused.Code != 0, "the task was started without its ShimCgroup:\n%s", refused)
	assert.Check(q, cmp.Contains(refused.Stderr, "cgroup "+shimCgroup+"/missing"), "the error of tasks start")
	check.NoCgroup(q, shimCgroup+"/missing")
	q.Fact("error of tasks start", runc.LastLogMessage(refused))

	q.TearDown("delete the tasks: their cgroups go, and that of the containerd namespace stays; the question removes the shim's", func() {
		for _, name := range []string{id, apart} {
			d.KillAndDeleteTask(name)
			check.NoCgroup(q, "/"+d.Namespace+"/"+name)
		}
		proc.WaitFor(q, d.HasShims(0))
		var leftovers []string
		for _, h := range hs {
			if dir := h.Path("/" + d.Namespace); file.Exists(dir) {
				leftovers = append(leftovers, h.Name)
				below := cgroup.Subtree(h, "/"+d.Namespace)[1:] // the first is the cgroup itself
				assert.Check(q, cmp.Len(below, 0), "cgroups below the leftover in hierarchy %s", h.Name)
				assert.Check(q, cmp.Len(cgroup.ProcsIn(dir), 0), "processes in the leftover in hierarchy %s", h.Name)
			}
		}
		// A runtime may remove the parent of its cgroup as well, but then everywhere.
		assert.Check(q, len(leftovers) == 0 || len(leftovers) == len(hs), "hierarchies in which /%s is a leftover: %v", d.Namespace, leftovers)
		q.Fact("hierarchies in which /<namespace> is a leftover", len(leftovers))
	})

	q.Answer("By default, the task is in a cgroup of its own, /<containerd namespace>/<container id>. The shim is in containerd's " +
		"cgroup, so the task's limits do not apply to it.")
}

// recordShimCgroup asserts that a shim, with all of its threads, is alone in its ShimCgroup in some hierarchies, and in the others in
// containerd's cgroup.
func recordShimCgroup(q *lab.Q, hs []cgroup.Hierarchy, shimCgroup string, shim, daemon proc.Process) {
	var moved, stayed []string
	for _, h := range hs {
		key := h.Name
		if h.V2 {
			key = ""
		}
		if shim.Cgroups[key] != shimCgroup {
			assert.Check(q, cmp.Equal(shim.Cgroups[key], daemon.Cgroups[key]), "the shim's cgroup in hierarchy %s", h.Name)
			stayed = append(stayed, h.Name)
			continue
		}
		members := file.Read(q, filepath.Join(h.Path(shimCgroup), "cgroup.procs"))
		assert.Check(q, cmp.Equal(members, fmt.Sprint(shim.PID)), "members in hierarchy %s", h.Name)
		moved = append(moved, h.Name)
	}
	// The shim's library knows v2 alone or v1 alone, and of v1 the controllers of its day.
	group := cgroup.Of(q, shimCgroup)
	for _, controller := range []string{"cpu", "memory", "pids"} {
		if group.Has(controller) {
			members := file.Read(q, filepath.Join(group.Dir(controller), "cgroup.procs"))
			assert.Check(q, cmp.Equal(members, fmt.Sprint(shim.PID)), "members in the hierarchy of controller %s", controller)
		}
	}
	// A thread of a process can be in another cgroup of v1.
	threads := fmt.Sprintf("/proc/%d/task", shim.PID)
	ofProcess := proc.File(q, shim.PID, "cgroup")
	for _, thread := range file.Names(q, threads) {
		if cgroups, err := file.TryRead(filepath.Join(threads, thread, "cgroup")); err == nil { // else the thread has ended
			assert.Check(q, cmp.Equal(strings.TrimSpace(cgroups), strings.TrimSpace(ofProcess)), "cgroups of the shim's thread %s", thread)
		}
	}
	assert.Check(q, len(moved) > 0, "the shim is in %s in no hierarchy: %v", shimCgroup, shim.Cgroups)
	q.Fact("hierarchies in which the shim is in its ShimCgroup", len(moved))
	q.Fact("hierarchies in which it stayed with containerd", stayed)
}
