//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/bundle"
	"cdblab/helpers/cgroup"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// Pause stops all processes of the container's cgroup by the kernel's freezer. No process gets a signal.
//
// A frozen process uses no processor time. It keeps its pid and its open files, and goes on where it was when it is thawed.
// runc refuses an exec in a paused container. With --ignore-paused it tries, and the new process is frozen with the others until
// resume. SIGSTOP does something else: it stops one process, and the runtime reports the container as running.
//
// Hint: cgroup.events (cgroup v2) or freezer.state (v1), and the processor time in /proc/PID/stat.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/runtime.md#state
// Kernel: https://docs.kernel.org/admin-guide/cgroup-v2.html, cgroup.freeze;
// https://docs.kernel.org/admin-guide/cgroup-v1/freezer-subsystem.html
func TestLifecycle_WhatDoesPauseStop(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does pause stop?")
	defer q.Recover()
	// Two processes in each container.
	b := bundle.Busybox(q, "sh", "-c", "(while :; do :; done) & while :; do :; done")
	c, twin := runc.Variant(q, b, "paused"), runc.Variant(q, b, "twin")
	p, twinProcess := c.CreateAndStart(), twin.CreateAndStart()
	pid, twinPID := p.PID, twinProcess.PID
	group, twinGroup := cgroup.Of(q, c.Bundle.Spec.Linux.CgroupsPath), cgroup.Of(q, twin.Bundle.Spec.Linux.CgroupsPath)
	proc.WaitFor(q, group.HasProcesses(2))
	proc.WaitFor(q, twinGroup.HasProcesses(2))
	processes, twinChild := group.Procs(), proc.FirstExcept(twinPID, twinGroup.Procs())
	files := proc.Snapshot(q, pid).FDs
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
	assert.Assert(q, group.Frozen(), "the freezer's state after pause")
	for _, pid := range processes { // the freezer counts a process a moment before it leaves its processor
		proc.WaitFor(q, proc.LeftProcessor(pid))
	}
	frozenAt, twinAt := usedTicks(), proc.UsedTicks(q, twinPID)
	proc.WaitFor(q, proc.HasUsed(twinPID, twinAt+progress))
	assert.Check(q, cmp.DeepEqual(usedTicks(), frozenAt), "processor time of each process of the paused container, in ticks")
	assert.Check(q, cmp.Equal(c.State().Status, specs.ContainerState("paused")))
	q.Fact("processes that used no processor time meanwhile", len(frozenAt))
	q.Fact("ticks that the other container used meanwhile", lab.Chance(fmt.Sprint(proc.UsedTicks(q, twinPID)-twinAt)))
	q.Fact("the freezer", map[string]bool{"frozen": group.Frozen()})
	frozenState := proc.Snapshot(q, pid).State // D on cgroup v1, S on v2
	assert.Check(q, frozenState != "T" && frozenState != "Z", "state in stat of a frozen process: %s", frozenState)
	q.Fact("paused container: state in stat", frozenState)

	q.Step("the paused container keeps its process, its open files, its namespaces and its cgroup")
	paused := proc.Snapshot(q, pid)
	assert.Check(q, cmp.DeepEqual(paused.Identity, p.Identity))
	assert.Check(q, cmp.DeepEqual(paused.FDs, files), "the open files of the paused container's process")
	q.Fact("paused container: open files", len(paused.FDs))

	q.Step("runc refuses an exec. With --ignore-paused it tries, and has to wait: the new process is frozen, too")
	refused := c.Exec("true")
	assert.Check(q, refused.Code != 0, "exec in a paused container succeeds:\n%s", refused)
	q.Fact("exec in a paused container: error", runc.LastLogMessage(refused))
	var waiting *lab.Background
	// runc knows the flag since 1.1.0, another runtime need not know it.
	if strings.Contains(q.Must("runc", "exec", "--help").Stdout, "--ignore-paused") {
		waiting = q.StartBackground("runc", "--root", c.Root, "exec", "--ignore-paused", c.ID, "true")
		proc.WaitFor(q, group.HasMoreProcessesThan(len(processes)))
		// An exec that is not frozen ends in the time in which the other container uses this much processor time.
		proc.WaitFor(q, proc.HasUsed(twinPID, proc.UsedTicks(q, twinPID)+4*progress))
		assert.Check(q, !waiting.Ended(), "exec --ignore-paused has ended before resume: %s", waiting.Stderr())
		// The freezer of v1 reads FREEZING until the new process is frozen, so look at the others.
		assert.Check(q, cmp.DeepEqual(usedTicks(), frozenAt), "exec --ignore-paused has thawed the container: its processor time, in ticks")
		q.Fact("exec --ignore-paused: has ended before resume", waiting.Ended())
	}

	q.Step("resume: the processes go on where they were")
	c.Must("resume")
	assert.Check(q, group.Thawed(), "the freezer's state after resume")
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

	q.Control("SIGSTOP in place of the freezer: it stops one process of the other container, and the runtime reports that as running")
	twin.Kill("STOP")
	proc.WaitFor(q, proc.IsInState(twinPID, "T"))
	proc.WaitFor(q, proc.LeftProcessor(twinPID)) // it shows the state a moment before
	stoppedAt := proc.UsedTicks(q, twinPID)
	proc.WaitFor(q, proc.HasUsed(twinChild, proc.UsedTicks(q, twinChild)+progress))
	assert.Check(q, cmp.Equal(proc.UsedTicks(q, twinPID), stoppedAt), "processor time of the stopped process, in ticks")
	assert.Check(q, !twinGroup.Frozen(), "SIGSTOP froze the cgroup")
	assert.Check(q, cmp.Equal(twin.State().Status, specs.StateRunning))
	assert.Check(q, cmp.Equal(twin.Exec("true").Code, 0), "exec in a container whose pid 1 is stopped")
	q.Fact("twin after SIGSTOP: state in stat", proc.Snapshot(q, twinPID).State)
	q.Fact("twin after SIGSTOP: status", twin.State().Status)

	q.Answer("Pause stops all processes of the container's cgroup by the kernel's freezer. They get no signal, and after resume they " +
		"go on where they were.")
}
