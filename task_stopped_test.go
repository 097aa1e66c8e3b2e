//go:build linux && vmlab

package cdblab

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/check"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// A stopped task holds everything except its process until it is deleted: shim, socket, mount, cgroup, bundle, FIFOs, runtime state,
// exit status and id.
//
// An exit status must wait somewhere until a client asks. It waits in the shim, which therefore does not end with the program. `tasks
// delete` frees all of it: the shim calls `runc delete` and ends, and containerd removes the bundle and forgets the task. What the program
// wrote is no part of the task: the snapshot belongs to the container, and a second task finds the files of the first. Only `containers
// delete` gives them up.
//
// Hint: what of ps, findmnt, /sys/fs/cgroup and the bundle's directory changes when the program ends, and what at delete?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/runtime.md#lifecycle
// Kernel: https://docs.kernel.org/filesystems/overlayfs.html#upper-and-lower
func TestTask_WhatDoesAStoppedTaskStillHold(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does a stopped task still hold, and what does delete free?")
	defer q.Recover()
	d := ctrd.Shared(q)
	id := q.ID(ctrd.ContainerID)
	ref := d.PullImage()

	q.Step("start a program that writes a file, and ends with 7 on TERM")
	d.CreateContainer(ref, id,
		"sh", "-c", "trap 'exit 7' TERM; echo mine >> /written; while :; do sleep 3600 & wait $!; done")
	d.StartTask(id)
	first := d.HoldingsOf(id)
	proc.WaitFor(q, file.HasContent(filepath.Join(first.Upper, "written"), "mine"))
	running := first.Held()
	assert.DeepEqual(q, running, ctrd.HeldWhileRunning)
	q.Fact("running task: holds", running)

	q.Step("send TERM: the program ends, and of all that the task holds only the process is gone")
	d.Ctr("tasks", "kill", id) // TERM
	proc.WaitFor(q, proc.Dead(first.Program.Identity))
	proc.WaitFor(q, d.TaskStopped(id))
	stopped := first.Held()
	assert.Check(q, cmp.DeepEqual(stopped, ctrd.HeldWhileRunning.Except("process")))
	assert.Check(q, cmp.Len(cgroup.Of(q, first.Cgroup).Procs(), 0), "processes in the cgroup of a stopped task")
	q.Fact("stopped task: holds", stopped)
	q.Fact("processes in its cgroup", len(cgroup.Of(q, first.Cgroup).Procs()))

	q.Step("start it again, and ask for the exit status: the id is taken, and the status is kept")
	d.Refused("already exists", "tasks", "start", "-d", "--fifo-dir", d.FifoDir, id)
	row := check.TableRow(q, d.Ctr("tasks", "ls").Stdout, id)
	assert.Check(q, cmp.DeepEqual(row, []string{id, fmt.Sprint(first.Program.PID), "STOPPED"}))
	for range 2 { // asking does not use it up
		assert.Check(q, cmp.Equal(d.TaskStatus(id).ExitStatus, uint32(7)))
	}
	q.Fact("exit status", d.TaskStatus(id).ExitStatus)
	if ctrd.SavesExit(q) { // the shim reports that the task has stopped, and saves that afterwards
		proc.WaitFor(q, file.DirHas(first.Bundle, ctrd.SavedExitFile))
	}
	saved, err := d.ReadSavedExit(id)
	isSaved := !errors.Is(err, fs.ErrNotExist)
	assert.Check(q, cmp.Equal(isSaved, ctrd.SavesExit(q)), "the shim has saved %s, and the files of the bundle are %v",
		ctrd.SavedExitFile, file.Names(q, first.Bundle))
	if isSaved {
		assert.NilError(q, err)
		assert.Check(q, cmp.Equal(saved.Status, 7), "status in %s", ctrd.SavedExitFile)
		assert.Check(q, cmp.Equal(saved.PID, first.Program.PID), "pid in %s", ctrd.SavedExitFile)
	}
	q.Fact("exit.json in the bundle", isSaved)

	q.Step("delete the task: all of it goes, and the snapshot stays, because it is the container's")
	d.DeleteTask(id)
	proc.WaitFor(q, proc.Dead(first.Shim.Identity))
	deleted := first.Held()
	assert.Check(q, cmp.DeepEqual(deleted, ctrd.Held{"container", "snapshot", "what it wrote"}))
	q.Fact("after tasks delete", deleted)

	q.Step("start a second task: the id is free, and the program finds what the first has written")
	d.StartTask(id)
	second := d.HoldingsOf(id)
	assert.Check(q, cmp.Equal(second.Upper, first.Upper), "the upper directory of the second task")
	assert.Check(q, !second.Shim.Same(first.Shim.Identity), "the second task has the shim of the first")
	proc.WaitFor(q, file.HasContent(filepath.Join(second.Upper, "written"), "mine\nmine"))
	q.Fact("second task: content of /written", file.Read(q, filepath.Join(second.Upper, "written")))

	q.Step("run an exec in the background, and delete the task: the FIFOs of the exec stay, because no process removes them")
	before := file.Names(q, d.FifoDir)
	d.ExecDetached(id, "aside", "true")
	ofExec := slices.DeleteFunc(file.Names(q, d.FifoDir), func(dir string) bool { return slices.Contains(before, dir) })
	recordLeftovers(q, d, id, second, ofExec)

	q.Control("delete the container: record and snapshot go, and the files go with the next garbage collection")
	d.Ctr("containers", "delete", id)
	d.CollectGarbage()
	rest := first.Held()
	assert.Check(q, cmp.Len(rest, 0), "after containers delete")
	q.Fact("after containers delete", rest)
	d.CreateContainer(ref, id, "true")
	fresh := q.Mkdir("fresh")
	d.InSubtest(q).MountSnapshot(id, fresh)
	assert.Check(q, file.Exists(filepath.Join(fresh, "bin")), "the image's files are not in a new snapshot of it")
	assert.Check(q, !file.Exists(filepath.Join(fresh, "written")), "a new container of the same image has what the old one wrote")
	q.Fact("what it wrote, in a new container", file.Exists(filepath.Join(fresh, "written")))

	q.Answer("A stopped task holds all that it held before, except its process: shim, mount, cgroup, bundle, exit status and id. " +
		"`tasks delete` frees them, and `containers delete` frees the files that the program wrote.")
}

// recordLeftovers kills and deletes a task as an operator does, and records what remains of it nevertheless. These leftovers
// are empty and harmless, and neither containerd nor runc removes them; the lab does. ofExec are directories of FIFOs.
func recordLeftovers(q *lab.Q, d *ctrd.Daemon, id string, task ctrd.Holdings, ofExec []string) {
	q.Helper()
	d.KillAndDeleteTask(id)
	leftovers := ctrd.Held{}
	for _, place := range []struct{ name, path string }{
		{"runtime's directory of the namespace", filepath.Join(d.RuncRoot, d.Namespace)},
		{"bundles' directory of the namespace", filepath.Dir(task.Bundle)},
		{"cgroup of the namespace", filepath.Dir(cgroup.Of(q, task.Cgroup).Dirs()[0])},
	} {
		if file.Exists(place.path) {
			leftovers = append(leftovers, place.name)
		}
	}
	for _, dir := range ofExec {
		if file.Exists(filepath.Join(d.FifoDir, dir)) {
			leftovers = append(leftovers, "FIFOs of the exec")
		}
	}
	assert.Check(q, cmp.Len(leftovers, 4), "leftovers of a task that was deleted: %v", leftovers)
	q.Fact("after tasks delete: leftovers", leftovers)
}
