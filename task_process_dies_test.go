//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"slices"
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

// The shim, its parent, takes the exit status and keeps it; nothing else goes away before a client deletes the task.
//
// If it is the task's own process, pid 1 of its pid namespace, the kernel kills all others in there with it, and the
// task is stopped: shim, bundle, mount and cgroup stay, and so does the exit status, for any client that asks, however
// late. If it is an exec, the task runs on. The status is what the kernel reported to the parent: 128 and the signal's
// number, or what a handler has made of it. A client that waits, or listens to events, receives it at once.
//
// Hint: kill -KILL the pid that `ctr tasks ls` shows, and ask `ctr tasks ls` again.
// Spec: https://github.com/containerd/containerd/blob/main/api/services/tasks/v1/tasks.proto
// Kernel: https://man7.org/linux/man-pages/man7/pid_namespaces.7.html, "The namespace init process"
func TestTask_WhatHappensWhenItsProcessDies(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What happens to the task when its process dies?")
	defer q.Recover()
	d := ctrd.Shared(q)
	ref := d.PullImage()
	stream := d.Listen()

	q.Step("start four tasks, each with an exec: two of them have a handler for TERM, which ends them with 7")
	signals := []unix.Signal{unix.SIGKILL, unix.SIGTERM}
	var ofInit, ofExec []*failure.Victim
	for _, signal := range signals {
		death := failure.Death{Killed: failure.Init, Signal: signal, When: failure.Running}
		ofInit = append(ofInit, failure.NewVictim(q, d, ref, stream, death))
	}
	for _, signal := range signals {
		death := failure.Death{Killed: failure.Exec, Signal: signal, When: failure.Running}
		ofExec = append(ofExec, failure.NewVictim(q, d, ref, stream, death, "sleep", "3000"))
	}
	victims := slices.Concat(ofInit, ofExec)
	stream.TakeEvents()
	ofInit[0].RecordParents("before")

	q.Control("send TERM to a pid 1 that has no handler for it: the kernel drops it, and no event is published")
	withoutHandler := ofExec[0]
	pid1 := withoutHandler.Init.PID
	assert.Check(q, !proc.Bits(q, pid1, "SigCgt").Signal(unix.SIGTERM), "sleep has a handler for TERM")
	q.LogCommand("kill -TERM %d   # the program of %s", pid1, withoutHandler.ID)
	assert.NilError(q, unix.Kill(int(pid1), unix.SIGTERM))
	assert.Check(q, !proc.Bits(q, pid1, "ShdPnd").Signal(unix.SIGTERM), "TERM is pending: it was not dropped")
	assert.Check(q, withoutHandler.Init.Alive(), "process %d is dead after a TERM for which it has no handler", pid1)
	task, _ := withoutHandler.Statuses()
	assert.Check(q, cmp.Equal(task, "RUNNING"))
	assert.Check(q, cmp.Len(stream.TakeEvents(), 0), "events")
	q.Fact("after TERM to a pid 1 without a handler", task)

	q.Step("kill each victim by its pid: the client's Wait returns, and an event is published")
	for _, victim := range victims {
		victim.Kill()
	}
	for _, victim := range victims {
		victim.WaitUntilReported()
		proc.WaitFor(q, victim.ExecWait.Returned())
		victim.WaitForEvent("exit exec " + victim.ExecWait.Result())
		if victim.Killed == failure.Init {
			proc.WaitFor(q, victim.TaskWait.Returned())
			victim.WaitForEvent("exit init " + victim.TaskWait.Result())
		}
	}
	stream.TakeEvents()

	q.Step("look for the exit status: the shim has taken it from the kernel, and saved it in the bundle if it saves any")
	for _, victim := range ofInit {
		shim := proc.Snapshot(q, victim.Shim.PID)
		assert.Check(q, shim.Same(victim.Shim.Identity), "%s: another process has the pid of the shim", victim)
		assert.Check(q, !file.Exists(fmt.Sprintf("/proc/%d", victim.Init.PID)),
			"the shim has not collected the exit status of its child %d, a zombie", victim.Init.PID)
		victim.AssertSavedExit(victim.TaskWait.Result())
	}

	q.Step("list what remains: everything except the processes")
	observed := failure.Tabulate(q, d, "death-of-the-process.golden", victims)
	status := map[string]string{"init KILL": "137", "init TERM": "7", "exec KILL": "137", "exec TERM": "143"}
	for _, victim := range victims {
		seen := observed[victim]
		want := status[victim.Killed+" "+victim.SignalName()]
		assert.Check(q, cmp.Equal(seen["shim"], "alive"), victim)
		for _, thing := range []string{"bundle", "rootfs mount", "shim's socket", "cgroup", "runtime's state", "container"} {
			assert.Check(q, cmp.Equal(seen[thing], "there"), "%s: the %s", victim, thing)
		}
		assert.Check(q, cmp.Equal(seen["exec"], "dead"), "%s: the exec", victim)
		if victim.Killed == failure.Init {
			assert.Check(q, cmp.Equal(seen["init"], "dead"), victim)
			assert.Check(q, cmp.Equal(seen["new client: task"], "STOPPED "+want), victim)
			assert.Check(q, cmp.Equal(seen["new client: exec"], "STOPPED 137"), "%s: killed with its pid 1", victim)
			assert.Check(q, cmp.Equal(seen["old Wait: task"], want), victim)
			assert.Check(q, cmp.Equal(seen["event 1"], "exit exec 137"), "%s: pid 1 is the last of its namespace", victim)
			assert.Check(q, cmp.Equal(seen["event 2"], "exit init "+want), victim)
			assert.Check(q, cmp.Equal(seen["another exec"], "refused"), victim)
			continue
		}
		assert.Check(q, cmp.Equal(seen["init"], "alive"), victim)
		assert.Check(q, cmp.Equal(seen["new client: task"], "RUNNING"), victim)
		assert.Check(q, cmp.Equal(seen["new client: exec"], "STOPPED "+want), victim)
		assert.Check(q, cmp.Equal(seen["old Wait: exec"], want), victim)
		assert.Check(q, cmp.Equal(seen["old Wait: task"], "waiting"), victim)
		assert.Check(q, cmp.Equal(seen["event 1"], "exit exec "+want), victim)
		assert.Check(q, cmp.Equal(seen["event 2"], "-"), victim)
		assert.Check(q, cmp.Equal(seen["another exec"], "works"), victim)
		// The task has been ended meanwhile, for a new one: only now does the old client's Wait return.
		proc.WaitFor(q, victim.TaskWait.Returned())
		assert.Check(q, cmp.Equal(victim.TaskWait.Result(), "137"), victim)
	}
	q.Answer("If the task's process dies, which is pid 1 of a pid namespace, the kernel kills all others with it. The task is " +
		"stopped then, and the shim keeps the exit status until it is deleted. An exec dies alone.")
}
