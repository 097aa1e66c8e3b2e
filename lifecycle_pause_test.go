//go:build linux && vmlab

package cdblab

import (
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

// All processes of the cgroup, at once, and without notice: the kernel's freezer does it, not a signal.
//
// A frozen process uses no processor time and cannot be joined by an exec; it still holds its memory, its files and its
// pid, and goes on where it was when it is thawed. SIGSTOP does something else: it stops one process, its parent is
// notified, and the runtime reports such a container as running.
//
// Hint: cgroup.events (v2) or freezer.state (v1), the processor time and the state in /proc/PID/stat.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/runtime.md#state
// Kernel: https://docs.kernel.org/admin-guide/cgroup-v2.html, cgroup.freeze;
// https://docs.kernel.org/admin-guide/cgroup-v1/freezer-subsystem.html
func TestLifecycle_WhatDoesPauseStop(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does pause stop?")
	defer q.Recover()
	b := bundle.Busybox(q, "sh", "-c", "while :; do :; done")
	c, twin := runc.Variant(q, b, "paused"), runc.Variant(q, b, "twin")
	p, twinProcess := c.CreateAndStart(), twin.CreateAndStart()
	pid, twinPID := p.PID, twinProcess.PID
	group, twinGroup := cgroup.Of(q, c.Bundle.Spec.Linux.CgroupsPath), cgroup.Of(q, twin.Bundle.Spec.Linux.CgroupsPath)
	// Both use processor time without end. A program has gone on when it has used this much more.
	const progress = 5 // ticks

	q.Step("two containers use processor time; one is paused and stops, while its twin goes on")
	c.Pause()
	assert.Check(q, group.Frozen(), "the freezer's state after pause")
	frozenAt := proc.UsedTicks(q, pid)
	proc.WaitFor(q, proc.HasUsed(twinPID, proc.UsedTicks(q, twinPID)+progress))
	assert.Check(q, cmp.Equal(proc.UsedTicks(q, pid), frozenAt), "processor time of the paused container, in ticks")
	assert.Check(q, cmp.Equal(c.State().Status, specs.ContainerState("paused")))
	q.Fact("ticks meanwhile: paused, twin", []string{"0", "5 or more"})
	q.Fact("the freezer", map[string]bool{"frozen": group.Frozen()})
	q.Fact("paused container: state in stat", proc.Snapshot(q, pid).State)

	q.Step("it is all there: the same process, its memory, its place")
	assert.Check(q, cmp.DeepEqual(proc.Snapshot(q, pid).Identity, p.Identity))
	assert.Check(q, !proc.Bits(q, pid, "ShdPnd").Signal(unix.SIGSTOP), "pause sent a SIGSTOP")
	rss := proc.Status(q, pid, "VmRSS")
	q.Fact("resident memory, still", lab.Chance(rss))

	q.Step("exec is refused")
	refused := c.Exec("true")
	assert.Check(q, refused.Code != 0, "exec in a paused container succeeds:\n%s", refused)
	q.Fact("exec in a paused container: error", runc.LastLogMessage(refused))

	q.Step("resume: it goes on")
	c.Must("resume")
	assert.Check(q, !group.Frozen(), "the freezer's state after resume")
	proc.WaitFor(q, proc.HasUsed(pid, frozenAt+progress))
	assert.Check(q, cmp.DeepEqual(proc.Snapshot(q, pid).Identity, p.Identity))
	assert.Check(q, cmp.Equal(c.State().Status, specs.StateRunning))
	assert.Check(q, cmp.Equal(c.Exec("true").Code, 0), "exec after resume")
	q.Fact("after resume", c.State().Status)

	q.Control("SIGSTOP stops the twin too, but without the freezer, and the runtime reports it as running")
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

	q.Answer("Processor time, for all of the cgroup, by the freezer. No process is notified, nothing is lost, and resume goes on.")
}
