//go:build linux && vmlab

package cdblab

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/poll"

	"cdblab/helpers/ctrd"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// The shim, its parent, takes the exit status and keeps it; nothing else goes away before somebody deletes the task.
//
// If it is the task's own process, pid 1 of its pid namespace, the kernel kills all others in there with it, and the
// task is stopped: shim, bundle, mount and cgroup stay, and so does the exit status, for whoever asks, however late. If
// it is an exec, the task runs on. The status is what the kernel told the parent: 128 and the signal's number, or what
// a handler has made of it. Whoever waited, or listens, is told at once.
//
// Hint: kill -KILL the pid that `ctr tasks ls` shows, and ask `ctr tasks ls` again.
// Spec: https://github.com/containerd/containerd/blob/main/api/services/tasks/v1/tasks.proto
// Kernel: https://man7.org/linux/man-pages/man7/pid_namespaces.7.html, "The namespace init process"
func TestTask_WhatHappensWhenItsProcessDies(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What happens to the task when its process dies?")
	d := ctrd.Shared(q)
	ref := d.PullImage()
	ear := d.Listen()

	q.Step("four running tasks, each with an exec; two of them have a handler for TERM, which ends them with 7")
	var dead []*mortal
	for _, x := range []death{{"init", unix.SIGKILL, "running"}, {"init", unix.SIGTERM, "running"}} {
		dead = append(dead, newMortal(q, d, ref, ear, x))
	}
	for _, x := range []death{{"exec", unix.SIGKILL, "running"}, {"exec", unix.SIGTERM, "running"}} {
		dead = append(dead, newMortal(q, d, ref, ear, x, "sleep", "3000"))
	}
	ear.TakeEvents()

	q.Control("TERM to a pid 1 that has no handler for it: dropped, and nobody is told")
	deaf := dead[2]
	pid := int(deaf.init.PID)
	assert.Check(q, !proc.Bits(q, proc.PID(pid), "SigCgt").Signal(unix.SIGTERM), "sleep has a handler for TERM")
	q.LogCommand("kill -TERM %d   # the program of %s", pid, deaf.id)
	assert.NilError(q, unix.Kill(pid, unix.SIGTERM))
	assert.Check(q, !proc.Bits(q, proc.PID(pid), "ShdPnd").Signal(unix.SIGTERM), "TERM is pending: it was not dropped")
	assert.Check(q, alive(deaf.init.Identity))
	task, _ := deaf.sees()
	assert.Check(q, cmp.Equal(task, "RUNNING"))
	assert.Check(q, cmp.Len(ear.TakeEvents(), 0), "events")
	q.Fact("after TERM to a pid 1 without a handler", task)

	q.Step("each is killed by its pid; whoever waited or listened is told")
	for _, m := range dead {
		m.die()
	}
	for _, m := range dead {
		m.settle()
		proc.WaitFor(q, m.execWait.over)
		m.waitForEvent("exit exec " + m.execWait.said())
		if m.who == "init" {
			proc.WaitFor(q, m.wait.over)
			m.waitForEvent("exit init " + m.wait.said())
		}
	}
	ear.TakeEvents()

	q.Step("the shim has taken the exit status: it is the kernel's, and in the bundle too, where the shim writes it down")
	for _, m := range dead[:2] {
		shim := proc.Snapshot(q, m.shim.PID)
		assert.Check(q, shim.Same(m.shim.Identity))
		assert.Check(q, !file.Exists(fmt.Sprintf("/proc/%d", m.init.PID)), "the shim has not collected the exit status of its child %d, a zombie", m.init.PID)
		assertWritten(q, m, m.wait.said())
	}

	q.Step("what remains")
	table := fill(q, d, "death-of-the-process.golden", dead)
	status := map[string]string{"init KILL": "137", "init TERM": "7", "exec KILL": "137", "exec TERM": "143"}
	for _, m := range dead {
		r := table[m.String()]
		want := status[m.who+" "+m.name()]
		assert.Check(q, cmp.Equal(r["shim"], "alive"), m)
		for _, thing := range []string{"bundle", "rootfs mount", "shim's socket", "cgroup", "runtime's state", "container"} {
			assert.Check(q, cmp.Equal(r[thing], "there"), "%s: the %s", m, thing)
		}
		assert.Check(q, cmp.Equal(r["exec"], "dead"), "%s: the exec", m)
		if m.who == "init" {
			assert.Check(q, cmp.Equal(r["init"], "dead"), m)
			assert.Check(q, cmp.Equal(r["new client: task"], "STOPPED "+want), m)
			assert.Check(q, cmp.Equal(r["new client: exec"], "STOPPED 137"), "%s: killed with its pid 1", m)
			assert.Check(q, cmp.Equal(r["old Wait: task"], want), m)
			assert.Check(q, cmp.Equal(r["event 1"], "exit exec 137"), "%s: pid 1 is the last of its namespace", m)
			assert.Check(q, cmp.Equal(r["event 2"], "exit init "+want), m)
			assert.Check(q, cmp.Equal(r["another exec"], "refused"), m)
			continue
		}
		assert.Check(q, cmp.Equal(r["init"], "alive"), m)
		assert.Check(q, cmp.Equal(r["new client: task"], "RUNNING"), m)
		assert.Check(q, cmp.Equal(r["new client: exec"], "STOPPED "+want), m)
		assert.Check(q, cmp.Equal(r["old Wait: exec"], want), m)
		assert.Check(q, cmp.Equal(r["old Wait: task"], "waiting"), m)
		assert.Check(q, cmp.Equal(r["event 1"], "exit exec "+want), m)
		assert.Check(q, cmp.Equal(r["event 2"], "-"), m)
		assert.Check(q, cmp.Equal(r["another exec"], "works"), m)
		// The task has been ended meanwhile, for a new one: only now does the old client's Wait return.
		proc.WaitFor(q, m.wait.over)
		assert.Check(q, cmp.Equal(m.wait.said(), "137"), m)
	}
	q.Answer("pid 1 takes all others with it, and the shim keeps its exit status until the task is deleted. An exec dies alone.")
}

// assertWritten asserts that the shim has written the exit status of the task's process into the bundle, as it does
// since containerd 2.
func assertWritten(q *lab.Q, m *mortal, status string) {
	q.Helper()
	path := filepath.Join(m.bundle, "exit.json")
	if !q.Pinned() && !file.Exists(path) {
		q.Fact(m.String()+": exit status in the bundle", "none")
		return
	}
	var written struct{ Pid, Status int }
	proc.WaitFor(q, func(poll.LogT) poll.Result {
		data, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(data, &written)
		}
		if err != nil {
			return poll.Continue("%s: %v", m, err)
		}
		return poll.Success()
	})
	assert.Check(q, cmp.Equal(written.Pid, int(m.init.PID)), "%s: exit.json", m)
	assert.Check(q, cmp.Equal(fmt.Sprint(written.Status), status), "%s: exit.json", m)
	q.Fact(m.String()+": exit status in the bundle", written.Status)
}
