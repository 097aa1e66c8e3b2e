//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"os"
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

// The shim is the parent of the task's process and of every exec. The shim's own parent is pid 1, or a process between that adopts
// orphans. containerd is the parent of none of them.
//
//	pid 1
//	├── containerd
//	└── shim
//	    ├── the task's process
//	    └── exec
//
// Each of them was made by a process that has ended since. containerd started the shim's program, which started the shim and ended. The
// shim started runc, which made the task's process and ended. The kernel gives an orphan to its nearest ancestor that has asked for
// orphans with PR_SET_CHILD_SUBREAPER (a subreaper), else to pid 1. The shim has asked, so it learns how its task ends. containerd has
// not, so it is never the parent of a shim. The shim would outlive containerd in any case: the kernel ends a process with its parent
// only if the process has asked for that with PR_SET_PDEATHSIG.
//
// The shim still shows where it comes from: its session is containerd's. Its oom_score_adj is one above containerd's: if both use the
// same memory, the kernel's OOM killer chooses the shim. The task inherits that.
//
// Hint: fields 4 (parent), 5 (process group) and 6 (session) of /proc/PID/stat, from the task's process upwards.
// Spec: https://github.com/containerd/containerd/blob/main/docs/runtime-v2.md#flow
// Kernel: https://man7.org/linux/man-pages/man2/PR_SET_CHILD_SUBREAPER.2const.html, https://man7.org/linux/man-pages/man5/proc_pid_oom_score_adj.5.html
func TestTask_WhoIsWhoseParent(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Who is whose parent?")
	defer q.Recover()
	d := ctrd.Shared(q)
	id := q.ID(ctrd.ContainerID)
	ref := d.PullImage()
	d.CreateContainer(ref, id, "sleep", "3600")
	d.StartTask(id)
	init := d.TaskPID(id)
	proc.WaitFor(q, proc.Runs(init, "sleep"))
	shims := d.Shims()
	assert.Assert(q, cmp.Len(shims, 1), "shims of the task")
	shim := proc.Snapshot(q, shims[0])

	q.Step("go upwards from the task: its process, the shim, the process that adopts orphans, …, pid 1")
	ancestors := proc.Ancestry(q, init)
	adopter := proc.OrphanReaper(q)
	assert.Assert(q, len(ancestors) >= 3, "from the task's process up: %v", ancestors)
	assert.Check(q, cmp.DeepEqual(ancestors[:3], []proc.PID{init, shim.PID, adopter}))
	assert.Check(q, cmp.Equal(ancestors[len(ancestors)-1], proc.PID(1)), "the last ancestor")
	q.Fact("the task's process", ancestors[0])
	q.Fact("its parent, the shim", ancestors[1])
	q.Fact("the shim's parent, which adopts orphans", ancestors[2])

	q.Step("look for containerd: it is not among them, and no child of containerd belongs to the task")
	assert.Check(q, !slices.Contains(ancestors, d.PID()), "containerd (%d) is among %v", d.PID(), ancestors)
	ofTask := childrenOfTask(q, d, init)
	assert.Check(q, cmp.Len(ofTask, 0), "children of containerd that belong to the task")
	q.Fact("containerd's children of the task", len(ofTask))

	q.Step("start an exec: its parent is the shim, too")
	d.ExecDetached(id, "second", "sleep", "3601")
	children := proc.Children(q, shim.PID)
	assert.Assert(q, cmp.Len(children, 2), "children of the shim")
	second := proc.FirstExcept(init, children)
	proc.WaitFor(q, proc.Runs(second, "sleep"))
	assert.Check(q, cmp.DeepEqual(proc.Snapshot(q, second).Args, []string{"sleep", "3601"}))
	assert.Check(q, cmp.DeepEqual(proc.Ancestry(q, second)[1:], ancestors[1:]), "upwards from the exec")
	q.Fact("the shim's children", children)
	names := map[string]proc.PID{
		"task": init, "exec": second, "shim": shim.PID, "containerd": d.PID(), "test": proc.PID(os.Getpid()),
		"adopter of orphans": adopter,
	}
	parents := proc.Parents(q, names)
	assert.Check(q, cmp.Equal(parents["containerd"], "test"), "the parent of containerd: %v", parents)
	delete(parents, "test") // which process has started it depends on how the lab is run
	q.Fact("the task runs: parents", parents)

	q.Step("compare sessions and oom_score_adj: the shim has containerd's session, and the task has the shim's oom_score_adj")
	assert.Check(q, cmp.Equal(proc.PID(proc.Stat(q, d.PID()).Session), d.PID()), "the session of containerd, which the lab started in one of its own")
	daemon, ofShim := proc.Stat(q, d.PID()), proc.Stat(q, shim.PID)
	assert.Check(q, cmp.Equal(ofShim.Session, daemon.Session), "the shim's session, against containerd's")
	assert.Check(q, cmp.Equal(proc.PID(ofShim.PGRP), shim.PID), "the shim's process group")
	assert.Check(q, cmp.Equal(proc.PID(proc.Stat(q, init).Session), init), "the session of the task's process")
	q.Fact("the shim's session is containerd's", ofShim.Session == daemon.Session)
	score := check.Int(q, proc.File(q, d.PID(), "oom_score_adj"))
	const maxScore = 1000
	for name, pid := range map[string]proc.PID{"the shim": shim.PID, "the task": init, "the exec": second} {
		assert.Check(q, cmp.Equal(proc.File(q, pid, "oom_score_adj"), fmt.Sprint(min(score+1, maxScore))),
			"oom_score_adj of %s; containerd's is %d", name, score)
	}
	q.Fact("oom_score_adj: containerd", score)
	q.Fact("oom_score_adj: shim, task and exec", min(score+1, maxScore))

	q.Control("call runc by hand: its caller is no subreaper, so the container's process goes to the process that is also the shim's parent")
	c := runc.New(q, bundle.Busybox(q, "sleep", "3600"))
	withoutShim := c.CreateAndStart()
	assert.Check(q, cmp.Equal(withoutShim.Parent, adopter), "the parent of a process that runc made without a shim")
	assert.Check(q, cmp.Equal(proc.File(q, withoutShim.PID, "oom_score_adj"), proc.File(q, proc.Self(q).PID, "oom_score_adj")))
	q.Fact("parent without a shim", withoutShim.Parent)
	parents = proc.Parents(q, map[string]proc.PID{"container's process": withoutShim.PID, "adopter of orphans": adopter})
	q.Fact("without a shim: parents", parents)
	c.KillAndDelete(withoutShim)

	q.TearDown("kill exec and task: the shim waits for both, and lives on", func() {
		exec := proc.Snapshot(q, second)
		task := proc.Snapshot(q, init)
		q.KillProcess(exec)
		proc.WaitFor(q, proc.Reaped(exec.Identity))
		assert.Check(q, cmp.DeepEqual(proc.Children(q, shim.PID), []proc.PID{init}))
		d.Ctr("tasks", "kill", "-s", "SIGKILL", id)
		proc.WaitFor(q, proc.Reaped(task.Identity))
		proc.WaitFor(q, d.TaskStopped(id))
		assert.Check(q, shim.Alive(), "the shim has ended with its child")
		left := proc.Children(q, shim.PID)
		assert.Check(q, cmp.Len(left, 0), "children of the shim, after exec and task have died")
		q.Fact("task and exec have died: children of the shim", left)
		parents := proc.Parents(q, names)
		delete(parents, "test")
		assert.Check(q, cmp.DeepEqual(parents, map[string]string{"shim": "adopter of orphans", "containerd": "test"}))
		q.Fact("task and exec have died: parents", parents)
	})

	q.Answer("The shim is the parent of init and of the execs, and pid 1 or the nearest subreaper is the parent of the shim. " +
		"containerd is the parent of none of them.")
}

// childrenOfTask returns the children of containerd that belong to the task: its process, and processes whose arguments name the
// containerd namespace.
func childrenOfTask(q *lab.Q, d *ctrd.Daemon, init proc.PID) []proc.PID {
	return proc.Find(q, func(pid proc.PID, _ string, args []string) bool {
		p, err := procfs.NewProc(int(pid))
		if err != nil {
			return false
		}
		now, err := p.Stat()
		return err == nil && proc.PID(now.PPID) == d.PID() && (pid == init || slices.Contains(args, d.Namespace))
	})
}
