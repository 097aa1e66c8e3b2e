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
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// The task goes with it, and the container stays.
//
// Without its parent the container's process would run on, and nobody would know how it ends. So containerd, which
// holds a connection to the shim, kills what is left as soon as that connection breaks: it runs the shim's program once
// more, as `shim delete`, and that runs `runc delete --force`. It tells of an exit with 137, whatever the process might
// have ended with, unless the shim has written a status down before, and of a delete; the bundle is removed. Of execs
// nothing is told. What stays is the container: its record and its snapshot, of which a new task can be made at once.
//
// Clearing away has its time, 5 s (io.containerd.timeout.shim.cleanup): where that is too short, an exit with 255 is
// told, and the process may well be alive.
//
// A shim that is sent TERM takes its socket with it; after KILL the file stays, and the next shim of that name replaces
// it.
//
// Hint: kill -KILL the parent of the container's process; `ctr events` in a second terminal.
// Spec: https://github.com/containerd/containerd/blob/main/core/runtime/v2/README.md
func TestTask_WhatHappensWhenTheShimDies(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What happens when the shim dies?")
	d := ctrd.Shared(q)
	ref := d.PullImage()
	ear := d.Listen()

	q.Step("two running tasks, each with an exec, and two that have ended with 7: each has its shim")
	var dead []*mortal
	for _, x := range []death{
		{"shim", unix.SIGKILL, "running"}, {"shim", unix.SIGTERM, "running"}, {"shim", unix.SIGKILL, "stopped"}, {"shim", unix.SIGTERM, "stopped"},
	} {
		m := newMortal(q, d, ref, ear, x)
		assert.Check(q, proc.Listens(q, m.shim, m.socket), "the shim of %s does not listen on %s", m.id, m.socket)
		q.Cleanup(func() { _ = os.Remove(m.socket) }) // the lab's to remove, where a shim that was killed has left it
		dead = append(dead, m)
	}
	assert.Check(q, cmp.Len(d.Shims(), 4))
	ear.TakeEvents()

	q.Step("each shim is killed, by its pid; containerd sees to the rest")
	for _, m := range dead {
		m.die()
	}
	for _, m := range dead {
		m.settle()
		m.waitForEvent("delete ")
		proc.WaitFor(q, m.wait.over)
		if m.exec != nil {
			proc.WaitFor(q, m.execWait.over)
		}
	}
	ear.TakeEvents()

	q.Step("what remains")
	table := fill(q, d, "death-of-the-shim.golden", dead)
	for _, m := range dead {
		r := table[m.String()]
		for _, process := range []string{"init", "shim"} {
			assert.Check(q, cmp.Equal(r[process], "dead"), "%s: the %s", m, process)
		}
		for _, thing := range []string{"bundle", "rootfs mount", "cgroup", "runtime's state"} {
			assert.Check(q, cmp.Equal(r[thing], "gone"), "%s: the %s", m, thing)
		}
		assert.Check(q, cmp.Equal(r["container"], "there"), "%s: the container's record", m)
		assert.Check(q, cmp.Equal(r["new client: task"], "no task"), m)
		assert.Check(q, cmp.Equal(r["a new task"], "at once"), "%s: the container can be started again", m)
		socket := map[unix.Signal]string{unix.SIGKILL: "there", unix.SIGTERM: "gone"}[m.signal]
		assert.Check(q, cmp.Equal(r["shim's socket"], socket), "%s: the shim removes its socket if it is asked to end", m)
	}

	q.Step("a running task's: killed with what was left of it, and told as an exit with 137; of its exec nobody tells")
	for _, m := range dead[:2] {
		r := table[m.String()]
		assert.Check(q, cmp.Equal(r["exec"], "dead"), "%s: the exec, in the namespace of a pid 1 that was killed", m)
		assert.Check(q, cmp.DeepEqual(m.events(), []string{"exit init 137", "delete 137"}), m)
		for _, wait := range []*waiting{m.wait, m.execWait} {
			assert.Check(q, wait.failed() != nil, "%s: an old client's Wait returned %s, and no error", m, wait.said())
			q.Fact("an old client's Wait says", lab.Chance(fmt.Sprint(wait.failed())))
		}
	}

	q.Step("a stopped task's: its exit is told once more")
	for _, m := range dead[2:] {
		told := m.events()
		assert.Assert(q, cmp.Len(told, 3), m)
		assert.Check(q, cmp.Equal(told[0], "exit init 7"), m)
		assert.Check(q, cmp.Contains(told[1], "exit init"), m)
		if q.Pinned() { // an older shim writes no status into the bundle, and the second exit is told with 137
			assert.Check(q, cmp.DeepEqual(told[1:], []string{"exit init 7", "delete 7"}), m)
		}
		q.Fact("the exit, before and after", told[:2])
		q.Fact("and the delete", told[2])
	}

	q.Control("a shim that ends because its task is deleted tells one exit and one delete, and leaves no socket")
	m := dead[0]
	next, err := m.task()
	assert.NilError(q, err)
	shim := proc.Snapshot(q, proc.Snapshot(q, proc.PID(next.Pid())).Parent)
	assert.Check(q, file.Exists(m.socket) && proc.Listens(q, shim, m.socket), "the new shim has not replaced the socket that the old one had left")
	heard := len(m.events())
	q.LogCommand("kill -KILL %d   # the new program of %s", next.Pid(), m.id)
	assert.NilError(q, unix.Kill(int(next.Pid()), unix.SIGKILL))
	proc.WaitFor(q, d.TaskStopped(m.id))
	d.DeleteTask(m.id)
	proc.WaitFor(q, proc.Dead(shim.Identity))
	ear.TakeEvents()
	told := m.events()[heard:]
	assert.Check(q, cmp.Equal(told[0], "exit init 137"), "all that was told: %q", told)
	assert.Check(q, len(told) == 1 || len(told) == 2 && told[1] == "delete 137", "all that was told: %q", told)
	q.Fact("told of a task that is deleted", lab.Chance(fmt.Sprint(told))) // the delete may be lost with the shim
	assert.Check(q, !file.Exists(m.socket), "the socket is still there: %s", m.socket)
	q.Fact("its socket", thereOrGone(file.Exists(m.socket)))

	q.Answer("containerd kills and clears away what is left of the task, tells an exit and a delete, and the container stays.")
}
