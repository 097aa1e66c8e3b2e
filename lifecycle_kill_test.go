//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/bundle"
	"cdblab/helpers/cgroup"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// Kill sends one signal to the first process of the container, and the kernel does the rest. `runc kill` does not wait for the effect.
//
// A program with handlers receives the signal. A standard signal that is already pending is not counted twice; a real-time signal is
// queued (signal(7)). The first process of a pid namespace (pid 1) is special: the kernel drops a signal for which it has no handler. So
// TERM does nothing to a `sleep` that is pid 1. Many a container stops only after its grace period for that reason. KILL and STOP from
// outside of the namespace are not dropped. When pid 1 ends, the kernel ends the other processes of its pid namespace. In a container
// without a pid namespace of its own, they would live on. So runc sends KILL to each process of the cgroup (since 1.2.0).
//
// Hint: SigCgt, SigIgn and ShdPnd in /proc/PID/status. Which process is pid 1 of the pid namespace?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/runtime.md#kill
// Kernel: https://man7.org/linux/man-pages/man7/pid_namespaces.7.html, "The namespace init process"
func TestLifecycle_WhatDoesKillDo(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does kill do?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "3600")

	q.Step("send signals to a program with handlers, which writes down the signals that it receives")
	listener := startListener(q, b)
	q.Fact("SigCgt", listener.caught)
	listener.killAndReceive("USR1", "USR1", unix.SIGUSR1)
	listener.killAndReceive("SIGHUP", "HUP", unix.SIGHUP)
	listener.killAndReceive("12", "USR2", unix.SIGUSR2) // on amd64 and arm64
	listener.killAndReceive("winch", "WINCH", unix.SIGWINCH)
	q.Fact("signals that the program received", listener.expected[1:])
	q.Clause("Kill: This operation MUST send the specified signal to the container process.", lab.Met)

	q.Step("send USR1 three times to the paused container: after resume, the program receives it once")
	whilePaused := listener.killWhilePaused(3, "USR1")
	listener.killAndReceive("WINCH", "WINCH", unix.SIGWINCH) // and no second USR1 before it
	q.Fact("signals received of USR1, USR1, USR1, WINCH", listener.expected[5:])

	q.Step("send TERM: the handler ends the program. runc refuses a signal to the stopped container")
	listener.killAndReceive("TERM", "TERM", unix.SIGTERM)
	proc.WaitFor(q, proc.Dead(listener.process.Identity))
	assert.Equal(q, listener.State().Status, specs.StateStopped)
	refused := listener.Try("kill", "KILL")
	assert.Check(q, refused.Code != 0, "kill of a stopped container succeeds:\n%s", refused)
	assert.Check(q, cmp.Equal(listener.State().Status, specs.StateStopped))
	q.Fact("kill of a stopped container: error", runc.LastLogMessage(refused))
	q.Clause("Kill: Attempting to send a signal to a container that is neither created nor running MUST "+
		"have no effect on the container and MUST generate an error.",
		lab.DeviatesUnless(whilePaused.Code != 0,
			"a signal to a stopped container is refused, but a paused container gets it and handles it after resume"))
	listener.Delete()

	q.Step("send TERM to a pid 1 that has no handler: the kernel drops it")
	sleeper := runc.Variant(q, b, "sleeper")
	sleepAsPID1 := sleeper.CreateAndStart()
	assertHasNoHandler(q, sleepAsPID1)
	sleeper.Kill("TERM")
	assert.Check(q, !proc.Bits(q, sleepAsPID1.PID, "ShdPnd").Signal(unix.SIGTERM), "TERM is pending: it was not dropped")
	assert.Check(q, cmp.DeepEqual(proc.Snapshot(q, sleepAsPID1.PID).Identity, sleepAsPID1.Identity))
	afterTERM := sleeper.State().Status
	assert.Check(q, cmp.Equal(afterTERM, specs.StateRunning))
	q.Fact("pid 1 without a handler, after TERM", afterTERM)

	q.Step("send STOP and KILL to the same process, from outside of its pid namespace: the kernel does not drop them")
	sleeper.Kill("STOP")
	proc.WaitFor(q, proc.IsInState(sleepAsPID1.PID, "T"))
	q.Fact("pid 1 without a handler, after STOP: state in stat", proc.Snapshot(q, sleepAsPID1.PID).State)
	sleeper.Kill("CONT")
	proc.WaitFor(q, proc.IsInState(sleepAsPID1.PID, "S"))
	sleeper.Kill("KILL")
	proc.WaitFor(q, proc.Dead(sleepAsPID1.Identity))
	afterKILL := sleeper.State().Status
	assert.Check(q, cmp.Equal(afterKILL, specs.StateStopped), "status of the container whose pid 1 has no handler, after KILL")
	q.Fact("pid 1 without a handler, after KILL", afterKILL)
	sleeper.Delete()

	q.Control("the same sleep, not as pid 1: without a pid namespace of its own, TERM ends it")
	ordinary := runc.Variant(q, b, "ordinary", bundle.WithoutNamespace(specs.PIDNamespace))
	sleepOnHost := ordinary.CreateAndStart()
	assert.Check(q, proc.InnerPID(q, sleepOnHost.PID) != 1)
	ordinary.Kill("TERM")
	proc.WaitFor(q, proc.Dead(sleepOnHost.Identity))
	assert.Check(q, cmp.Equal(ordinary.State().Status, specs.StateStopped))
	q.Fact("after TERM, the sleep that is not pid 1 is", ordinary.State().Status)

	q.Control("in a created container `runc init` is pid 1, but it has a handler, as each Go program does: TERM ends it")
	created := runc.Variant(q, b, "created")
	killCreated(q, created)

	q.Step("send KILL to a container that has no pid namespace of its own: all processes of its cgroup end")
	// In a pid namespace of its own the kernel does that when pid 1 dies. Here the runtime has to.
	owner := runc.Variant(q, b, "owner")
	pidNamespace := owner.CreateAndStart()
	joins := bundle.NamespacePath(specs.PIDNamespace, fmt.Sprintf("/proc/%d/ns/pid", pidNamespace.PID))
	// For longer than the lab waits on a slow machine, which is up to ten minutes: so they do not end by themselves.
	twoProcesses := bundle.Args("sh", "-c", "sleep 3001 & exec sleep 3002")
	killBoth(q, runc.Variant(q, b, "hosts-pids", bundle.WithoutNamespace(specs.PIDNamespace), twoProcesses), "shares the host's")
	killBoth(q, runc.Variant(q, b, "joined-pids", joins, twoProcesses), "joins that of another one")
	q.Control("the container whose pid namespace was joined has another cgroup, and runs on")
	// A process that is killed looks alive for a moment. But no process can be made in a pid namespace whose pid 1 has been killed.
	stillWorks := owner.Exec("true")
	assert.Check(q, cmp.Equal(stillWorks.Code, 0), "KILL of one container has ended another one, whose pid namespace it joined:\n%s",
		stillWorks)
	assert.Check(q, cmp.Equal(owner.State().Status, specs.StateRunning))
	q.Fact("the container whose pid namespace was joined", owner.State().Status)

	q.Step("call kill without an id: it fails")
	withoutID := q.Exec("runc", "--root", created.Root, "kill")
	assert.Check(q, withoutID.Code != 0, "kill without an id succeeds:\n%s", withoutID)
	q.Clause("Kill: This operation MUST generate an error if it is not provided the container ID.", lab.Met)

	q.Answer("Kill sends one signal to the container's first process and does not wait for its effect. The kernel drops a signal for " +
		"which pid 1 has no handler, except KILL and STOP. KILL ends all processes of the container. " +
		"Before 1.2 runc needed `kill --all` for a container without a pid namespace of its own.")
}

// signalListener is a container whose program writes the signals that it receives into a file.
type signalListener struct {
	*runc.Container
	q        *lab.Q
	process  proc.Process
	caught   proc.Mask // signals for which the program has a handler
	file     string    // path of the file on the host
	expected []string  // lines that the file has to have
}

// startListener creates and starts the container, and waits until its program has its handlers.
func startListener(q *lab.Q, b *bundle.Bundle) *signalListener {
	q.Helper()
	c := runc.Variant(q, b, "listener", bundle.WritableRootfs,
		bundle.Args("sh", "-c", `for s in HUP USR1 USR2 WINCH; do trap "echo $s >> /heard" $s; done
trap "echo TERM >> /heard; exit 7" TERM
echo ready > /heard; while :; do sleep 3600 & wait $!; done`))
	l := &signalListener{Container: c, q: q, process: c.CreateAndStart(), file: b.Rootfs("heard"), expected: []string{"ready"}}
	l.waitForExpected()
	l.caught = proc.Bits(q, l.process.PID, "SigCgt")
	return l
}

// killAndReceive sends a signal by runc kill, as it is typed, and waits until the program has written the name of the signal.
func (l *signalListener) killAndReceive(typed, name string, signal unix.Signal) {
	l.q.Helper()
	assert.Check(l.q, l.caught.Signal(signal), "the program has no handler for %s", typed)
	l.Kill(typed)
	l.expected = append(l.expected, name)
	l.waitForExpected()
}

// killWhilePaused pauses the container, sends it the same signal several times, and resumes it. It returns the result of the last kill. If
// kill succeeds, the program has to receive the signal exactly once.
func (l *signalListener) killWhilePaused(times int, signal string) (last lab.Result) {
	l.q.Helper()
	l.Pause()
	for range times {
		last = l.Try("kill", signal)
	}
	l.Must("resume")
	if last.Code == 0 {
		l.expected = append(l.expected, signal)
	}
	l.waitForExpected()
	return last
}

// waitForExpected waits until the program has received exactly the expected signals: the file is compared whole.
func (l *signalListener) waitForExpected() {
	l.q.Helper()
	proc.WaitFor(l.q, file.HasContent(l.file, strings.Join(l.expected, "\n")))
}

// assertHasNoHandler asserts that a program which is pid 1 of its namespace neither handles TERM nor ignores it.
func assertHasNoHandler(q *lab.Q, p proc.Process) {
	q.Helper()
	assert.Check(q, !proc.Bits(q, p.PID, "SigCgt").Signal(unix.SIGTERM), "sleep has a handler for TERM")
	assert.Check(q, !proc.Bits(q, p.PID, "SigIgn").Signal(unix.SIGTERM), "sleep ignores TERM by itself")
	assert.Check(q, cmp.Equal(proc.InnerPID(q, p.PID), 1))
}

// killCreated creates a container, and ends its `runc init` by TERM, for which `runc init` has a handler.
func killCreated(q *lab.Q, c *runc.Container) {
	q.Helper()
	c.Create()
	init := c.Process()
	assert.Check(q, proc.Bits(q, init.PID, "SigCgt").Signal(unix.SIGTERM), "runc init has no handler for TERM")
	c.Kill("TERM")
	proc.WaitFor(q, proc.Dead(init.Identity))
	afterTERM := c.State().Status
	assert.Check(q, cmp.Equal(afterTERM, specs.StateStopped), "status of a created container after TERM")
	q.Fact("a created container after TERM", afterTERM)
}

// killBoth sends KILL to a container of two processes, and asserts that both end.
func killBoth(q *lab.Q, c *runc.Container, namespace string) {
	first := c.CreateAndStart()
	group := cgroup.Of(q, c.Bundle.Spec.Linux.CgroupsPath)
	proc.WaitFor(q, group.HasProcesses(2))
	child := proc.Snapshot(q, proc.FirstExcept(first.PID, group.Procs()))
	c.Kill("KILL")
	proc.WaitFor(q, proc.Dead(first.Identity))
	// runc ends the other processes since 1.2.0. The option --all, by which the caller had to ask for that, is obsolete since then.
	if endsAll := !runc.IsRunc(q) || runc.Knows(q, "(obsoleted, do not use)"); !endsAll {
		assert.Check(q, proc.Alive(child.PID), "kill without --all has ended the second process as well")
		q.Fact("a container that "+namespace+" pid namespace: kill without --all", "ends only its first process")
		q.Must("runc", "--root", c.Root, "kill", "--all", c.ID, "KILL")
	}
	proc.WaitFor(q, proc.Dead(child.Identity))
	c.Delete()
	q.Fact("a container that "+namespace+" pid namespace: processes alive after KILL",
		slices.DeleteFunc([]proc.PID{first.PID, child.PID}, func(pid proc.PID) bool { return !proc.Alive(pid) }))
}
