//go:build linux && vmlab

package cdblab

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/core/snapshots"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/check"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// All but its process: shim, socket, mount, cgroup, bundle, FIFOs, runtime state, exit status and id, until it is deleted.
//
// An exit status must wait somewhere until somebody asks, and that place is the shim: it goes on living for the sake of a
// number. `tasks delete` frees all of it, in the shim's and the runtime's words and in the daemon's. What the program wrote
// is no part of the task: the snapshot belongs to the container, a second task finds the files of the first, and only
// `containers delete` gives them up.
//
// Hint: what of ps, findmnt, /sys/fs/cgroup and the bundle's directory changes when the program ends, and what at delete?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/runtime.md#lifecycle
// Kernel: https://docs.kernel.org/filesystems/overlayfs.html#upper-and-lower
func TestTask_WhatDoesAStoppedTaskStillHold(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does a stopped task still hold, and what does delete free?")
	d := ctrd.Shared(q)
	id := q.ID(ctrd.ContainerID)
	ref := d.PullImage()

	q.Step("a program that writes a file, and ends with 7 when it is told to")
	d.CreateContainer(ref, id,
		"sh", "-c", "trap 'exit 7' TERM; echo mine >> /written; while :; do sleep 300 & wait $!; done")
	d.StartTask(id)
	first := holdOf(q, d, id)
	proc.WaitFor(q, file.HasContent(filepath.Join(first.upper, "written"), "mine"))
	whole := first.held(q)
	assert.DeepEqual(q, whole, allHeld)
	q.Fact("a running one holds", enumerated(whole))

	q.Step("it ends: of all that, only the process is gone")
	d.Ctr("tasks", "kill", id) // TERM
	proc.WaitFor(q, proc.Dead(first.program.Identity))
	proc.WaitFor(q, d.TaskStopped(id))
	stopped := first.held(q)
	assert.Check(q, cmp.DeepEqual(stopped, allBut(allHeld, "process")))
	assert.Check(q, cmp.Len(cgroup.Of(q, first.cgroup).Procs(), 0), "processes in the cgroup of a stopped task")
	q.Fact("a stopped one holds", enumerated(stopped))
	q.Fact("processes in its cgroup", 0)

	q.Step("its id is taken, and its exit status waits")
	again := d.TryCtr("tasks", "start", "-d", "--fifo-dir", d.FifoDir, id)
	assert.Check(q, again.Code != 0 && strings.Contains(again.Stderr, "already exists"), "a second task while the first is not deleted:\n%s", again)
	assert.Check(q, cmp.DeepEqual(check.TableRow(q, d.Ctr("tasks", "ls").Stdout, id), []string{id, fmt.Sprint(first.program.PID), "STOPPED"}))
	for range 2 { // asking does not use it up
		assert.Check(q, cmp.Equal(d.TaskStatus(id).ExitStatus, uint32(7)))
	}
	q.Fact("exit status", d.TaskStatus(id).ExitStatus)
	path := filepath.Join(first.bundle, "exit.json") // of containerd 2
	if file.Exists(path) {
		var saved struct{ Pid, Status int }
		assert.NilError(q, json.Unmarshal([]byte(file.Read(q, path)), &saved))
		assert.Check(q, cmp.Equal(saved.Status, 7), "in exit.json")
		assert.Check(q, cmp.Equal(proc.PID(saved.Pid), first.program.PID), "in exit.json")
	}
	assert.Check(q, file.Exists(path) || !q.Pinned(), "the bundle has no exit.json: %v", file.Names(q, first.bundle))
	q.Fact("exit.json in the bundle", file.Exists(path))

	q.Step("tasks delete: all of the task goes; the snapshot is the container's")
	d.DeleteTask(id)
	proc.WaitFor(q, proc.Dead(first.shim.Identity))
	deleted := first.held(q)
	assert.Check(q, cmp.DeepEqual(deleted, []string{"container", "snapshot", "what it wrote"}))
	q.Fact("after tasks delete", enumerated(deleted))

	q.Step("the id is free: a second task, and it finds what the first has written")
	d.StartTask(id)
	second := holdOf(q, d, id)
	assert.Check(q, cmp.Equal(second.upper, first.upper), "the upper directory of the second task")
	assert.Check(q, !second.shim.Same(first.shim.Identity))
	proc.WaitFor(q, file.HasContent(filepath.Join(second.upper, "written"), "mine\nmine"))
	q.Fact("its file reads", file.Read(q, filepath.Join(second.upper, "written")))

	q.Step("what an exec in the background leaves: its FIFOs, which nobody closes")
	before := file.Names(q, d.FifoDir)
	d.Ctr("tasks", "exec", "-d", "--fifo-dir", d.FifoDir, "--exec-id", "aside", id, "true")
	ofExec := slices.DeleteFunc(file.Names(q, d.FifoDir), func(dir string) bool { return slices.Contains(before, dir) })
	residue(q, second, ofExec)

	q.Control("containers delete: record and snapshot go, and the files with the next garbage collection")
	d.Ctr("containers", "delete", id)
	d.CollectGarbage()
	gone := first.held(q)
	assert.Check(q, cmp.Len(gone, 0), "after containers delete")
	q.Fact("after containers delete", enumerated(gone))
	d.CreateContainer(ref, id, "true")
	fresh := q.Mkdir("fresh")
	d.MountSnapshot(id, fresh)
	assert.Check(q, file.Exists(filepath.Join(fresh, "bin")), "the image's files are not in a new snapshot of it")
	assert.Check(q, !file.Exists(filepath.Join(fresh, "written")), "a new container of the same image has what the old one wrote")
	q.Fact("what it wrote, in a new container", file.Exists(filepath.Join(fresh, "written")))

	q.Answer("All but the process: shim, mount, cgroup, bundle, exit status, id. tasks delete frees them, containers delete the files.")
}

// residue ends and deletes a task as it should be done, and records what stays of it all the same: empty, harmless, and
// nobody's. The lab removes it.
func residue(q *lab.Q, h hold, ofExec []string) {
	d := h.d
	d.Ctr("tasks", "kill", "-s", "SIGKILL", h.id)
	proc.WaitFor(q, d.TaskStopped(h.id))
	d.DeleteTask(h.id)
	stays := []string{}
	for _, r := range []struct{ what, path string }{
		{"runtime's directory of the namespace", filepath.Join(d.RuncRoot, d.Namespace)},
		{"bundles' directory of the namespace", filepath.Dir(h.bundle)},
		{"cgroup of the namespace", filepath.Dir(cgroup.Of(q, h.cgroup).Dirs()[0])},
	} {
		if file.Exists(r.path) {
			stays = append(stays, r.what)
		}
	}
	for _, dir := range ofExec {
		if file.Exists(filepath.Join(d.FifoDir, dir)) {
			stays = append(stays, "FIFOs of the exec")
		}
	}
	if q.Pinned() {
		assert.Check(q, cmp.Len(stays, 4), "what stays of a task that was deleted: %v", stays)
	}
	q.Fact("what stays of it all the same", enumerated(stays))
}

// hold is a task with the places that it holds.
type hold struct {
	d             *ctrd.Daemon
	id            string
	program, shim proc.Process
	bundle        string
	socket        string
	cgroup        string
	upper         string // what its program writes, on the host
}

// allHeld is what a running h holds, and below the process nothing that ends with it.
var allHeld = []string{
	"process", "shim", "socket", "bundle", "rootfs mount", "cgroup", "FIFOs", "runtime state", "task",
	"container", "snapshot", "what it wrote",
}

// holdOf looks where a running task is.
func holdOf(q *lab.Q, d *ctrd.Daemon, id string) hold {
	q.Helper()
	program := proc.Snapshot(q, d.TaskPID(id))
	h := hold{
		d: d, id: id, program: program, shim: proc.Snapshot(q, program.Parent),
		bundle: d.Bundle(id), socket: d.ShimSocket(id), cgroup: "/" + d.Namespace + "/" + id,
	}
	rootfs := check.MountAt(q, filepath.Join(h.bundle, "rootfs"))
	assert.Assert(q, rootfs != nil, "nothing is mounted at %s/rootfs", h.bundle)
	for option := range strings.SplitSeq(rootfs.VFSOptions, ",") {
		if dir, ok := strings.CutPrefix(option, "upperdir="); ok {
			h.upper = dir
		}
	}
	assert.Assert(q, h.upper != "", "the rootfs has no upper directory: %s %s", rootfs.FSType, rootfs.VFSOptions)
	return h
}

// held lists what of the task is there, by what the kernel and the disk show; of record, snapshot and task containerd is
// asked.
func (h hold) held(q *lab.Q) []string {
	q.Helper()
	ctx := context.Background()
	fifos, err := filepath.Glob(filepath.Join(h.d.FifoDir, "*", h.id+"-std*"))
	assert.NilError(q, err)
	_, noRecord := h.d.Client().ContainerService().Get(ctx, h.id)
	snapshot := false
	assert.NilError(q, h.d.Client().SnapshotService("").Walk(ctx, func(_ context.Context, i snapshots.Info) error {
		snapshot = snapshot || i.Name == h.id
		return nil
	}))
	tasks, err := h.d.Client().TaskService().List(ctx, &tasksapi.ListTasksRequest{})
	assert.NilError(q, err)
	is := map[string]bool{
		"process": alive(h.program.Identity), "shim": alive(h.shim.Identity), "socket": file.Exists(h.socket), "bundle": file.Exists(h.bundle),
		"rootfs mount": check.MountAt(q, filepath.Join(h.bundle, "rootfs")) != nil,
		"cgroup":       slices.ContainsFunc(cgroup.Of(q, h.cgroup).Dirs(), file.Exists),
		"FIFOs":        len(fifos) > 0, "runtime state": file.Exists(filepath.Join(h.d.RuncRoot, h.d.Namespace, h.id, "state.json")),
		"task":      slices.ContainsFunc(tasks.Tasks, func(t *task.Process) bool { return t.ID == h.id }),
		"container": noRecord == nil, "snapshot": snapshot, "what it wrote": file.Exists(filepath.Join(h.upper, "written")),
	}
	out := []string{}
	for _, what := range allHeld {
		if is[what] {
			out = append(out, what)
		}
	}
	return out
}

func allBut(all []string, what string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return s == what })
}

// enumerated writes names that have spaces on one line.
func enumerated(names []string) string {
	if len(names) == 0 {
		return "nothing"
	}
	return strings.Join(names, ", ")
}
