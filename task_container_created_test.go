//go:build linux && vmlab

package cdblab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/cio"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/check"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/file"
	"cdblab/helpers/host"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// Creating a container starts nothing: no process, no mount and no cgroup. containerd stores a record, and lays out a snapshot.
//
// What runc calls create, namespaces and a cgroup with runc init in them, is to containerd the first half of a task's start.
// Its own create stores the whole config.json as a record. Before that the client has an active snapshot prepared: directories
// on disk, which are not mounted. It checks nothing that only the runtime could: a program that does not exist is refused by the task.
//
// Hint: `ctr containers info`, `ctr snapshots info`; and what is not there: a bundle, a cgroup, a directory of runc's.
// Spec: https://github.com/containerd/containerd/blob/main/docs/getting-started.md#creating-an-oci-spec-and-container
// Kernel: https://docs.kernel.org/filesystems/overlayfs.html, "Upper and Lower"
func TestTask_DoesCreatingAContainerStartAnything(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Does creating a container start anything?")
	defer q.Recover()
	d := ctrd.Shared(q)
	ref := d.PullImage()
	id, noProgram := q.ID(ctrd.ContainerID), q.ID(ctrd.ContainerID+"-none")
	before := q.TakeInventory()
	assert.Assert(q, cmp.Len(tracesOfTask(q, d, id), 0), "traces of a task before anything was created")

	q.Step("create a container: nothing runs, and nothing is mounted")
	d.CreateContainer(ref, id, "sleep", "3600")
	assert.Check(q, cmp.Len(tracesOfTask(q, d, id), 0), "traces of a task, of a container that has none")
	assert.Check(q, cmp.Len(host.OwnedBy(host.Diff(before, q.TakeInventory()), q.Owner), 0), "changes of the host")
	q.Fact("traces of a task, after create", tracesOfTask(q, d, id))

	q.Step("read the record: it has the whole config.json, and the snapshot's name")
	assert.Check(q, cmp.Contains(d.Ctr("containers", "ls", "-q").Stdout, id))
	spec := d.Spec(id)
	assert.Check(q, cmp.DeepEqual(spec.Process.Args, []string{"sleep", "3600"}))
	assert.Check(q, cmp.Equal(spec.Linux.CgroupsPath, "/"+d.Namespace+"/"+id), "the cgroup that a task will have")
	q.Fact("process.args in the record", spec.Process.Args)
	q.Fact("linux.cgroupsPath in the record", spec.Linux.CgroupsPath)
	// What 1.7.27 hides, each later release has to hide. In 1.7.10 powercap was not there: its figures betray what others compute.
	hidden := []string{
		"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/scsi", "/proc/timer_list",
		"/sys/devices/virtual/powercap", "/sys/firmware",
	}
	for _, path := range hidden {
		assert.Check(q, cmp.Contains(spec.Linux.MaskedPaths, path), "linux.maskedPaths in the record")
	}
	q.Fact("linux.maskedPaths in the record", spec.Linux.MaskedPaths)

	q.Step("look at the snapshot: it is an active one on top of the image's, and its directories are on disk, empty and not mounted")
	upper, dirs := snapshotDirs(q, d, id)
	row := check.TableRow(q, d.Ctr("snapshots", "ls").Stdout, id)
	assert.Assert(q, cmp.Len(row, 3), "key, parent and kind")
	assert.Check(q, cmp.Equal(row[2], "Active"))
	parent, err := d.Client().SnapshotService("").Stat(context.Background(), row[1])
	assert.NilError(q, err, "the snapshot's parent")
	assert.Check(q, cmp.Equal(parent.Kind, snapshots.KindCommitted), "kind of the snapshot's parent")
	for _, dir := range dirs {
		assert.Check(q, strings.HasPrefix(dir, d.Root), "%s is not below containerd's root", dir)
		st, err := os.Stat(dir)
		assert.Check(q, err == nil && st.IsDir(), "the snapshot's directory %s: %v", dir, err)
	}
	if len(dirs) > 1 { // a snapshotter that copies has a single directory, which has all files
		assert.Check(q, cmp.Len(file.Names(q, upper), 0), "what the container has written so far")
	}
	q.Fact("snapshot's kind", row[2])
	q.Fact("snapshot's directories on disk", len(dirs))

	q.Step("create a container whose program does not exist: containerd checks nothing, and accepts it")
	d.CreateContainer(ref, noProgram, "/no/such/program")
	assert.Check(q, cmp.DeepEqual(d.Spec(noProgram).Process.Args, []string{"/no/such/program"}))
	assert.Check(q, cmp.Len(tracesOfTask(q, d, noProgram), 0))
	q.Step("start a task of it: the runtime refuses the program, and nothing is left of the task")
	refused := d.TryCtr("tasks", "start", "-d", "--fifo-dir", d.FifoDir, noProgram)
	assert.Check(q, refused.Code != 0, "a program that does not exist was started:\n%s", refused)
	assert.Check(q, cmp.Contains(refused.Stderr, "/no/such/program"))
	proc.WaitFor(q, d.HasShims(0))
	d.WaitForShimEnd(filepath.Join(d.SocketDir, d.SocketName(noProgram)))
	assert.Check(q, cmp.Len(tracesOfTask(q, d, noProgram), 0), "traces of a task that could not start")
	q.Fact("error of tasks start", runc.LastLogMessage(refused))

	q.Control("start a task of the first container: now there is all that was missing before")
	d.StartTask(id)
	pid := d.TaskPID(id)
	proc.WaitFor(q, proc.Runs(pid, "sleep"))
	assert.Check(q, cmp.DeepEqual(tracesOfTask(q, d, id),
		[]string{"shim", "shim's socket", "bundle", "rootfs mount", "runtime state", "cgroup"}))
	q.Fact("traces of a task, after tasks start", tracesOfTask(q, d, id))
	mounted := check.MountAt(q, filepath.Join(d.Bundle(id), "rootfs"))
	assert.Assert(q, mounted != nil, "nothing is mounted at the bundle's rootfs")
	// The kernel shows an overlay's directories as options, and a bind mount's directory as the mount's root.
	assert.Check(q, strings.Contains(mounted.VFSOptions, upper) || strings.HasSuffix(upper, mounted.Root),
		"the directory %s is not mounted; mounted is %s with the options %s", upper, mounted.Root, mounted.VFSOptions)
	q.Fact("rootfs is now", mounted.FSType)
	task := proc.Snapshot(q, pid)
	covered := []string{}
	for _, path := range hidden {
		if !file.Exists(path) { // the kernel does not have it
			continue
		}
		if slices.Contains(check.MountPoints(task), path) {
			covered = append(covered, path)
			continue
		}
		q.Errorf("mount points of the task: %s is not covered, and config.json masks it: %v", path, check.MountPoints(task))
	}
	q.Fact("paths that something covers in the task", covered)

	q.Answer("Creating a container makes a record and a snapshot, and starts nothing. Process, bundle, mount, cgroup and shim come with " +
		"the task.")
}

// tracesOfTask lists those things of a container that exist only while it has a task.
func tracesOfTask(q *lab.Q, d *ctrd.Daemon, id string) []string {
	q.Helper()
	out := []string{}
	for _, trace := range []struct {
		name   string
		exists bool
	}{
		{"shim", len(d.Shims()) > 0},
		{"shim's socket", proc.HasListener(q, filepath.Join(d.SocketDir, d.SocketName(id)))},
		{"bundle", file.Exists(d.Bundle(id))},
		{"rootfs mount", check.MountAt(q, filepath.Join(d.Bundle(id), "rootfs")) != nil},
		{"runtime state", file.Exists(filepath.Join(d.RuncRoot, d.Namespace, id))},
		{"cgroup", slices.ContainsFunc(cgroup.Of(q, "/"+d.Namespace+"/"+id).Dirs(), file.Exists)},
	} {
		if trace.exists {
			out = append(out, trace.name)
		}
	}
	return out
}

// snapshotDirs returns the directories of a container's snapshot, as its snapshotter would mount them, and the one of them to
// which the container writes.
func snapshotDirs(q *lab.Q, d *ctrd.Daemon, id string) (upper string, dirs []string) {
	q.Helper()
	mounts, err := d.Client().SnapshotService("").Mounts(context.Background(), id)
	assert.NilError(q, err)
	assert.Assert(q, cmp.Len(mounts, 1), "mounts of the snapshot")
	q.Fact("would be mounted as", mounts[0].Type)
	if mounts[0].Type == "bind" {
		return mounts[0].Source, []string{mounts[0].Source}
	}
	overlay, err := ctrd.ParseOverlay(mounts[0].Options)
	assert.NilError(q, err)
	return overlay.Upper, append([]string{overlay.Upper, overlay.Work}, overlay.Lower...)
}

// A created task holds everything that a running task holds, except the program: its process is `runc init`, which waits. Its status is
// CREATED, and containerd has published only the create event.
//
// A client makes a task by two calls, create and start. A client that dies between them leaves such a task. The task goes on waiting, even
// if the daemon restarts, and any client that has its id can start it: the same process then executes the program. `ctr tasks start` cannot
// start it, because it creates a task first, and the task exists.
//
// The Go client and ctr delete only stopped tasks. So kill the task first; `ctr tasks delete --force` kills it and then deletes it. Only
// the client checks this: the shim itself deletes a created task, as runc does.
//
// Hint: `ctr tasks ls`, and the task's process in ps; `ctr tasks delete`, with and without --force.
// Spec: https://github.com/containerd/containerd/blob/main/docs/getting-started.md#creating-a-running-task
// Kernel: https://man7.org/linux/man-pages/man7/fifo.7.html
func TestTask_WhatDoesATaskHoldThatWasNeverStarted(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does a task hold that was never started?")
	defer q.Recover()
	d := ctrd.Start(q)
	ctx := context.Background()
	ref := d.PullImage()
	stream := d.Listen()
	heldWhileCreated := ctrd.HeldWhileRunning.Except("what it wrote", "FIFOs") // this client asks for no FIFOs

	q.Step("create a task by the Go client, and do not start it: it holds everything, but its process is runc init")
	id := q.ID(ctrd.ContainerID)
	task := createUnstartedTask(q, d, ref, id)
	init := task.Program
	stream.WaitFor("/tasks/create")
	assert.Check(q, cmp.DeepEqual(task.Held(), heldWhileCreated), "what the created task holds")
	assert.Check(q, !slices.Contains(init.Args, "3600"), "the task's process has the program's arguments %q before start", init.Args)
	proc.WaitFor(q, proc.IsInState(init.PID, "S"))
	check.OnlyProcessInCgroup(q, init.Identity, task.Cgroup)
	row := check.TableRow(q, d.Ctr("tasks", "ls").Stdout, id)
	assert.Check(q, cmp.DeepEqual(row[1:], []string{fmt.Sprint(init.PID), "CREATED"}), "the line of the task in ctr tasks ls")
	published := ctrd.TaskTopics(ctrd.Topics(stream.TakeEvents()))
	assert.Check(q, cmp.DeepEqual(published, []string{"/tasks/create"}), "events of a task that was created")
	q.Fact("created task: holds", task.Held())
	q.Fact("created task: process", init.Comm)
	q.Fact("created task: status", row[2])
	q.Fact("created task: events", published)

	q.Step("try to start, delete and pause the task by ctr: ctr refuses each command, and nothing changes")
	for _, r := range []struct {
		what, words string
		argv        []string
	}{
		{"tasks start", "already exists", []string{"tasks", "start", "-d", "--fifo-dir", d.FifoDir, id}},
		{"tasks delete", "must be stopped before deletion: created", []string{"tasks", "delete", id}},
		{"tasks pause", "cannot pause task in created state", []string{"tasks", "pause", id}},
		{"containers delete", "must be stopped before deletion: created", []string{"containers", "delete", id}},
	} {
		refused := d.Refused(r.words, r.argv...)
		assert.Check(q, cmp.DeepEqual(task.Held(), heldWhileCreated), "after ctr %s", r.what)
		assert.Check(q, init.Alive(), "after ctr %s runc init is dead", r.what)
		q.Fact("ctr "+r.what+": error", strings.ReplaceAll(ctrd.CtrError(refused), id, "ID"))
	}

	q.Step("kill containerd and start it again: the task is still created, in the same process")
	d.Kill()
	d.Start()
	assert.Check(q, cmp.DeepEqual(task.Held(), heldWhileCreated), "what the task holds after a restart of containerd")
	assert.Check(q, proc.Snapshot(q, init.PID).Same(init.Identity), "the task's process is another one")
	status := d.TaskStatus(id).Status
	assert.Check(q, cmp.Equal(status, containerd.Created), "the task's status after a restart of containerd")
	q.Fact("after a restart of containerd: status", status)

	q.Control("start the task by a client that has not created it: the same process executes the program")
	stream = d.Listen()
	q.LogCommand("# task.Start of the Go client, container %s", id)
	assert.NilError(q, d.Task(id).Start(ctx))
	proc.WaitFor(q, proc.Runs(init.PID, "sleep"))
	program := proc.Snapshot(q, init.PID)
	assert.Check(q, cmp.DeepEqual(program.Identity, init.Identity), "the process before start, and after it")
	stream.WaitFor("/tasks/start")
	published = ctrd.TaskTopics(ctrd.Topics(stream.TakeEvents()))
	assert.Check(q, cmp.DeepEqual(published, []string{"/tasks/start"}), "events of start")
	q.Fact("after start: process", program.Comm)
	q.Fact("after start: events", published)
	d.KillAndDeleteTask(id)

	for i, way := range []struct {
		name string
		end  func(id string, init proc.Process)
	}{
		{"tasks kill -s SIGTERM and tasks delete", func(id string, init proc.Process) {
			d.Ctr("tasks", "kill", "-s", "SIGTERM", id) // runc init has a handler for TERM
			proc.WaitFor(q, proc.Dead(init.Identity))
			proc.WaitFor(q, d.TaskStopped(id))
			d.DeleteTask(id)
		}},
		{"tasks delete --force", func(id string, _ proc.Process) { d.Ctr("tasks", "delete", "--force", id) }},
		{"the API call Delete, without the client's check", func(id string, _ proc.Process) {
			q.LogCommand("# tasks.Delete of the Go client's TaskService, id %s", id)
			_, err := d.Client().TaskService().Delete(ctx, &tasksapi.DeleteTaskRequest{ContainerID: id})
			assert.Check(q, err, "the raw delete of a created task")
		}},
	} {
		q.Step("end a created task by %s: nothing of it is left except the container and its snapshot", way.name)
		id := q.ID(fmt.Sprintf("%s-%d", ctrd.ContainerID, i+2))
		task := createUnstartedTask(q, d, ref, id)
		way.end(id, task.Program)
		proc.WaitFor(q, proc.Dead(task.Program.Identity))
		proc.WaitFor(q, proc.Dead(task.Shim.Identity))
		assert.Check(q, cmp.DeepEqual(task.Held(), ctrd.Held{"container", "snapshot"}), "after %s", way.name)
		q.Fact(way.name+": leftovers", task.Held())
	}

	q.Answer("A created task holds everything that a running task holds, except the program: its process is runc init, which waits, even " +
		"while containerd restarts. ctr cannot start it, and `ctr tasks delete` refuses it. `ctr tasks delete --force` kills it and then " +
		"deletes it.")
}

// createUnstartedTask creates a container and its task by the Go client, and does not start the task.
func createUnstartedTask(q *lab.Q, d *ctrd.Daemon, ref, id string) ctrd.Holdings {
	q.Helper()
	d.CreateContainer(ref, id, "sleep", "3600")
	q.LogCommand("# container.NewTask(ctx, cio.NullIO) of the Go client, container %s", id)
	container, err := d.Client().LoadContainer(context.Background(), id)
	assert.NilError(q, err)
	_, err = container.NewTask(context.Background(), cio.NullIO)
	assert.NilError(q, err)
	return d.HoldingsOf(id)
}
