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
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// Pause stops all processes of the cgroup: the kernel's freezer does it, without a signal, so no process is notified.
//
// A frozen process uses no processor time. It keeps its memory, its files and its pid, and goes on where it was when it is thawed.
// runc refuses an exec in a paused container. With --ignore-paused it tries, and the new process is frozen with the others until
// resume. SIGSTOP does something else: it stops one process, the kernel notifies the parent, and the runtime reports the container
// as running.
//
// Hint: cgroup.events (v2) or freezer.state (v1), the processor time and the state in /proc/PID/stat.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/runtime.md#state
// Kernel: https://docs.kernel.org/admin-guide/cgroup-v2.html, cgroup.freeze;
// https://docs.kernel.org/admin-guide/cgroup-v1/freezer-subsystem.html
func TestLifecycle_WhatDoesPauseStop(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does pause stop?")
	defer q.Recover()
	b := bundle.Busybox(q, "sh", "-c", "while :; do :; done")
	c := runc.Variant(q, b, "paused", bundle.Args("sh", "-c", "(while :; do :; done) & while :; do :; done"))
	twin := runc.Variant(q, b, "twin")
	p, twinProcess := c.CreateAndStart(), twin.CreateAndStart()
	pid, twinPID := p.PID, twinProcess.PID
	group, twinGroup := cgroup.Of(q, c.Bundle.Spec.Linux.CgroupsPath), cgroup.Of(q, twin.Bundle.Spec.Linux.CgroupsPath)
	proc.WaitFor(q, group.HasProcesses(2))
	processes := group.Procs()
	// All use processor time without end. A program has gone on when it has used this much more.
	const progress = 5 // ticks
	usedTicks := func() (used []uint64) {
		for _, pid := range processes {
			used = append(used, proc.UsedTicks(q, pid))
		}
		return used
	}

	q.Step("two containers use processor time. Pause one of them: both of its processes stop, and the other container goes on")
	c.Pause()
	assert.Check(q, group.Frozen(), "the freezer's state after pause")
	frozenAt, twinAt := usedTicks(), proc.UsedTicks(q, twinPID)
	proc.WaitFor(q, proc.HasUsed(twinPID, twinAt+progress))
	assert.Check(q, cmp.DeepEqual(usedTicks(), frozenAt), "processor time of each process of the paused container, in ticks")
	assert.Check(q, cmp.Equal(c.State().Status, specs.ContainerState("paused")))
	q.Fact("processes that used no processor time meanwhile", len(frozenAt))
	q.Fact("ticks that the other container used meanwhile", lab.Chance(fmt.Sprint(proc.UsedTicks(q, twinPID)-twinAt)))
	q.Fact("the freezer", map[string]bool{"frozen": group.Frozen()})
	q.Fact("paused container: state in stat", proc.Snapshot(q, pid).State)

	q.Step("the paused container keeps its process, its memory, its namespaces and its cgroup")
	assert.Check(q, cmp.DeepEqual(proc.Snapshot(q, pid).Identity, p.Identity))
	assert.Check(q, !proc.Bits(q, pid, "ShdPnd").Signal(unix.SIGSTOP), "pause sent a SIGSTOP")
	rss := proc.Status(q, pid, "VmRSS")
	q.Fact("resident memory, still", lab.Chance(rss))

	q.Step("runc refuses an exec. With --ignore-paused it tries, and has to wait: the new process is frozen, too")
	refused := c.Exec("true")
	assert.Check(q, refused.Code != 0, "exec in a paused container succeeds:\n%s", refused)
	q.Fact("exec in a paused container: error", runc.LastLogMessage(refused))
	var waiting *lab.Background
	// runc knows the flag since 1.1.0, another runtime need not know it.
	if strings.Contains(q.Must("runc", "exec", "--help").Stdout, "--ignore-paused") {
		waiting = q.StartBackground("runc", "--root", c.Root, "exec", "--ignore-paused", c.ID, "true")
		proc.WaitFor(q, group.HasMoreProcessesThan(len(processes)))
		assert.Check(q, !waiting.Ended(), "exec --ignore-paused has ended before resume: %s", waiting.Stderr())
		// The freezer of v1 reads FREEZING until the new process is frozen, so look at the others.
		assert.Check(q, cmp.DeepEqual(usedTicks(), frozenAt), "exec --ignore-paused has thawed the container: its processor time, in ticks")
		q.Fact("exec --ignore-paused: has ended before resume", waiting.Ended())
	}

	q.Step("resume: the processes go on where they were")
	c.Must("resume")
	assert.Check(q, !group.Frozen(), "the freezer's state after resume")
	for i, pid := range processes {
		proc.WaitFor(q, proc.HasUsed(pid, frozenAt[i]+progress))
	}
	if waiting != nil {
		code := waiting.ExitCode()
		assert.Check(q, cmp.Equal(code, 0), "exec --ignore-paused after resume: %s", waiting.Stderr())
		q.Fact("exec --ignore-paused: exit code after resume", code)
	}
	assert.Check(q, cmp.DeepEqual(proc.Snapshot(q, pid).Identity, p.Identity))
	assert.Check(q, cmp.Equal(c.State().Status, specs.StateRunning))
	assert.Check(q, cmp.Equal(c.Exec("true").Code, 0), "exec after resume")
	q.Fact("after resume", c.State().Status)

	q.Control("SIGSTOP stops the process of the other container, but without the freezer, and the runtime reports it as running")
	twin.Kill("STOP")
	proc.WaitFor(q, proc.IsInState(twinPID, "T"))
	stoppedAt := proc.UsedTicks(q, twinPID)
	proc.WaitFor(q, proc.HasUsed(pid, proc.UsedTicks(q, pid)+progress))
	assert.Check(q, cmp.Equal(proc.UsedTicks(q, twinPID), stoppedAt), "processor time of the stopped twin, in ticks")
	assert.Check(q, !twinGroup.Frozen(), "SIGSTOP froze the cgroup")
	assert.Check(q, cmp.Equal(twin.State().Status, specs.StateRunning))
	assert.Check(q, cmp.Equal(twin.Exec("true").Code, 0), "exec in a container whose pid 1 is stopped")
	q.Fact("twin after SIGSTOP: state in stat", proc.Snapshot(q, twinPID).State)
	q.Fact("twin after SIGSTOP: status", twin.State().Status)

	q.Answer("Pause stops all processes of the container's cgroup by the kernel's freezer. They are not notified and lose nothing, and " +
		"after resume they go on.")
}
