//go:build linux && vmlab

package cdblab

import (
	"reflect"
	"testing"
	"time"

	eventsapi "github.com/containerd/containerd/api/events"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/poll"

	"cdblab/helpers/check"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// containerd publishes that a task was created, started, ended and deleted: with the pid, the exit status, and the time at which the shim
// noticed it.
//
// The shim publishes the events through containerd, and each client that listens at that moment receives them. Reading
// publishes none: without a task and without a change of containerd's own records, the stream is empty. The shim that publishes
// the exit lives on. The delete event is the last one of a shim that is about to end, and on a busy machine it is sometimes
// lost.
//
// Hint: `ctr events` in a second terminal; compare each pid with /proc, each time with field 22 of /proc/PID/stat.
// Spec: https://github.com/containerd/containerd/blob/main/api/events/task.proto
func TestEvents_WhatCanContainerdTellUsWhileTheTaskIsRunning(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What can containerd tell us while the task is running?")
	defer q.Recover()
	clock := check.StartClock(q)
	d := ctrd.Start(q)
	id := q.ID(ctrd.ContainerID)
	ref := d.PullImage()
	d.CreateContainer(ref, id, "sleep", "3600")

	q.Control("no task: a listener receives nothing, whatever containerd is asked")
	stream := d.Listen()
	d.Ctr("tasks", "ls")
	d.Ctr("containers", "info", id)
	d.Ctr("images", "ls")
	none := ctrd.Topics(stream.TakeEvents())
	assert.DeepEqual(q, none, []string{})
	q.Fact("events without a task", none)

	q.Step("start: two events, and both name the process that the kernel shows")
	d.StartTask(id)
	pid := d.TaskPID(id)
	proc.WaitFor(q, proc.Runs(pid, "sleep"))
	task := proc.Snapshot(q, pid)
	shim := proc.Snapshot(q, task.Parent)
	stream.WaitFor("/tasks/start") // the shim publishes on a connection of its own, which may lag behind the command
	events := stream.TakeEvents()
	assert.DeepEqual(q, ctrd.Topics(events), []string{"/tasks/create", "/tasks/start"})
	create, start := events[0].Body.(*eventsapi.TaskCreate), events[1].Body.(*eventsapi.TaskStart)
	q.Fact("topics", ctrd.Topics(events))
	assert.Check(q, cmp.Equal(create.ContainerID, id))
	assert.Check(q, cmp.Equal(start.ContainerID, id))
	assert.Check(q, cmp.Equal(create.Pid, uint32(pid)))
	assert.Check(q, cmp.Equal(start.Pid, uint32(pid)))
	assert.Check(q, cmp.DeepEqual(proc.Children(q, task.Parent), []proc.PID{task.PID}))
	check.OnlyProcessInCgroup(q, task.Identity, "/"+ctrd.Namespace+"/"+id)
	q.Fact("pid in both, and the shim's only child", task.PID)
	assert.Check(q, cmp.Equal(create.Bundle, d.Bundle(id)))
	assert.Check(q, file.Exists(create.Bundle), "the bundle that the event names does not exist")
	q.Fact("bundle", create.Bundle)
	assert.Check(q, cmp.Equal(events[0].Namespace, ctrd.Namespace))

	q.Step("the times agree: the kernel starts the process, then create is published, then start")
	began := task.Start.At(q)
	clock.InOrder(q, "start of the process", began, "create", events[0].Timestamp)
	clock.InOrder(q, "create", events[0].Timestamp, "start", events[1].Timestamp)
	q.Fact("from the process to create", lab.Elapsed(events[0].Timestamp.Sub(began)))
	q.Fact("from create to start", lab.Elapsed(events[1].Timestamp.Sub(events[0].Timestamp)))

	q.Step("while it runs no more events are published: a client has to ask")
	assert.Check(q, cmp.Equal(check.TableCell(q, d.Ctr("tasks", "ls").Stdout, id, 2), "RUNNING"))
	d.Ctr("tasks", "ps", id)
	d.Ctr("tasks", "metrics", id)
	whileRunning := ctrd.Topics(stream.TakeEvents())
	assert.DeepEqual(q, whileRunning, []string{})
	q.Fact("events while it runs", whileRunning)

	q.TearDown("kill: the exit is published, with status and time", func() {
		killed := time.Now()
		d.Ctr("tasks", "kill", "-s", "SIGKILL", id)
		proc.WaitFor(q, proc.Dead(task.Identity))
		stream.WaitFor("/tasks/exit")
		received := time.Now()
		events := stream.TakeEvents()
		assert.DeepEqual(q, ctrd.Topics(events), []string{"/tasks/exit"})
		exit := events[0].Body.(*eventsapi.TaskExit)
		assert.Check(q, cmp.Equal(exit.ContainerID, id))
		assert.Check(q, cmp.Equal(exit.ID, id), "the id of the task's own process is the container's")
		assert.Check(q, cmp.Equal(exit.Pid, uint32(pid)))
		assert.Check(q, cmp.Equal(exit.ExitStatus, uint32(128+9)))
		clock.InOrder(q, "kill", killed, "exited_at", exit.ExitedAt.AsTime())
		clock.InOrder(q, "exited_at", exit.ExitedAt.AsTime(), "exit received", received)
		q.Fact("topics after kill", ctrd.Topics(events))
		q.Fact("exit status", exit.ExitStatus)

		q.Step("delete: the shim's last event, if it is received")
		d.DeleteTask(id)
		// A shim ends when its last task is deleted, and does not wait until its last event is sent. So once it is dead, the
		// event either has been received or never will be.
		proc.WaitFor(q, proc.Dead(shim.Identity))
		recordDeleteEvent(q, stream.TakeEvents(), exit)
	})

	q.Step("ctr events and the Go client received the same")
	proc.WaitFor(q, func(poll.LogT) poll.Result { // the last event, if the dead shim's socket still had it, reaches one before the other
		if c, client := stream.FromCtr(), stream.FromClient(); !reflect.DeepEqual(c, client) {
			return poll.Continue("ctr events has received %q, the Go client %q", c, client)
		}
		return poll.Success()
	})
	q.Fact("seen by both", ctrd.Topics(stream.Events())[:2])

	q.Answer("For each task, containerd publishes that it was created, started, ended and deleted. Each event names the process by its pid. " +
		"While the program only runs, containerd publishes nothing: a client has to ask. An exec, a pause, a resume and an out-of-memory " +
		"kill publish events of their own.")
}

// recordDeleteEvent asserts that the delete event has the pid, the status and the time of the exit event. It may be missing.
func recordDeleteEvent(q *lab.Q, events []ctrd.Event, exit *eventsapi.TaskExit) {
	if len(events) == 0 {
		q.Fact("delete", lab.Chance("lost with the shim"))
		return
	}
	assert.DeepEqual(q, ctrd.Topics(events), []string{"/tasks/delete"})
	deleted := events[0].Body.(*eventsapi.TaskDelete)
	assert.Check(q, cmp.Equal(deleted.Pid, exit.Pid))
	assert.Check(q, cmp.Equal(deleted.ExitStatus, exit.ExitStatus))
	assert.Check(q, cmp.Equal(deleted.ExitedAt.AsTime(), exit.ExitedAt.AsTime()))
	q.Fact("delete", lab.Chance("received"))
}
