//go:build linux && vmlab

package cdblab

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/poll"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/check"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// An exec goes into the task's namespaces and cgroup, as a child of the shim. Orphans go to the container's pid 1; where
// the container has no pid namespace of its own, they go to the shim.
//
// The kernel gives an orphan to a subreaper among its ancestors only within its pid namespace, and else to that namespace's
// pid 1, which is seldom prepared for it: a program that never waits for children keeps zombies. When pid 1 dies the
// kernel kills all that is left in the pid namespace, execs as well. Where there is no such namespace the kernel kills
// nothing: so the shim has runc kill all that is in the cgroup.
//
// `ctr tasks kill --all` does not reach execs and orphans, though its help says so. The shim passes --all on to `runc kill`, which
// ignores it since 1.2.0: each signal goes to the container's first process. Only KILL goes to all, with and without --all, where the
// container has no pid namespace of its own.
//
// Hint: field 4 of /proc/PID/stat, from outside; leave an orphan with `ctr tasks exec … sh -c 'sleep 3602 &'`.
// Spec: https://github.com/containerd/containerd/blob/main/docs/runtime-v2.md#containerd-shim-runc-v2-as-sub-reaper
// Kernel: https://man7.org/linux/man-pages/man7/pid_namespaces.7.html, "Adoption of orphaned children"
func TestTask_WhereDoesAnExecGoAndWhereDoOrphansGo(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Where does an exec go, and where do orphans go?")
	defer q.Recover()
	recorder := runc.WriteRecorder(q)
	d := ctrd.Shared(q)
	id, idWithoutPIDNS := q.ID(ctrd.ContainerID), q.ID(ctrd.ContainerID+"-open")
	ref := d.PullImage()
	d.CreateContainer(ref, id, "sleep", "3600")
	task := d.StartTaskAndWait(id)
	shim := task.Parent

	q.Step("start an exec: it has the task's namespaces and cgroup and a pid of its own, and is a child of the shim")
	// In the background: ctr waits for it, and ends with its exit code.
	ctr := q.StartBackground("ctr", "-n", d.Namespace, "tasks", "exec", "--fifo-dir", d.FifoDir, "--exec-id", "long", id, "sleep", "3601")
	exec := waitForSleep(q, d, id, "3601")
	proc.WaitFor(q, proc.IsChildOf(exec.Identity, shim)) // and not of runc any more
	recordExecMembership(q, d, id, task, exec)

	q.Step("run an exec that ends with 9: ctr ends with 9, too, and the task runs on")
	exit9 := d.TryCtr("tasks", "exec", "--fifo-dir", d.FifoDir, "--exec-id", "nine", id, "sh", "-c", "exit 9")
	assert.Check(q, cmp.Equal(exit9.Code, 9), "%s", exit9)
	assert.Check(q, proc.Snapshot(q, task.PID).Same(task.Identity))
	q.Fact("exit code", exit9.Code)

	q.Step("run an exec that leaves an orphan: it goes to the container's pid 1, and not to the shim")
	leaveOrphans(q, d, id, "3602")
	orphan := waitForSleep(q, d, id, "3602")
	assert.Check(q, cmp.Equal(orphan.Parent, task.PID), "the parent of the orphan; the shim is %d", shim)
	assert.Check(q, cmp.DeepEqual(orphan.NS, task.NS))
	q.Fact("the orphan's parent", orphan.Parent)
	q.Fact("the container's pid 1", task.PID)

	q.Step("kill the orphan: it stays as a zombie, because pid 1 is a sleep, which does not wait for its children")
	q.KillProcess(orphan)
	proc.WaitFor(q, proc.Dead(orphan.Identity))
	zombie := proc.Stat(q, orphan.PID)
	assert.Check(q, cmp.Equal(zombie.State, "Z"), "the orphan's state after its end")
	assert.Check(q, cmp.Equal(zombie.PPID, int(task.PID)), "the parent of the zombie")
	q.Fact("the orphan's state after its end", zombie.State)

	q.Step("kill pid 1: the kernel ends the exec and the zombie with it, and the exec still has an exit status")
	q.KillProcess(task)
	proc.WaitFor(q, proc.Dead(exec.Identity))
	proc.WaitFor(q, proc.Reaped(orphan.Identity))
	code := ctr.ExitCode()
	assert.Check(q, cmp.Equal(code, 128+int(unix.SIGKILL)), "exit code of ctr tasks exec: %s", ctr.Stderr())
	proc.WaitFor(q, d.TaskStopped(id))
	q.Fact("exit code of the exec", code)

	q.Control("do the same without a pid namespace: the orphans go to the shim, which is a subreaper")
	d.CreateContainerByClient(ctrd.ClientOptions{
		BinaryName: recorder.Path, Spec: []oci.SpecOpts{oci.WithHostNamespace(specs.PIDNamespace)},
	}, ref, idWithoutPIDNS, "sleep", "3600")
	taskWithoutPIDNS := d.StartTaskAndWait(idWithoutPIDNS)
	assert.Check(q, cmp.Equal(taskWithoutPIDNS.NS["pid"], proc.Self(q).NS["pid"]))
	assert.Check(q, taskWithoutPIDNS.Parent != shim)
	leaveOrphans(q, d, idWithoutPIDNS, "3603", "3604")
	first, second := waitForSleep(q, d, idWithoutPIDNS, "3603"), waitForSleep(q, d, idWithoutPIDNS, "3604")
	for _, o := range []proc.Process{first, second} {
		assert.Check(q, cmp.Equal(o.Parent, taskWithoutPIDNS.Parent), "the parent of %v; the task's process is %d", o.Args, taskWithoutPIDNS.PID)
	}
	assert.Check(q, proc.OrphanReaper(q) != taskWithoutPIDNS.Parent)
	q.Fact("the orphans' parent", first.Parent)
	q.Fact("the shim", taskWithoutPIDNS.Parent)

	q.Step("send STOP by `ctr tasks kill`, without and with --all: the shim passes --all on, but runc signals the first process only")
	processes := []proc.Process{taskWithoutPIDNS, first, second}
	for _, options := range [][]string{nil, {"--all"}} {
		before := len(recorder.Calls(q))
		d.Ctr(slices.Concat([]string{"tasks", "kill"}, options, []string{"-s", "SIGSTOP", idWithoutPIDNS})...)
		recordStopSignal(q, recorder.Calls(q)[before:], options, processes)
		d.Ctr(slices.Concat([]string{"tasks", "kill"}, options, []string{"-s", "SIGCONT", idWithoutPIDNS})...)
		proc.WaitFor(q, proc.IsInState(taskWithoutPIDNS.PID, "S"))
	}

	q.Step("kill an orphan of the shim: the shim waits for its children, and no zombie stays")
	q.KillProcess(first)
	proc.WaitFor(q, proc.Reaped(first.Identity))
	assert.Check(q, proc.Alive(second.PID))
	children := proc.Children(q, first.Parent)
	assert.Check(q, cmp.DeepEqual(children, []proc.PID{taskWithoutPIDNS.PID, second.PID}), "children of the shim after the orphan's end")
	q.Fact("children of the shim after the orphan's end", children)

	q.Step("kill the task's process: the shim has runc kill what is left in the cgroup")
	before := len(recorder.Calls(q))
	q.KillProcess(taskWithoutPIDNS)
	proc.WaitFor(q, proc.Dead(second.Identity))
	proc.WaitFor(q, d.TaskStopped(idWithoutPIDNS))
	calls := recorder.Calls(q)[before:]
	assert.Assert(q, cmp.DeepEqual(runc.Commands(calls), []string{"kill"}), "commands with which the shim called runc")
	assert.Check(q, cmp.Equal(calls[0].Parent, taskWithoutPIDNS.Parent), "the caller of runc kill")
	assert.Check(q, cmp.Contains(calls[0].Args, "--all"))
	q.Fact("the shim calls runc", calls[0])
	assert.Check(q, cmp.Len(membersOf(q, d, idWithoutPIDNS), 0), "processes left in the cgroup")

	q.Answer("An exec goes into the task's namespaces and cgroup, as a child of the shim. " +
		"Orphans go to the container's pid 1, or, without one, to the shim.")
}

// recordExecMembership asserts that an exec is in the namespaces and in the cgroup of its task, with a pid of its own.
func recordExecMembership(q *lab.Q, d *ctrd.Daemon, id string, task, exec proc.Process) {
	shim := task.Parent
	assert.Check(q, cmp.DeepEqual(exec.NS, task.NS))
	assert.Check(q, cmp.DeepEqual(exec.Cgroups, task.Cgroups))
	assert.Check(q, cmp.DeepEqual(membersOf(q, d, id), check.Sorted(task.PID, exec.PID)), "members of the cgroup")
	assert.Check(q, cmp.Equal(proc.InnerPID(q, task.PID), 1))
	assert.Check(q, proc.InnerPID(q, exec.PID) > 1, "the exec is pid 1 of a pid namespace")
	q.Fact("namespaces in common", exec.SharedNamespaces(task.Identity))
	assert.Check(q, cmp.DeepEqual(proc.Snapshot(q, shim).NS, proc.Self(q).NS), "the shim's namespaces, against the host's")
	q.Fact("shim, on the host: namespaces", proc.Snapshot(q, shim).NS)
	q.Fact("task: namespaces", task.NS)
	q.Fact("exec: namespaces", exec.NS)
	q.Fact("parent of both", shim)
	// Which pid it gets depends on the number of threads that the runtime has just had in the namespace.
	inner := lab.VolatileNames("inner pid", strconv.Itoa(proc.InnerPID(q, exec.PID)))
	q.Fact("pids in the namespace", []any{proc.InnerPID(q, task.PID), inner})
}

// recordStopSignal asserts that the shim has called runc kill once and passed --all on, and that the first of the processes, which is the
// task's own, has received STOP by it.
func recordStopSignal(q *lab.Q, calls []runc.Call, options []string, processes []proc.Process) {
	// runc before 1.2 signals all processes of the cgroup with --all. The option is obsolete since then.
	all := runc.IsRunc(q) && q.UnderTest("runc").Precedes("1.2.0-rc.1") && len(options) > 0
	assert.Assert(q, cmp.DeepEqual(runc.Commands(calls), []string{"kill"}), "commands with which the shim called runc")
	assert.Check(q, cmp.Equal(slices.Contains(calls[0].Args, "--all"), len(options) > 0), "the shim's call: %v", calls[0].Args)
	received := []bool{}
	for i, p := range processes {
		if i == 0 || all {
			proc.WaitFor(q, proc.IsInState(p.PID, "T"))
		}
		// A process that has got the signal is stopped, or the signal is still pending.
		pending := proc.Bits(q, p.PID, "ShdPnd").Signal(unix.SIGSTOP)
		received = append(received, pending || proc.Stat(q, p.PID).State == "T")
	}
	assert.Check(q, cmp.DeepEqual(received, []bool{true, all, all}), "processes that received STOP by ctr tasks kill %v", options)
	command := strings.TrimSpace("ctr tasks kill " + strings.Join(options, " "))
	q.Fact(command+": the shim calls runc", calls[0])
	q.Fact(command+": first process and orphans received STOP", received)
}

// membersOf returns the processes of a task's cgroup.
func membersOf(q *lab.Q, d *ctrd.Daemon, id string) []proc.PID {
	return cgroup.Of(q, "/"+d.Namespace+"/"+id).Procs()
}

// waitForSleep waits for a sleep of so many seconds in a task's cgroup.
func waitForSleep(q *lab.Q, d *ctrd.Daemon, id, seconds string) (found proc.Process) {
	q.Helper()
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
