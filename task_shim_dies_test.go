//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/ctrd"
	"cdblab/helpers/failure"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// The task goes with it, and the container stays.
//
// Without its parent the container's process would run on, and no process would learn how it ends. So containerd, which
// holds a connection to the shim, kills the leftovers as soon as that connection breaks: it runs the shim's program once
// more, as `shim delete`, and that runs `runc delete --force`. It publishes an exit with 137, whatever the process might
// have ended with, unless the shim has saved a status before, and a delete; the bundle is removed. No event of execs is
// published. What remains is the container: its record and its snapshot, of which a new task can be made at once.
//
// The cleanup has a timeout, 5 s (io.containerd.timeout.shim.cleanup): where that is too short, an exit with 255 is
// published, and the process may well be alive.
//
// A shim that is sent TERM takes its socket with it; after KILL the file stays, and the next shim of that name replaces
// it.
//
// Hint: kill -KILL the parent of the container's process; `ctr events` in a second terminal.
// Spec: https://github.com/containerd/containerd/blob/main/docs/runtime-v2.md#delete
func TestTask_WhatHappensWhenTheShimDies(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What happens when the shim dies?")
	defer q.Recover()
	d := ctrd.Shared(q)
	ref := d.PullImage()
	stream := d.Listen()

	q.Step("start two tasks with an exec, and two that end with 7: each has a shim of its own")
	var victims []*failure.Victim
	for _, when := range []string{failure.Running, failure.Stopped} {
		for _, signal := range []unix.Signal{unix.SIGKILL, unix.SIGTERM} {
			death := failure.Death{Killed: failure.Shim, Signal: signal, When: when}
			victim := failure.NewVictim(q, d, ref, stream, death)
			assert.Check(q, proc.Listens(q, victim.Shim, victim.Socket),
				"the shim of %s does not listen on %s", victim.ID, victim.Socket)
			q.Cleanup(func() { _ = os.Remove(victim.Socket) }) // a shim that was killed leaves it, and the lab has to remove it
			victims = append(victims, victim)
		}
	}
	ofRunning, ofStopped := victims[:2], victims[2:]
	assert.Check(q, cmp.Len(d.Shims(), 4))
	stream.TakeEvents()
	ofRunning[0].RecordParents("before")

	q.Step("kill each shim by its pid: containerd does the cleanup")
	for _, victim := range victims {
		victim.Kill()
	}
	for _, victim := range victims {
		victim.WaitUntilReported()
		victim.WaitForEvent("delete ")
		proc.WaitFor(q, victim.TaskWait.Returned())
		if victim.Exec != nil {
			proc.WaitFor(q, victim.ExecWait.Returned())
		}
	}
	stream.TakeEvents()

	q.Step("list what remains: of each task nothing, and of each container the record")
	// A shim that saves no exit status in the bundle takes it with it: containerd publishes 137 for a process that it has not seen end.
	table, published := "death-of-the-shim.golden", "7"
	if !ctrd.SavesExit(q) {
		table, published = "death-of-the-shim-unsaved.golden", "137"
	}
	observed := failure.Tabulate(q, d, table, victims)
	for _, victim := range victims {
		seen := observed[victim]
		for _, process := range []string{"init", "shim"} {
			assert.Check(q, cmp.Equal(seen[process], "dead"), "%s: the %s", victim, process)
		}
		for _, thing := range []string{"bundle", "rootfs mount", "cgroup", "runtime's state"} {
			assert.Check(q, cmp.Equal(seen[thing], "gone"), "%s: the %s", victim, thing)
		}
		assert.Check(q, cmp.Equal(seen["container"], "there"), "%s: the container's record", victim)
		assert.Check(q, cmp.Equal(seen["new client: task"], "no task"), victim)
		assert.Check(q, cmp.Equal(seen["a new task"], "at once"), "%s: the container can be started again", victim)
		socket := map[unix.Signal]string{unix.SIGKILL: "there", unix.SIGTERM: "gone"}[victim.Signal]
		assert.Check(q, cmp.Equal(seen["shim's socket"], socket), "%s: the shim removes its socket if it is asked to end", victim)
	}

	q.Step("look at the tasks that ran: their processes are killed, an exit with 137 is published, and no event of the exec")
	for _, victim := range ofRunning {
		seen := observed[victim]
		assert.Check(q, cmp.Equal(seen["exec"], "dead"), "%s: the exec, in the namespace of a pid 1 that was killed", victim)
		assert.Check(q, cmp.DeepEqual(victim.Events(), []string{"exit init 137", "delete 137"}), victim)
		for _, wait := range []struct {
			process string
			*failure.PendingWait
		}{{failure.Init, victim.TaskWait}, {failure.Exec, victim.ExecWait}} {
			assert.Check(q, wait.Err() != nil,
				"%s: the old client's Wait for %s returned %s, and no error", victim, wait.process, wait.Result())
			q.Fact(victim.String()+": error of the old Wait for "+wait.process, lab.Chance(fmt.Sprint(wait.Err())))
		}
	}

	q.Step("look at the tasks that had stopped: their exit is published once more")
	for _, victim := range ofStopped {
		events := victim.Events()
		assert.Assert(q, cmp.DeepEqual(events, []string{"exit init 7", "exit init " + published, "delete " + published}), victim)
		q.Fact(victim.String()+": exit events before and after", events[:2])
		q.Fact(victim.String()+": delete event", events[2])
	}

	q.Control("end a new task and delete it: its shim ends by itself, publishes one exit and one delete, and leaves no socket")
	restarted := ofRunning[0]
	next, err := restarted.Task()
	assert.NilError(q, err)
	shim := proc.Snapshot(q, proc.Snapshot(q, proc.PID(next.Pid())).Parent)
	assert.Check(q, file.Exists(restarted.Socket) && proc.Listens(q, shim, restarted.Socket),
		"the new shim has not replaced the socket that the killed shim had left")
	before := len(restarted.Events())
	q.LogCommand("kill -KILL %d   # the new program of %s", next.Pid(), restarted.ID)
	assert.NilError(q, unix.Kill(int(next.Pid()), unix.SIGKILL))
	proc.WaitFor(q, d.TaskStopped(restarted.ID))
	// The shim publishes on a connection of its own: containerd may know of the exit before a client has received the event.
	restarted.WaitForEventAfter(before, "exit init")
	d.DeleteTask(restarted.ID)
	proc.WaitFor(q, proc.Dead(shim.Identity))
	stream.TakeEvents()
	events := restarted.Events()[before:]
	assert.Check(q, cmp.Equal(events[0], "exit init 137"), "all events that were received: %q", events)
	assert.Check(q, len(events) == 1 || len(events) == 2 && events[1] == "delete 137",
		"all events that were received: %q", events)
	q.Fact("events of a task that is deleted", lab.Chance(fmt.Sprint(events))) // the delete may be lost with the shim
	assert.Check(q, !file.Exists(restarted.Socket), "the socket is still there: %s", restarted.Socket)
	q.Fact("shim's socket after the task is deleted", failure.ThereOrGone(file.Exists(restarted.Socket)))

	q.Answer("containerd kills and removes what is left of the task, and publishes an exit and a delete. The container stays, " +
		"and a new task of it can be started at once.")
}
