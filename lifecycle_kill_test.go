//go:build linux && vmlab

package cdblab

import (
	"fmt"
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

// It sends one signal to one process, and what comes of it is the kernel's business.
//
// A program with handlers sees exactly the signals that were sent, in order. The first process of a pid namespace is
// special: a signal for which it has no handler is dropped, so TERM does nothing to a `sleep` that is pid 1, while KILL
// from outside of the namespace cannot be dropped. Many a container stops only after its grace period for that reason.
//
// Hint: SigCgt, SigIgn and ShdPnd in /proc/PID/status; who is pid 1?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/runtime.md#kill
// Kernel: https://man7.org/linux/man-pages/man7/pid_namespaces.7.html, "The namespace init process"
func TestLifecycle_WhatDoesKillDo(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does kill do?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "300")

	q.Step("a program that writes down the signals that it receives")
	received := b.Rootfs("heard")
	listener := runc.Variant(q, b, "listener", bundle.WritableRootfs,
		bundle.Args("sh", "-c", `for s in HUP USR1 USR2 WINCH; do trap "echo $s >> /heard" $s; done
trap "echo TERM >> /heard; exit 7" TERM
echo ready > /heard; while :; do sleep 300 & wait $!; done`))
	p := listener.CreateAndStart()
	proc.WaitFor(q, file.HasContent(received, "ready"))
	caught := proc.Bits(q, p.PID, "SigCgt")
	q.Fact("SigCgt", caught)
	expected := []string{"ready"}
	for _, s := range []struct {
		typed    string
		signal   unix.Signal
		received string
	}{
		{"USR1", unix.SIGUSR1, "USR1"},
		{"SIGHUP", unix.SIGHUP, "HUP"},
		{"12", unix.SIGUSR2, "USR2"}, // on amd64 and arm64
		{"winch", unix.SIGWINCH, "WINCH"},
		{"TERM", unix.SIGTERM, "TERM"},
	} {
		assert.Check(q, caught.Signal(s.signal), "the program has no handler for %s", s.typed)
		listener.Kill(s.typed)
		expected = append(expected, s.received)
		// Exactly those that were sent so far: the file is compared whole.
		proc.WaitFor(q, file.HasContent(received, strings.Join(expected, "\n")))
	}
	q.Fact("signals that the program received", expected[1:])
	q.Clause("Kill: This operation MUST send the specified signal to the container process.", lab.Met)

	q.Step("its handler of TERM ended it, and a stopped container cannot be killed")
	proc.WaitFor(q, proc.Dead(p.Identity))
	assert.Equal(q, listener.State().Status, specs.StateStopped)
	refused := listener.Try("kill", "KILL")
	assert.Check(q, refused.Code != 0, "kill of a stopped container succeeds:\n%s", refused)
	assert.Check(q, cmp.Equal(listener.State().Status, specs.StateStopped))
	q.Fact("kill of a stopped container: error", runc.LastLogMessage(refused))
	q.Clause("Kill: Attempting to send a signal to a container that is neither created nor running MUST "+
		"have no effect on the container and MUST generate an error.", lab.Met)
	listener.Delete()

	q.Step("TERM to a pid 1 that has no handler: sent, and dropped")
	sleeper := runc.Variant(q, b, "sleeper")
	sleepAsPID1 := sleeper.CreateAndStart()
	assert.Check(q, !proc.Bits(q, sleepAsPID1.PID, "SigCgt").Signal(unix.SIGTERM), "sleep has a handler for TERM")
	assert.Check(q, !proc.Bits(q, sleepAsPID1.PID, "SigIgn").Signal(unix.SIGTERM), "sleep ignores TERM by itself")
	assert.Check(q, cmp.Equal(proc.InnerPID(q, sleepAsPID1.PID), 1))
	sleeper.Kill("TERM")
	assert.Check(q, !proc.Bits(q, sleepAsPID1.PID, "ShdPnd").Signal(unix.SIGTERM), "TERM is pending: it was not dropped")
	assert.Check(q, cmp.DeepEqual(proc.Snapshot(q, sleepAsPID1.PID).Identity, sleepAsPID1.Identity))
	assert.Check(q, cmp.Equal(sleeper.State().Status, specs.StateRunning))
	q.Fact("after TERM, pid 1 is", sleeper.State().Status)

	q.Step("KILL from outside of its pid namespace is not dropped")
	sleeper.KillAndDelete(sleepAsPID1)
	q.Fact("after KILL", "dead")

	q.Control("the same sleep, not as pid 1: without a pid namespace of its own, TERM ends it")
	ordinary := runc.Variant(q, b, "ordinary", bundle.WithoutNamespace(specs.PIDNamespace))
	sleepOnHost := ordinary.CreateAndStart()
	assert.Check(q, proc.InnerPID(q, sleepOnHost.PID) != 1)
	ordinary.Kill("TERM")
	proc.WaitFor(q, proc.Dead(sleepOnHost.Identity))
	assert.Check(q, cmp.Equal(ordinary.State().Status, specs.StateStopped))
	q.Fact("after TERM, the sleep that is not pid 1 is", ordinary.State().Status)

	q.Step("KILL in a container without a pid namespace of its own: it ends all processes of the container's cgroup")
	// In a pid namespace of its own the kernel does that when pid 1 dies. Here the runtime has to.
	owner := runc.Variant(q, b, "owner")
	pidNamespace := owner.CreateAndStart()
	for name, edit := range map[string]func(*specs.Spec){
		"shares the host's":         bundle.WithoutNamespace(specs.PIDNamespace),
		"joins that of another one": bundle.NamespacePath(specs.PIDNamespace, fmt.Sprintf("/proc/%d/ns/pid", pidNamespace.PID)),
	} {
		c := runc.Variant(q, b, strings.ReplaceAll(strings.ReplaceAll(name, "'", ""), " ", "-"), edit,
			bundle.Args("sh", "-c", "sleep 301 & exec sleep 302"))
		first := c.CreateAndStart()
		group := cgroup.Of(q, c.Bundle.Spec.Linux.CgroupsPath)
		proc.WaitFor(q, group.HasProcesses(2))
		child := proc.Snapshot(q, proc.FirstExcept(first.PID, group.Procs()))
		c.Kill("KILL")
		proc.WaitFor(q, proc.Dead(first.Identity))
		proc.WaitFor(q, proc.Dead(child.Identity))
		c.Delete()
		q.Fact("a container that "+name+" pid namespace: processes after KILL", 0)
	}

	q.Control("in a created container `runc init` is pid 1, but it has a handler, as any Go program: TERM ends it")
	created := runc.Variant(q, b, "created")
	created.Create()
	init := created.Process()
	assert.Check(q, proc.Bits(q, init.PID, "SigCgt").Signal(unix.SIGTERM), "runc init has no handler for TERM")
	created.Kill("TERM")
	proc.WaitFor(q, proc.Dead(init.Identity))
	q.Fact("a created container after TERM", created.State().Status)

	q.Step("kill without an id")
	withoutID := q.Exec("runc", "--root", created.Root, "kill")
	assert.Check(q, withoutID.Code != 0, "kill without an id succeeds:\n%s", withoutID)
	q.Clause("Kill: This operation MUST generate an error if it is not provided the container ID.", lab.Met)

	q.Answer("It sends that one signal to the container's first process; pid 1 without a handler receives nothing except KILL.")
}
