//go:build linux && vmlab

package cdblab

import (
	"testing"
	"time"

	eventsapi "github.com/containerd/containerd/api/events"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/check"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// That it was created, started, ended and deleted; with pid, time and exit status, each as the kernel has it.
//
// The events come from the shim, through containerd, to whoever listens at that moment. Without a task there are none,
// whatever else is asked of containerd: reading is no event. The exit is told by a shim that lives on; the delete is the
// last word of one that is about to end, and on a busy machine it is now and then lost with it.
//
// Hint: `ctr events` in a second terminal; compare each pid with /proc, each time with field 22 of /proc/PID/stat.
// Spec: https://github.com/containerd/containerd/blob/main/api/events/task.proto
func TestEvents_WhatCanContainerdTellUsWhileTheTaskIsRunning(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What can containerd tell us while the task is running?")
	d := ctrd.Start(q)
	id := q.ID(ctrd.ContainerID)
	ref := d.PullImage()
	d.CreateContainer(ref, id, "sleep", "300")

	q.Control("no task: whoever listens hears nothing, whatever is asked")
	stream := d.Listen()
	d.Ctr("tasks", "ls")
	d.Ctr("containers", "info", id)
	d.Ctr("images", "ls")
	assert.DeepEqual(q, ctrd.Topics(stream.TakeEvents()), []string{})
	q.Fact("events without a task", ctrd.Topics(stream.TakeEvents()))

	q.Step("start: two events, and both name the process that the kernel has")
	d.StartTask(id)
	pid := d.TaskPID(id)
	proc.WaitFor(q, proc.Runs(pid, "sleep"))
	task := proc.Snapshot(q, pid)
	shim := proc.Snapshot(q, task.Parent)
	stream.WaitFor("/tasks/start") // the shim tells on a connection of its own, which may lag behind the command
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
	assert.Check(q, file.Exists(create.Bundle), "the bundle that the event names is not there")
	q.Fact("bundle", create.Bundle)
	assert.Check(q, cmp.Equal(events[0].Namespace, ctrd.Namespace))

	q.Step("the times agree: the kernel's process begins, then create is told, then start")
	began := task.Start.At(q)
	check.InOrder(q, "process begins", began, "create", events[0].Timestamp)
	check.InOrder(q, "create", events[0].Timestamp, "start", events[1].Timestamp)
	q.Fact("from the process to create", lab.Elapsed(events[0].Timestamp.Sub(began)))
	q.Fact("from create to start", lab.Elapsed(events[1].Timestamp.Sub(events[0].Timestamp)))

	q.Step("while it runs nothing more is told: one has to ask")
	line := check.TableRow(q, d.Ctr("tasks", "ls").Stdout, id)
	assert.Check(q, cmp.Equal(line[2], "RUNNING"))
	d.Ctr("tasks", "ps", id)
	d.Ctr("tasks", "metrics", id)
	assert.DeepEqual(q, ctrd.Topics(stream.TakeEvents()), []string{})
	q.Fact("events while it runs", "none")

	q.TearDown("kill: the exit is told, with status and time", func() {
		killed := time.Now()
		d.Ctr("tasks", "kill", "-s", "SIGKILL", id)
		proc.WaitFor(q, proc.Dead(task.Identity))
		stream.WaitFor("/tasks/exit")
		seen := time.Now()
		events := stream.TakeEvents()
		assert.DeepEqual(q, ctrd.Topics(events), []string{"/tasks/exit"})
		exit := events[0].Body.(*eventsapi.TaskExit)
		assert.Check(q, cmp.Equal(exit.ContainerID, id))
		assert.Check(q, cmp.Equal(exit.ID, id), "the id of the task's own process is the container's")
		assert.Check(q, cmp.Equal(exit.Pid, uint32(pid)))
		assert.Check(q, cmp.Equal(exit.ExitStatus, uint32(128+9)))
		check.InOrder(q, "kill", killed, "exited_at", exit.ExitedAt.AsTime())
		check.InOrder(q, "exited_at", exit.ExitedAt.AsTime(), "seen to be dead", seen)
		q.Fact("exit status", exit.ExitStatus)

		q.Step("delete: the last word, if it is heard")
		d.DeleteTask(id)
		// A shim ends with the delete of its last task, and does not wait until its last event is sent: once it is dead,
		// the event has come or never will.
		proc.WaitFor(q, proc.Dead(shim.Identity))
		events = stream.TakeEvents()
		if len(events) == 0 {
			q.Fact("delete", lab.Chance("lost with the shim"))
			return
		}
		assert.DeepEqual(q, ctrd.Topics(events), []string{"/tasks/delete"})
		deleted := events[0].Body.(*eventsapi.TaskDelete)
		assert.Check(q, cmp.Equal(deleted.Pid, uint32(pid)))
		assert.Check(q, cmp.Equal(deleted.ExitStatus, exit.ExitStatus))
		assert.Check(q, cmp.Equal(deleted.ExitedAt.AsTime(), exit.ExitedAt.AsTime()))
		q.Fact("delete", lab.Chance("told"))
	})

	q.Step("ctr events and the Go client saw the same")
	fromCtr, fromClient := stream.FromCtr(), stream.FromClient()
	assert.DeepEqual(q, fromCtr, fromClient)
	q.Fact("seen by both", ctrd.Topics(stream.Events())[:2])

	q.Answer("When it was created, started, ended and deleted, and as which process. In between it is silent until asked.")
}
