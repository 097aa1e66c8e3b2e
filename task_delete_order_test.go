//go:build linux && vmlab

package cdblab

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/ctrd"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// Delete the task first, then the container with its snapshot, then the image. Garbage collection then removes the image's snapshots and
// blobs. The namespace comes last.
//
// A delete that would take away what a running program needs is refused, and changes nothing. But not all guards stand in the same place.
// A snapshot with a child and a namespace with contents are guarded by the daemon. A task that runs is guarded by ctr and the Go client,
// which look first, and by its shim. The record of its container is guarded only by the client: the daemon's own call deletes it. The task
// then runs on. `ctr tasks ls` still lists it, but no call can end it, because Kill and Delete find a task by its container. An image is
// not guarded at all, because a container does not need it: its record holds the snapshot, and the snapshot holds its parents.
//
// A task that its start would restore from a checkpoint has no process before. It can be deleted, with --force as well as without: there is
// nothing to kill, and no end of a process to wait for.
//
// Hint: which of ctr's refusals does containerd's log know of?
// Spec: https://github.com/containerd/containerd/blob/main/docs/garbage-collection.md#synchronous-garbage-collection
func TestTask_WhatCanBeDeletedInWhichOrder(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What can be deleted in which order?")
	defer q.Recover()
	d := ctrd.Start(q, ctrd.WithConfig(ctrd.GarbageOnDemand))
	ctx := context.Background()
	id := q.ID(ctrd.ContainerID)
	ref := d.PullImage()
	layers := d.LayerDigests(ref)
	assert.Assert(q, len(layers) > 0, "%s has no layer", ref)
	layer := layers[0].String()
	d.CreateContainer(ref, id, "sleep", "3600")
	d.StartTask(id)
	task := d.HoldingsOf(id)
	proc.WaitFor(q, proc.Runs(task.Program.PID, "sleep"))
	record, err := d.Client().ContainerService().Get(ctx, id)
	assert.NilError(q, err)
	snapshot, err := d.Client().SnapshotService("").Stat(ctx, id)
	assert.NilError(q, err)

	q.Step("delete what something else needs: each command is refused, and has no effect")
	held, contents := task.Held(), d.CountContents()
	q.Fact("namespace: contents", contents)
	for _, r := range neededThings(d, id, snapshot.Parent) {
		refused := d.Refused(r.words, r.argv...)
		assert.Check(q, cmp.DeepEqual(task.Held(), held), "after %s was not deleted", r.what)
		assert.Check(q, cmp.DeepEqual(d.CountContents(), contents), "after %s was not deleted", r.what)
		q.Fact(r.what, ctrd.CtrError(refused))
	}

	q.Step("call the daemon past the client's guard: it asks the shim, and the shim refuses to delete a task that runs")
	q.LogCommand("# tasks.Delete of the Go client's TaskService, id %s", id)
	_, err = d.Client().TaskService().Delete(ctx, &tasksapi.DeleteTaskRequest{ContainerID: id})
	assert.Check(q, cmp.ErrorContains(err, "cannot delete a running process"), "the raw call for a task that runs")
	assert.Check(q, cmp.DeepEqual(task.Held(), held), "after the raw delete of a task that runs")
	q.Fact("the raw call for a task that runs", runc.StableMessage(fmt.Sprint(err)))

	q.Step("delete a blob and the image: this is not refused, because the running container does not need them any more")
	d.Ctr("content", "rm", layer)
	d.Ctr("images", "rm", ref)
	untagged := d.CountContents()
	assert.Check(q, cmp.Equal(untagged["images"], 0))
	assert.Check(q, cmp.Equal(untagged["blobs"], contents["blobs"]-1), "blobs go with the garbage, not with the image's name")
	q.Fact("without the image's name, and the one blob", untagged)
	d.CollectGarbage()
	after := d.CountContents()
	assert.Check(q, cmp.Equal(after["images"]+after["blobs"], 0), "left of image and blobs: %v", after)
	assert.Check(q, cmp.Equal(after["snapshots"], contents["snapshots"]), "the container's record holds them")
	assert.Check(q, cmp.DeepEqual(task.Held(), ctrd.HeldWhileRunning.Except("what it wrote")))
	still := d.Ctr("tasks", "exec", "--fifo-dir", d.FifoDir, "--exec-id", "still", id, "echo", "still here")
	assert.Check(q, cmp.Equal(strings.TrimSpace(still.Stdout), "still here"), "a program out of the image's layers")
	none := d.Refused("not found", "containers", "create", ref, q.ID("cdb-other"), "true")
	q.Fact("garbage is collected", after)
	q.Fact("a new container", ctrd.CtrError(none))

	q.Step("call the daemon past the client's guard once more: it deletes the record of a running container, and nothing else")
	q.LogCommand("# containers.Delete of the Go client's ContainerService, id %s", id)
	assert.NilError(q, d.Client().ContainerService().Delete(ctx, id))
	restore := func() error {
		record.CreatedAt, record.UpdatedAt = time.Time{}, time.Time{}
		_, err := d.Client().ContainerService().Create(ctx, record)
		return err
	}
	q.Cleanup(func() {
		if err := restore(); err != nil && !errdefs.IsAlreadyExists(err) {
			q.Errorf("write the record of the container again, so that its task can be deleted: %v", err)
		}
	})
	assert.Check(q, cmp.DeepEqual(task.Held(), ctrd.HeldWhileRunning.Except("what it wrote", "container")))
	q.Fact("after the raw delete of the record: task holds", task.Held())
	lost := d.Refused("not found", "tasks", "kill", "-s", "SIGKILL", id)
	assert.Check(q, task.Program.Alive(), "the program of a task whose container was deleted is dead")
	q.Fact("tasks kill", ctrd.CtrError(lost))

	q.Step("write the record again: now the task can be ended and deleted")
	assert.NilError(q, restore())
	d.Ctr("tasks", "kill", "-s", "SIGKILL", id)
	proc.WaitFor(q, proc.Dead(task.Program.Identity))
	proc.WaitFor(q, d.TaskStopped(id))
	d.Ctr("containers", "delete", id)
	proc.WaitFor(q, proc.Dead(task.Shim.Identity))
	assert.Check(q, cmp.Len(task.Held(), 0), "after containers delete, which deletes a stopped task on the way")
	q.Fact("after containers delete it holds", task.Held())

	q.Step("remove the namespace: it is refused until the garbage is collected, because what has no owner is still in it")
	refused := d.Refused("snapshots", "namespaces", "remove", d.Namespace)
	q.Fact("namespaces remove", ctrd.CtrError(refused))
	d.CollectGarbage()
	d.Ctr("namespaces", "remove", d.Namespace)
	assert.Check(q, !slices.Contains(strings.Fields(d.Ctr("namespaces", "ls", "-q").Stdout), d.Namespace))

	q.Control("make all of it once more and delete it in the right order: nothing is refused")
	deleteInOrder(q, d, ref, id)

	q.Run("without-a-process", func(q *lab.Q) { deleteWithoutProcess(q, d.InSubtest(q), ref) })

	q.Answer("The task is deleted first, then the container, the image, the garbage and the containerd namespace. Only the client guards " +
		"the record of a running container, and nothing guards an image.")
}

// neededThing is something that cannot be deleted now, because something else needs it.
type neededThing struct {
	what  string
	argv  []string // of ctr: the command that would delete it
	words string   // of the refusal
}

// neededThings returns one thing of each kind, from the task to the namespace.
func neededThings(d *ctrd.Daemon, id, parent string) []neededThing {
	return []neededThing{
		{"a task that runs", []string{"tasks", "delete", id}, "must be stopped before deletion"},
		{"a container whose task runs", []string{"containers", "delete", id}, "cannot delete a non stopped container"},
		{"a snapshot with a child", []string{"snapshots", "rm", parent}, "cannot remove snapshot with child"},
		{"a namespace with contents", []string{"namespaces", "remove", d.Namespace}, "must be empty"},
	}
}

// deleteInOrder makes and deletes what a namespace can have, by the chapter's commands; each has to succeed.
func deleteInOrder(q *lab.Q, d *ctrd.Daemon, ref, id string) {
	d.PullImageAgain(ref)
	d.CreateContainer(ref, id, "sleep", "3600")
	d.StartTask(id)
	task := d.HoldingsOf(id)
	counts := []map[string]int{d.CountContents()}
	d.KillAndDeleteTask(id)
	counts = append(counts, d.CountContents()) // a task is none of them
	d.Ctr("containers", "delete", id)
	counts = append(counts, d.CountContents())
	d.Ctr("images", "rm", "--sync", ref) // with the garbage
	counts = append(counts, d.CountContents())
	d.Ctr("namespaces", "remove", d.Namespace)
	proc.WaitFor(q, proc.Dead(task.Shim.Identity))
	assert.Check(q, cmp.Len(task.Held(), 0))
	assert.Check(q, cmp.DeepEqual(counts[0], counts[1]), "a task's delete took something of the container or the image")
	assert.Check(q, cmp.Equal(counts[2]["containers"], 0))
	assert.Check(q, cmp.Equal(counts[2]["snapshots"], counts[1]["snapshots"]-1), "a container's delete takes its snapshot")
	assert.Check(q, cmp.DeepEqual(counts[3], map[string]int{"containers": 0, "images": 0, "blobs": 0, "snapshots": 0}))
	for i, what := range []string{"with a task", "after tasks delete", "after containers delete", "after images rm --sync"} {
		q.Fact(what, counts[i])
	}
}

// deleteWithoutProcess deletes tasks that have no process: they would be restored from a checkpoint when they start. There is no process to
// kill, and none whose end a client could wait for.
func deleteWithoutProcess(q *lab.Q, d *ctrd.Daemon, ref string) {
	d.PullImageAgain(ref)
	for _, row := range []struct {
		name  string
		flags []string
	}{{"plain", nil}, {"forced", []string{"--force"}}} {
		argv := append([]string{"tasks", "delete"}, row.flags...)
		q.Step("create a task that its start would restore from a checkpoint: it has a shim and no process. ctr %s deletes it",
			strings.Join(argv, " "))
		id := q.ID("cdb-" + row.name)
		d.CreateContainer(ref, id, "sleep", "3600")
		task := d.CreateTaskToRestore(id, "")
		shims := d.Shims()
		assert.Assert(q, cmp.Len(shims, 1), "shims of the task")
		children := proc.Children(q, shims[0])
		status := d.TaskStatus(id).Status
		assert.Check(q, cmp.DeepEqual([]any{task.Pid(), len(children), status}, []any{uint32(0), 0, containerd.Created}),
			"pid of the task, processes below its shim, status of the task")
		q.Fact(row.name+": pid of the task", task.Pid())
		q.Fact(row.name+": processes below its shim", len(children))
		d.Ctr(append(argv, id)...)
		proc.WaitFor(q, d.NoTaskLeftovers(id))
		q.Fact(row.name+": leftovers of the task", d.TaskLeftovers(id))
		d.Ctr("containers", "delete", id)
	}
}

// `ctr tasks kill` sends TERM, and the kernel drops a TERM for which pid 1 has no handler. So the task runs on, and each further
// command of the cleanup is refused. Send KILL, wait until the task has stopped, and remove the image before the namespace.
//
// The chapter's cleanup is: `ctr tasks kill ID`, `ctr tasks delete ID`, `ctr containers delete ID`, `ctr namespaces remove NAMESPACE`.
//
// The first process of a pid namespace gets no signal that it does not handle, except KILL and STOP from outside. sleep handles none.
// `ctr tasks kill` succeeds all the same, because it only sends. A label of the container names the signal. ctr copies the label from the
// image's StopSignal, or writes TERM if the image has none. `ctr tasks delete --force` sends KILL and waits for the end. A namespace is
// removed only when it is empty, and the refusal lists what it still has. After `images rm` without --sync, the namespace still has blobs
// and snapshots: containerd's garbage collector removes them later.
//
// Hint: SigCgt and SigIgn in /proc/PID/status; `ctr containers info`; read the whole message of `ctr namespaces remove`.
// Spec: https://github.com/opencontainers/image-spec/blob/main/config.md#properties, "StopSignal",
// https://github.com/containerd/containerd/blob/main/docs/garbage-collection.md#synchronous-garbage-collection
// Kernel: https://man7.org/linux/man-pages/man7/pid_namespaces.7.html, "The namespace init process"
func TestTask_WhyDoesTheChaptersCleanupLeaveEverything(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Why does the chapter's cleanup leave everything?")
	defer q.Recover()
	d := ctrd.Start(q, ctrd.WithConfig(ctrd.GarbageOnDemand))
	id := q.ID(ctrd.ContainerID)
	ref := d.PullImage()
	d.CreateContainer(ref, id, "sleep", "3600")
	d.StartTaskAndWait(id)
	task := d.HoldingsOf(id)

	q.Step("run the chapter's cleanup: `tasks kill` succeeds without effect, and each command after it is refused")
	held, contents, files := task.Held(), d.CountContents(), filesOnDisk(q, d)
	pid := task.Program.PID
	caught, ignored := proc.Bits(q, pid, "SigCgt").Signal(unix.SIGTERM), proc.Bits(q, pid, "SigIgn").Signal(unix.SIGTERM)
	assert.Check(q, cmp.DeepEqual([]any{proc.InnerPID(q, pid), caught, ignored}, []any{1, false, false}),
		"pid of sleep in its namespace, whether it has a handler for TERM, whether it ignores TERM")
	q.Fact("sleep: pid in its namespace", proc.InnerPID(q, pid))
	q.Fact("sleep: has a handler for TERM", caught)
	q.Fact("sleep: ignores TERM", ignored)
	d.Ctr("tasks", "kill", id)
	assert.Check(q, !proc.Bits(q, pid, "ShdPnd").Signal(unix.SIGTERM), "TERM is pending: the kernel has not dropped it")
	for _, r := range []struct{ words, noun string }{
		{"must be stopped before deletion", "tasks"}, {"cannot delete a non stopped container", "containers"},
	} {
		q.Fact(r.noun+" delete after TERM: error", ctrd.CtrError(d.Refused(r.words, r.noun, "delete", id)))
	}
	full := namespaceStillHas(q, d)
	assert.Check(q, cmp.DeepEqual(task.Held(), held), "what there is of container and task, before and after the chapter's cleanup")
	assert.Check(q, cmp.DeepEqual(d.CountContents(), contents), "what the namespace has, before and after the chapter's cleanup")
	q.Fact("after the chapter's cleanup: what there is of container and task", task.Held())
	q.Fact("after the chapter's cleanup: the namespace still has", full)

	q.Step("send KILL, wait until the task has stopped, and run the rest again: both deletes succeed; `namespaces remove` is still refused")
	d.Ctr("tasks", "kill", "-s", "KILL", id)
	proc.WaitFor(q, proc.Dead(task.Program.Identity))
	proc.WaitFor(q, d.TaskStopped(id))
	assert.Check(q, cmp.DeepEqual(task.Held(), held.Except("process")), "after KILL")
	d.DeleteTask(id)
	proc.WaitFor(q, proc.Dead(task.Shim.Identity))
	assert.Check(q, cmp.DeepEqual(task.Held(), ctrd.Held{"container", "snapshot"}), "after tasks delete")
	d.Ctr("containers", "delete", id)
	assert.Check(q, cmp.Len(task.Held(), 0), "after containers delete")
	withImage := namespaceStillHas(q, d)
	assert.Check(q, cmp.DeepEqual(withImage, []string{"blobs", "images", "snapshots"}), "what the namespace still has")
	q.Fact("after containers delete: the namespace still has", withImage)

	q.Step("remove the image: its blobs and snapshots stay, and the namespace with them, until the garbage is collected")
	d.Ctr("images", "rm", ref)
	withGarbage := namespaceStillHas(q, d)
	assert.Check(q, cmp.DeepEqual(withGarbage, []string{"blobs", "snapshots"}), "what the namespace still has")
	garbage := filesOnDisk(q, d)
	// With the directory of the container's snapshot: a snapshotter removes directories when the garbage is collected.
	assert.Check(q, cmp.DeepEqual(garbage, files), "blobs and directories of snapshots on the disk, before and after the image was removed")
	d.CollectGarbage()
	assert.Check(q, cmp.DeepEqual(filesOnDisk(q, d), []int{0, 0}), "blobs and directories of snapshots, after the garbage was collected")
	d.Ctr("namespaces", "remove", d.Namespace)
	assert.Check(q, !slices.Contains(strings.Fields(d.Ctr("namespaces", "ls", "-q").Stdout), d.Namespace), "the namespace is still listed")
	q.Fact("after images rm: the namespace still has", withGarbage)
	for i, what := range []string{"blobs", "directories of snapshots"} {
		q.Fact("after images rm: "+what, garbage[i])
		q.Fact("after a garbage collection: "+what, filesOnDisk(q, d)[i])
	}

	d.PullImageAgain(ref)
	for _, row := range killableTasks {
		q.Control("the same `ctr tasks kill`, but %s: it ends the task", row.why)
		id := q.ID(ctrd.ContainerID + "-" + row.name)
		program := row.start(q, d, ref, id)
		d.Ctr("tasks", "kill", id)
		proc.WaitFor(q, proc.Dead(program.Identity))
		proc.WaitFor(q, d.TaskStopped(id))
		status := d.TaskStatus(id).ExitStatus
		assert.Check(q, cmp.Equal(status, row.status), "exit status, where %s", row.why)
		q.Fact(row.why+": exit status", status)
		d.DeleteTask(id)
		d.Ctr("containers", "delete", id)
	}

	q.Control("run the cleanup with --force and --sync: four commands remove everything, and none is refused")
	d.CreateContainer(ref, id, "sleep", "3600")
	d.StartTaskAndWait(id)
	again := d.HoldingsOf(id)
	d.Ctr("tasks", "delete", "--force", id)
	assert.Check(q, !again.Program.Alive(), "tasks delete --force has returned, and process %d is alive", again.Program.PID)
	d.Ctr("containers", "delete", id)
	d.Ctr("images", "rm", "--sync", ref)
	d.Ctr("namespaces", "remove", d.Namespace)
	proc.WaitFor(q, proc.Dead(again.Shim.Identity))
	assert.Check(q, cmp.Len(again.Held(), 0), "after the cleanup with --force and --sync")
	remaining := filesOnDisk(q, d)
	assert.Check(q, cmp.DeepEqual(remaining, []int{0, 0}), "blobs and directories of snapshots, after the cleanup with --force and --sync")
	q.Fact("after --force and --sync: blobs and directories of snapshots", remaining)

	q.Answer("`ctr tasks kill` sends TERM, and the kernel drops it, because sleep is pid 1 and has no handler for it. Send KILL, or run " +
		"`ctr tasks delete --force`. Then delete the container and, with --sync, the image: a namespace has to be empty before it is removed.")
}

// filesOnDisk returns how many blobs and how many directories of snapshots are on the disk.
func filesOnDisk(q *lab.Q, d *ctrd.Daemon) []int {
	return []int{len(file.Names(q, d.BlobDir())), len(file.Names(q, d.SnapshotsDir()))}
}

// namespaceStillHas tries to remove the namespace, which has to be refused, and returns what the refusal lists.
func namespaceStillHas(q *lab.Q, d *ctrd.Daemon) []string {
	q.Helper()
	_, list, _ := strings.Cut(ctrd.CtrError(d.Refused("must be empty", "namespaces", "remove", d.Namespace)), "it still has ")
	list, _, _ = strings.Cut(list, ": ")
	out := []string{}
	for _, word := range strings.Split(list, ", ") {
		word, _, _ = strings.Cut(word, " on ") // snapshots on "overlayfs" snapshotter
		out = append(out, word)
	}
	slices.Sort(out)
	has := d.CountContents()
	maps.DeleteFunc(has, func(_ string, n int) bool { return n == 0 })
	assert.Check(q, cmp.DeepEqual(out, slices.Sorted(maps.Keys(has))), "what the refusal lists, and what the namespace has")
	return out
}

// killableTask is a task that `ctr tasks kill` ends, in contrast to the chapter's task.
type killableTask struct {
	name   string
	label  string // the signal that the container's label names
	why    string // the reason, in the text of the control
	args   []string
	status uint32 // exit status of the task
}

var killableTasks = []killableTask{
	{"handler", "SIGTERM", "the program has a handler for TERM",
		[]string{"sh", "-c", "trap 'exit 7' TERM; while :; do sleep 3600 & wait $!; done"}, 7},
	{"label", "SIGKILL", "the container's label names another signal", []string{"sleep", "3600"}, 128 + uint32(unix.SIGKILL)},
}

// start creates and labels the container, and returns the program of its task, which is ready for the signal.
func (row killableTask) start(q *lab.Q, d *ctrd.Daemon, ref, id string) proc.Process {
	const signalLabel = "io.containerd.image.config.stop-signal"
	d.CreateContainer(ref, id, row.args...)
	if row.label != "SIGTERM" {
		d.Ctr("containers", "label", id, signalLabel+"="+row.label)
	}
	d.StartTask(id)
	pid := d.TaskPID(id)
	proc.WaitFor(q, proc.Runs(pid, row.args[0]))
	if row.name == "handler" {
		proc.WaitFor(q, proc.Catches(pid, "sh", unix.SIGTERM))
	}
	return proc.Snapshot(q, pid)
}
