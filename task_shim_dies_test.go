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

// When the shim dies, its task ends: containerd kills the task's processes and removes what is left of it. The container stays, which
// for containerd is a record, and a new task of it can be started.
//
// Without its parent the container's process would run on, and the kernel would report its end to the process that adopts orphans,
// which tells containerd nothing. So containerd, which holds a connection to the shim, cleans up as soon as that connection breaks: it
// runs the shim's program once more, as `shim delete`, and that runs `runc delete --force`. containerd publishes an exit with 137,
// which is 128 and KILL's number, and a delete. It publishes nothing of execs. If the process had ended before, the shim has saved its
// status in the bundle (exit.json; the shims of containerd 2.3.4 and before save nothing). containerd then publishes that exit a second
// time.
//
// The cleanup has a timeout, by default 5 s (io.containerd.timeout.shim.cleanup). Where that is too short, an exit with 255 is
// published, and the process may be alive. That is not shown here: the lab's containerd has a longer timeout.
//
// A shim that ends in order, as after TERM, removes its socket. After KILL the socket's file stays, and the next shim of this task replaces
// it. Since 2.3, the file may also stay after TERM, if socket_dir is not /run/containerd/s, as in this lab. The shim finds such a directory
// by a link in its bundle, and containerd may remove the bundle before the shim has ended.
//
// Hint: kill -KILL the parent of the container's process; `ctr events` in a second terminal.
// Spec: https://github.com/containerd/containerd/blob/main/docs/runtime-v2.md#delete
func TestTask_WhatHappensWhenTheShimDies(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What happens when the shim dies?")
	defer q.Recover()
	d := ctrd.Start(q)
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
	killTogether(q, d.PID(), victims)
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
	// Without a saved status, containerd publishes 137 also for a process that had ended with 7.
	table, published := "death-of-the-shim.golden", "7"
	if !ctrd.SavesExit(q) {
		table, published = "death-of-the-shim-unsaved.golden", "137"
	}
	observed := failure.Tabulate(q, d, table, victims)
	for _, victim := range victims {
		assertOnlyRecordLeft(q, victim, observed[victim])
	}

	q.Step("look at the tasks that ran: their processes are killed, an exit with 137 is published, and no event of the exec")
	for _, victim := range ofRunning {
		seen := observed[victim]
		assert.Check(q, cmp.Equal(seen["exec"], "dead"), "%s: the exec, in the namespace of a pid 1 that was killed", victim)
		assert.Check(q, cmp.DeepEqual(victim.Events(), []string{"exit init 137", "delete 137"}), victim)
		recordFailedWaits(q, victim)
	}

	q.Step("look at the tasks that had stopped: their exit is published once more")
	for _, victim := range ofStopped {
		events := victim.Events()
		assert.Assert(q, cmp.DeepEqual(events, []string{"exit init 7", "exit init " + published, "delete " + published}), victim)
		q.Fact(victim.String()+": exit events before and after", events[:2])
		q.Fact(victim.String()+": delete event", events[2])
	}

	q.Control("end the process of a new task, and not its shim: the true status is published, once")
	restarted := ofRunning[0]
	next, err := restarted.Task()
	assert.NilError(q, err)
	program := proc.Snapshot(q, proc.PID(next.Pid()))
	shim := proc.Snapshot(q, program.Parent)
	assert.Check(q, file.Exists(restarted.Socket) && proc.Listens(q, shim, restarted.Socket),
		"the new shim has not replaced the socket that the killed shim had left")
	before := len(restarted.Events())
	proc.WaitFor(q, proc.Catches(proc.PID(next.Pid()), "sh", unix.SIGTERM))
	q.LogCommand("kill -TERM %d   # the new program of %s", next.Pid(), restarted.ID)
	assert.NilError(q, proc.Signal(program.Identity, unix.SIGTERM))
	proc.WaitFor(q, d.TaskStopped(restarted.ID))
	// The shim publishes on a connection of its own: containerd may know of the exit before a client has received the event.
	restarted.WaitForEventAfter(before, "exit init")
	d.DeleteTask(restarted.ID)
	proc.WaitFor(q, proc.Dead(shim.Identity))
	stream.TakeEvents()
	events := restarted.Events()[before:]
	assert.Check(q, cmp.Equal(events[0], "exit init 7"), "all events that were received: %q", events)
	// The shim publishes the delete, and ends. Where it ends first, the event is lost.
	assert.Check(q, len(events) == 1 || len(events) == 2 && events[1] == "delete 7", "all events that were received: %q", events)
	q.Fact("with a shim that lives: exit event", events[0])
	q.Fact("with a shim that lives: all events", lab.Chance(fmt.Sprint(events)))
	assert.Check(q, !proc.HasListener(q, restarted.Socket), "after the task is deleted, a process listens on %s", restarted.Socket)
	q.Fact("after the task is deleted, a process listens on its shim's socket", proc.HasListener(q, restarted.Socket))

	q.Answer("containerd kills and removes what is left of the task, and publishes an exit and a delete. The container stays, " +
		"and a new task of it can be started.")
}

// killTogether kills the victims' shims while containerd is stopped. A shim finds its socket by a link in its bundle, which containerd
// removes. So containerd may go on only when all shims have ended.
func killTogether(q *lab.Q, daemon proc.PID, victims []*failure.Victim) {
	q.TB.Cleanup(func() { _ = unix.Kill(int(daemon), unix.SIGCONT) })
	q.LogCommand("kill -STOP %d   # containerd", daemon)
	assert.NilError(q, unix.Kill(int(daemon), unix.SIGSTOP))
	proc.WaitFor(q, proc.IsInState(daemon, "T"))
	for _, victim := range victims {
		victim.Kill()
	}
	q.LogCommand("kill -CONT %d   # containerd", daemon)
	assert.NilError(q, unix.Kill(int(daemon), unix.SIGCONT))
}

// assertOnlyRecordLeft asserts that of a task whose shim has died only the container's record remains, and that a new task can be made.
func assertOnlyRecordLeft(q *lab.Q, victim *failure.Victim, seen failure.Observation) {
	for _, process := range []string{"init", "shim"} {
		assert.Check(q, cmp.Equal(seen[process], "dead"), "%s: the %s", victim, process)
	}
	for _, thing := range []string{"bundle", "rootfs mount", "cgroup", "runtime's state"} {
		assert.Check(q, cmp.Equal(seen[thing], "gone"), "%s: the %s", victim, thing)
	}
	assert.Check(q, cmp.Equal(seen["container"], "there"), "%s: the container's record", victim)
	assert.Check(q, cmp.Equal(seen["new client: task"], "no task"), victim)
	assert.Check(q, cmp.Equal(seen["a new task"], "possible"), "%s: the container can be started again", victim)
	socket := map[unix.Signal]string{unix.SIGKILL: "there", unix.SIGTERM: "gone"}[victim.Signal]
	assert.Check(q, cmp.Equal(seen["shim's socket"], socket), "%s: the shim removes its socket if it is asked to end", victim)
}

// recordFailedWaits asserts that the calls of Wait that a client had made before the shim died ended with an error.
func recordFailedWaits(q *lab.Q, victim *failure.Victim) {
	for _, wait := range []struct {
		process string
		*failure.PendingWait
	}{{failure.Init, victim.TaskWait}, {failure.Exec, victim.ExecWait}} {
		assert.Check(q, wait.Err() != nil,
			"%s: the old client's Wait for %s returned %s, and no error", victim, wait.process, wait.Result())
		q.Fact(victim.String()+": error of the old Wait for "+wait.process, lab.Chance(fmt.Sprint(wait.Err())))
	}
}
