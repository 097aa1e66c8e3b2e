//go:build linux && vmlab

package cdblab

import (
	"context"
	"fmt"
	"testing"

	"cdblab/helpers/check"

	eventsapi "github.com/containerd/containerd/api/events"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/poll"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// An exec adds three events: exec-added, exec-started with the pid, and exit with the status. A pause and a resume add one each.
//
// The exit of an exec has the same topic as the task's own. Its id tells them apart: an exec's exit has the exec's id, the task's has the
// container's id. A client that counts exits and does not look at the id takes the end of a health check for the end of the task.
// Paused means frozen: a SIGSTOP is no pause, and no event is published for it.
//
// When the task's process dies, the kernel kills its execs with it, because it is pid 1 of their pid namespace. Without a pid
// namespace of the task's own, the shim has the runtime kill them. The exit of the task is the last one that is published, also if
// an exec is only just starting.
//
// Hint: `ctr events`, `ctr tasks exec -d`, and field 4 of /proc/PID/stat.
// Spec: https://github.com/containerd/containerd/blob/main/api/events/task.proto
// Kernel: https://docs.kernel.org/admin-guide/cgroup-v2.html, cgroup.freeze
func TestEvents_WhatDoesAnExecAddAndAPause(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does an exec add? And a pause?")
	defer q.Recover()
	clock := check.StartClock(q)
	held := ctrd.HoldExecs(q)
	d := ctrd.Shared(q)
	d.EndShimsIfFailed()
	id := q.ID(ctrd.ContainerID)
	ref := d.PullImage()
	d.CreateContainer(ref, id, "sleep", "3600")
	stream := d.Listen()
	init := d.StartTaskAndWaitForEvent(stream, id)
	assert.DeepEqual(q, ctrd.Topics(stream.TakeEvents()), []string{"/tasks/create", "/tasks/start"})
	g := cgroup.Of(q, "/"+d.Namespace+"/"+id)

	q.Step("start an exec: it is added, then started, as the process that the kernel shows")
	d.ExecDetached(id, "second", "sleep", "3601")
	proc.WaitFor(q, stream.Received("/tasks/exec-started", 1))
	events := stream.TakeEvents()
	assert.DeepEqual(q, ctrd.Topics(events), []string{"/tasks/exec-added", "/tasks/exec-started"})
	added, started := events[0].Body.(*eventsapi.TaskExecAdded), events[1].Body.(*eventsapi.TaskExecStarted)
	assert.Check(q, cmp.DeepEqual([]string{added.ContainerID, added.ExecID}, []string{id, "second"}))
	assert.Check(q, cmp.DeepEqual([]string{started.ContainerID, started.ExecID}, []string{id, "second"}))
	proc.WaitFor(q, proc.Runs(proc.PID(started.Pid), "sleep"))
	second := proc.Snapshot(q, proc.PID(started.Pid))
	assert.Check(q, cmp.DeepEqual(second.Args, []string{"sleep", "3601"}))
	assert.Check(q, cmp.Equal(second.Parent, init.Parent), "parent of the exec's process, and of the task: the shim")
	assert.Check(q, cmp.DeepEqual(second.Cgroups, init.Cgroups))
	assert.Check(q, cmp.DeepEqual(second.NS, init.NS))
	assert.Check(q, cmp.DeepEqual(g.Procs(), check.Sorted(init.PID, second.PID)))
	clock.InOrder(q, "start of the process", second.Start.At(q), "exec-started", events[1].Timestamp)
	q.Fact("an exec", ctrd.Topics(events))
	q.Fact("its pid, and the shim's other child", second.PID)

	q.Step("pause the task and resume it: the freezer stops all of the cgroup, and each command publishes one event")
	d.PauseTask(id)
	assert.Check(q, g.Frozen(), "paused, and the freezer is not frozen")
	proc.WaitFor(q, stream.Received("/tasks/paused", 1))
	events = stream.TakeEvents()
	assert.DeepEqual(q, ctrd.Topics(events), []string{"/tasks/paused"})
	assert.Check(q, cmp.Equal(events[0].Body.(*eventsapi.TaskPaused).ContainerID, id))
	q.Fact("a pause", ctrd.Topics(events))
	d.Ctr("tasks", "resume", id)
	assert.Check(q, g.Thawed(), "resumed, and the freezer is frozen")
	proc.WaitFor(q, stream.Received("/tasks/resumed", 1))
	events = stream.TakeEvents()
	assert.DeepEqual(q, ctrd.Topics(events), []string{"/tasks/resumed"})
	assert.Check(q, cmp.Equal(events[0].Body.(*eventsapi.TaskResumed).ContainerID, id))
	q.Fact("a resume", ctrd.Topics(events))

	q.Control("send SIGSTOP: it stops the program as well, but is no pause")
	d.Ctr("tasks", "kill", "-s", "SIGSTOP", id)
	proc.WaitFor(q, proc.IsInState(init.PID, "T"))
	assert.Check(q, !g.Frozen(), "SIGSTOP froze the cgroup")
	d.Ctr("tasks", "kill", "-s", "SIGCONT", id)

	q.Step("end the exec: an exit is published, whose id is the exec's, and the task runs on")
	d.Ctr("tasks", "kill", "-s", "SIGTERM", "--exec-id", "second", id)
	proc.WaitFor(q, proc.Dead(second.Identity))
	proc.WaitFor(q, stream.Received("/tasks/exit", 1))
	events = stream.TakeEvents()
	assert.DeepEqual(q, ctrd.Topics(events), []string{"/tasks/exit"}) // and no event of SIGSTOP and SIGCONT before it
	exit := events[0].Body.(*eventsapi.TaskExit)
	assert.Check(q, cmp.DeepEqual([]string{exit.ContainerID, exit.ID}, []string{id, "second"}))
	assert.Check(q, cmp.DeepEqual([]uint32{exit.Pid, exit.ExitStatus}, []uint32{uint32(second.PID), 128 + 15}))
	assert.Check(q, proc.Alive(init.PID), "the task has ended with its exec")
	q.Fact("SIGSTOP, SIGCONT, and the exec's end", ctrd.Topics(events))
	q.Fact("the exec's exit: id, status", []any{exit.ID, exit.ExitStatus})

	q.TearDown("delete the exec and kill the task: the delete publishes no event, and the task's own exit has the container's id", func() {
		process, err := d.Task(id).LoadProcess(context.Background(), "second", nil)
		assert.NilError(q, err)
		q.LogCommand("process.Delete   # of exec second")
		status, err := process.Delete(context.Background())
		assert.NilError(q, err)
		assert.Check(q, cmp.Equal(status.ExitCode(), exit.ExitStatus), "exit status: from the Go client, and in the event")
		d.Ctr("tasks", "kill", "-s", "SIGKILL", id)
		proc.WaitFor(q, proc.Dead(init.Identity))
		proc.WaitFor(q, stream.Received("/tasks/exit", 2))
		events := stream.TakeEvents()
		assert.DeepEqual(q, ctrd.Topics(events), []string{"/tasks/exit"})
		taskExit := events[0].Body.(*eventsapi.TaskExit)
		assert.Check(q, cmp.DeepEqual([]string{taskExit.ContainerID, taskExit.ID}, []string{id, id}))
		assert.Check(q, cmp.DeepEqual([]uint32{taskExit.Pid, taskExit.ExitStatus}, []uint32{uint32(init.PID), 128 + 9}))
		q.Fact("the task's exit: id, status", []any{taskExit.ID, taskExit.ExitStatus})
		assert.Check(q, cmp.DeepEqual(stream.FromCtr(), stream.FromClient()))
	})

	q.TearDown("kill a task while two execs start: the shim publishes the exit of the exec that has begun, and then that of the task", func() {
		killWhileExecsStart(q, d, held, ref)
	})

	q.Answer("An exec adds three events: exec-added, exec-started with the pid, and an exit with the exec's id. A pause adds " +
		"one event, and a resume another.")
}

// killWhileExecsStart starts two execs in a new task: the first one has begun when the task is killed, the second one has not.
func killWhileExecsStart(q *lab.Q, d *ctrd.Daemon, held ctrd.HeldExec, ref string) {
	dying := q.ID(ctrd.ContainerID + "-dying")
	ofDying := d.Listen("event.container_id==" + dying)
	d.CreateContainerByClient(ctrd.ClientOptions{BinaryName: held.Path}, ref, dying, "sleep", "3600")
	task := d.StartTaskAndWait(dying)
	start := func(id string) *lab.Background {
		return q.StartBackground("ctr", "-n", d.Namespace, "tasks", "exec", "--fifo-dir", d.FifoDir, "--exec-id", id, dying, "sleep", "3601")
	}
	first := start("first")
	proc.WaitFor(q, held.Holds("first"))
	q.KillProcess(task)
	proc.WaitFor(q, proc.Reaped(task.Identity))
	second := start("second")
	proc.WaitFor(q, func(t poll.LogT) poll.Result { // a shim that knows of the end refuses it, another one calls the runtime
		if r := held.Holds("second")(t); !r.Done() && !second.Ended() {
			return poll.Continue("the second exec has neither begun nor ended")
		}
		return poll.Success()
	})
	held.Release("first")
	assert.Check(q, cmp.Equal(first.ExitCode(), 128+9), "exit code of ctr tasks exec, killed with its pid 1: %s", first.Stderr())
	held.Release("second")
	assert.Check(q, second.ExitCode() != 0, "an exec in a task whose process is dead succeeds")
	proc.WaitFor(q, ofDying.ReceivedExit(dying))
	proc.WaitFor(q, ofDying.Received("/tasks/exit", 2))
	exits := []string{}
	for _, e := range ctrd.InOrder(ofDying.TakeEvents()) {
		if exit, ok := e.Body.(*eventsapi.TaskExit); ok {
			exits = append(exits, fmt.Sprintf("%s %d", exit.ID, exit.ExitStatus))
		}
	}
	assert.Check(q, cmp.DeepEqual(exits, []string{"first 137", dying + " 137"}), "exits in order, of an exec and then of its task")
	proc.WaitFor(q, d.TaskStopped(dying))
	q.Fact("a task ends while an exec starts: exits in order", exits)
}
