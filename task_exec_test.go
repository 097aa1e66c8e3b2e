//go:build linux && vmlab

package cdblab

import (
	"slices"
	"testing"

	"cdblab/helpers/check"

	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/poll"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// An exec goes into the task's namespaces and cgroup, as a child of the shim. Orphans go to the container's pid 1; where
// the container has no pid namespace of its own, they go to the shim.
//
// The kernel gives an orphan to a subreaper among its ancestors only within its pid namespace, and else to that namespace's
// pid 1, which is seldom prepared for it: a program that never waits for children keeps zombies. When pid 1 dies the
// kernel kills all that is left in the pid namespace, execs as well. Where there is no such namespace nobody would: so
// the shim has runc kill all that is in the cgroup.
//
// Hint: field 4 of /proc/PID/stat, from outside; leave an orphan with `ctr tasks exec … sh -c 'sleep 302 &'`.
// Spec: https://github.com/containerd/containerd/blob/main/core/runtime/v2/README.md
// Kernel: https://man7.org/linux/man-pages/man7/pid_namespaces.7.html, "Adoption of orphaned children"
func TestTask_WhereDoesAnExecGoAndWhereDoOrphansGo(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Where does an exec go, and where do orphans go?")
	w := wrapRunc(q)
	d := ctrd.Shared(q)
	id, open := q.ID(ctrd.ID), q.ID(ctrd.ID+"-open")
	ref := d.PullImage()
	d.CreateContainer(ref, id, "sleep", "300")
	task := ctrd.StartTaskAndWait(q, d, id)
	shim := task.Parent

	q.Step("an exec: the same namespaces and cgroup, a pid of its own, and the shim's child")
	// In the background: ctr waits for it, and ends with its exit code.
	ctr := q.StartBackground("ctr", "-n", d.Namespace, "tasks", "exec", "--fifo-dir", d.FifoDir, "--exec-id", "long", id, "sleep", "301")
	exec := sleeping(q, d, id, "301")
	proc.WaitFor(q, isChildOf(exec.Identity, shim)) // and not runc's any more
	assert.Check(q, cmp.DeepEqual(exec.NS, task.NS))
	assert.Check(q, cmp.DeepEqual(exec.Cgroups, task.Cgroups))
	assert.Check(q, cmp.DeepEqual(membersOf(q, d, id), check.Sorted(int(task.PID), int(exec.PID))), "members of the cgroup")
	assert.Check(q, cmp.Equal(proc.InnerPID(q, task.PID), 1))
	assert.Check(q, proc.InnerPID(q, exec.PID) > 1, "the exec is pid 1 of a pid namespace")
	q.Fact("namespaces in common", exec.SharedNamespaces(task.Identity))
	q.Fact("parent of both", shim)
	q.Fact("pids in the namespace", []int{1, proc.InnerPID(q, exec.PID)})

	q.Step("an exit code of its own, which ctr hands on; the task runs on")
	nine := d.TryCtr("tasks", "exec", "--fifo-dir", d.FifoDir, "--exec-id", "nine", id, "sh", "-c", "exit 9")
	assert.Check(q, cmp.Equal(nine.Code, 9), "%s", nine)
	assert.Check(q, proc.Snapshot(q, task.PID).Same(task.Identity))
	q.Fact("exit code", nine.Code)

	q.Step("an exec leaves an orphan: it goes to the container's pid 1, and not to the shim")
	leaveOrphans(q, d, id, "302")
	orphan := sleeping(q, d, id, "302")
	assert.Check(q, cmp.Equal(orphan.Parent, task.PID), "the parent of the orphan; the shim is %d", shim)
	assert.Check(q, cmp.DeepEqual(orphan.NS, task.NS))
	q.Fact("the orphan's parent", orphan.Parent)
	q.Fact("the container's pid 1", task.PID)

	q.Step("it ends: pid 1 is a sleep, and does not ask what became of its children")
	q.KillProcess(orphan)
	proc.WaitFor(q, proc.Dead(orphan.Identity))
	zombie := proc.Stat(q, orphan.PID)
	assert.Check(q, cmp.Equal(zombie.State, "Z"), "the orphan's state after its end")
	assert.Check(q, cmp.Equal(zombie.PPID, int(task.PID)), "the parent of the zombie")
	q.Fact("the orphan's state after its end", zombie.State)

	q.Step("pid 1 dies: so do the exec and the zombie, by the kernel; and the exec has an exit status all the same")
	q.KillProcess(task)
	proc.WaitFor(q, proc.Dead(exec.Identity))
	proc.WaitFor(q, proc.Reaped(orphan.Identity))
	code := ctr.ExitCode()
	assert.Check(q, cmp.Equal(code, 128+int(unix.SIGKILL)), "exit code of ctr tasks exec: %s", ctr.Stderr.String())
	proc.WaitFor(q, d.Stopped(id))
	q.Fact("exit code of the exec", code)

	q.Control("the same without a pid namespace of its own: the orphans go to the shim, which is a subreaper")
	d.CreateByClient(ctrd.Extras{
		BinaryName: w.path, Spec: []oci.SpecOpts{oci.WithHostNamespace(specs.PIDNamespace)},
	}, ref, open, "sleep", "300")
	ordinary := ctrd.StartTaskAndWait(q, d, open)
	assert.Check(q, cmp.Equal(ordinary.NS["pid"], proc.Self(q).NS["pid"]))
	assert.Check(q, ordinary.Parent != shim)
	leaveOrphans(q, d, open, "303", "304")
	first, second := sleeping(q, d, open, "303"), sleeping(q, d, open, "304")
	for _, o := range []proc.Process{first, second} {
		assert.Check(q, cmp.Equal(o.Parent, ordinary.Parent), "the parent of %v; the task's process is %d", o.Args, ordinary.PID)
	}
	assert.Check(q, proc.OrphanReaper(q) != ordinary.Parent)
	q.Fact("the orphans' parent", first.Parent)
	q.Fact("the shim", ordinary.Parent)

	q.Step("it ends: the shim does ask, and no zombie stays")
	q.KillProcess(first)
	proc.WaitFor(q, proc.Reaped(first.Identity))
	assert.Check(q, proc.Alive(second.PID))
	q.Fact("the orphan after its end", "reaped")

	q.Step("the task's process dies: the shim has runc kill what is left in the cgroup")
	before := len(w.calls(q))
	q.KillProcess(ordinary)
	proc.WaitFor(q, proc.Dead(second.Identity))
	proc.WaitFor(q, d.Stopped(open))
	made := w.calls(q)[before:]
	assert.Check(q, cmp.DeepEqual(runcCalls(made), []string{"kill"}), "what the shim called")
	for _, c := range made {
		assert.Check(q, cmp.Equal(c.parent, ordinary.Parent), "who called runc %s", c.operation())
		assert.Check(q, cmp.Contains(c.args, "--all"))
		q.Fact("the shim calls runc", c)
	}
	assert.Check(q, cmp.Len(membersOf(q, d, open), 0), "left in the cgroup")

	q.Answer("An exec into the task's room, under the shim. Orphans to the container's pid 1, or, without one, to the shim.")
}

// membersOf lists the processes in a task's cgroup.
func membersOf(q *lab.Q, d *ctrd.Daemon, id string) []proc.PID {
	q.Helper()
	return cgroup.Of(q, "/"+d.Namespace+"/"+id).Procs()
}

// leaveOrphans executes a shell in the container, which leaves sleeps behind and ends. They hold none of ctr's FIFOs, so
// that ctr ends with the shell.
func leaveOrphans(q *lab.Q, d *ctrd.Daemon, id string, seconds ...string) {
	q.Helper()
	script := ""
	for _, s := range seconds {
		script += "sleep " + s + " < /dev/null > /dev/null 2>&1 & "
	}
	d.Ctr("tasks", "exec", "--fifo-dir", d.FifoDir, "--exec-id", "shell", id, "sh", "-c", script)
}

// sleeping waits for a sleep of so many seconds in a task's cgroup.
func sleeping(q *lab.Q, d *ctrd.Daemon, id, seconds string) proc.Process {
	q.Helper()
	var found proc.Process
	proc.WaitFor(q, func(poll.LogT) poll.Result {
		members := membersOf(q, d, id)
		for _, pid := range members {
			if p, err := proc.Read(pid); err == nil && slices.Equal(p.Args, []string{"sleep", seconds}) {
				found = p
				return poll.Success()
			}
		}
		return poll.Continue("no sleep %s among %v", seconds, members)
	})
	return found
}

// isChildOf is a poll check: the process is the child of another one.
func isChildOf(id proc.Identity, parent proc.PID) poll.Check {
	return func(poll.LogT) poll.Result {
		p, err := proc.Read(id.PID)
		if err != nil {
			return poll.Error(err)
		}
		if p.Parent != parent {
			return poll.Continue("process %d (%s) is a child of %d, not yet of %d", id.PID, p.Comm, p.Parent, parent)
		}
		return poll.Success()
	}
}
