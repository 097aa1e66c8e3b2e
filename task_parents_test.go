//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"slices"
	"testing"

	"github.com/prometheus/procfs"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/bundle"
	"cdblab/helpers/check"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// The shim is the parent of the task's process and of every exec; pid 1, or the nearest subreaper, is the shim's.
// containerd is nobody's.
//
// Each of them was made by a process that has ended since: the shim by a helper of its own, which containerd had started,
// and the task's process by runc. The kernel gives the orphan to the nearest ancestor that has asked for orphans, with
// PR_SET_CHILD_SUBREAPER, else to pid 1. The shim has asked, so that it is told of its task's death; containerd has not.
// What is not rewritten is inherited: the session of the shim is containerd's, and its oom_score_adj, one above
// containerd's, is handed down to the task.
//
// Hint: fields 4 (parent), 5 (process group) and 6 (session) of /proc/PID/stat, from the task's process upwards.
// Spec: https://github.com/containerd/containerd/blob/main/core/runtime/v2/README.md#start
// Kernel: https://man7.org/linux/man-pages/man2/PR_SET_CHILD_SUBREAPER.2const.html, https://man7.org/linux/man-pages/man5/proc_pid_oom_score_adj.5.html
func TestTask_WhoIsWhoseParent(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Who is whose parent?")
	d := ctrd.Shared(q)
	id := q.ID(ctrd.ID)
	ref := d.PullImage()
	d.CreateContainer(ref, id, "sleep", "300")
	d.StartTask(id)
	init := d.TaskPID(id)
	proc.WaitFor(q, proc.Runs(init, "sleep"))
	shims := d.Shims()
	assert.Assert(q, cmp.Len(shims, 1), "shims of the task")
	shim := proc.Snapshot(q, shims[0])

	q.Step("upwards from the task: its process, the shim, who takes in orphans, …, pid 1")
	up := ancestry(q, init)
	adopter := proc.OrphanReaper(q)
	assert.Assert(q, len(up) >= 3, "from the task's process up: %v", up)
	assert.Check(q, cmp.DeepEqual(up[:3], []proc.PID{init, shim.PID, adopter}))
	assert.Check(q, cmp.Equal(up[len(up)-1], 1), "the top")
	q.Fact("the task's process", up[0])
	q.Fact("its parent, the shim", up[1])
	q.Fact("the shim's, who takes in orphans", up[2])

	q.Step("containerd is not among them, and no child of its is anything of the task's")
	assert.Check(q, !slices.Contains(up, d.PID()), "containerd (%d) is among %v", d.PID(), up)
	ours := proc.Find(q, func(pid proc.PID, _ string, args []string) bool {
		p, err := procfs.NewProc(int(pid))
		if err != nil {
			return false
		}
		now, err := p.Stat()
		return err == nil && proc.PID(now.PPID) == d.PID() && (pid == init || slices.Contains(args, d.Namespace))
	})
	assert.Check(q, cmp.Len(ours, 0), "children of containerd that are the task's")
	q.Fact("containerd's children of the task", len(ours))

	q.Step("an exec's parent is the shim, too")
	d.Ctr("tasks", "exec", "-d", "--fifo-dir", d.FifoDir, "--exec-id", "second", id, "sleep", "301")
	children := proc.Children(q, shim.PID)
	assert.Assert(q, cmp.Len(children, 2), "children of the shim")
	second := proc.FirstExcept(init, children)
	proc.WaitFor(q, proc.Runs(second, "sleep"))
	assert.Check(q, cmp.DeepEqual(proc.Snapshot(q, second).Args, []string{"sleep", "301"}))
	assert.Check(q, cmp.DeepEqual(ancestry(q, second)[1:], up[1:]), "upwards from the exec")
	q.Fact("the shim's children", children)

	q.Step("what is inherited tells where they come from: the session, and oom_score_adj")
	daemon := proc.Stat(q, d.PID())
	assert.Check(q, cmp.Equal(proc.Stat(q, shim.PID).Session, daemon.Session), "the shim's session, against containerd's")
	assert.Check(q, cmp.Equal(proc.PID(proc.Stat(q, shim.PID).PGRP), shim.PID), "the shim's process group")
	assert.Check(q, cmp.Equal(proc.PID(proc.Stat(q, init).Session), init), "the session of the task's process")
	q.Fact("the shim's session", "containerd's")
	score := check.Int(q, proc.File(q, d.PID(), "oom_score_adj"))
	const most = 1000
	for who, pid := range map[string]proc.PID{"the shim": shim.PID, "the task": init, "the exec": second} {
		assert.Check(q, cmp.Equal(proc.File(q, pid, "oom_score_adj"), fmt.Sprint(min(score+1, most))), "oom_score_adj of %s; containerd's is %d", who, score)
	}
	q.Fact("oom_score_adj: containerd", score)
	q.Fact("oom_score_adj: shim, task and exec", min(score+1, most))

	q.Control("runc called by who is no subreaper: the process goes past its caller, to the shim's own parent")
	c := runc.New(q, bundle.Busybox(q, "sleep", "300"))
	byHand := c.CreateAndStart()
	assert.Check(q, cmp.Equal(byHand.Parent, adopter), "the parent of a process that runc made alone")
	assert.Check(q, cmp.Equal(proc.File(q, byHand.PID, "oom_score_adj"), proc.File(q, proc.Self(q).PID, "oom_score_adj")))
	q.Fact("parent without a shim", byHand.Parent)
	c.KillAndDelete(byHand)

	q.TearDown("the parent is who is told of the death: the shim has the exec's status, and the task's", func() {
		exec := proc.Snapshot(q, second)
		task := proc.Snapshot(q, init)
		q.KillProcess(exec)
		proc.WaitFor(q, proc.Reaped(exec.Identity))
		assert.Check(q, cmp.DeepEqual(proc.Children(q, shim.PID), []proc.PID{init}))
		d.Ctr("tasks", "kill", "-s", "SIGKILL", id)
		proc.WaitFor(q, proc.Reaped(task.Identity))
		proc.WaitFor(q, d.Stopped(id))
		assert.Check(q, proc.Alive(shim.PID), "the shim has ended with its child")
		q.Fact("reaped by the shim", "both, the shim lives on")
	})

	q.Answer("init and execs → shim → pid 1 or the nearest subreaper. containerd is nobody's parent.")
}

// ancestry is a process, its parent, and so on, up to pid 1.
func ancestry(q *lab.Q, pid proc.PID) []proc.PID {
	q.Helper()
	out := []proc.PID{pid}
	for pid > 1 {
		pid = proc.PID(proc.Stat(q, pid).PPID)
		out = append(out, pid)
	}
	return out
}
