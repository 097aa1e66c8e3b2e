//go:build linux && vmlab && selftest

package selftest

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

// Ten moments of a run, each by the command that it has just noted, and is about to run.
var moments = []struct {
	name, command string
	nth           int
}{
	{"nothing made yet", "cd /run/cdb-lab/", 1},
	{"a bundle", "root-args create", 1},
	{"a container is being created", "/root create", 1},
	{"a daemon, an image is being pulled", "images pull", 1},
	{"a task is being started", "tasks start", 1},
	{"a task, and two listeners", "tasks metrics", 1},
	{"a container is being started", "/root start", 1},
	{"two containers", "root-mark kill", 1},
	{"a task, and no daemon", "--connect-timeout", 1},
	{"a second task is being started", "tasks start", 4},
}

// SIGKILL of the run and of its janitor at once, as when a whole CI job is killed: one sweep removes the last trace.
func TestKilled_OneSweepRemovesTheLastTrace(t *testing.T) {
	before := picture(t)
	for _, m := range moments {
		t.Run(m.name, func(t *testing.T) {
			l := newLab(starred)
			l.startUntil(t, m.command, m.nth)
			kill(t, janitorOf(t, l.Process.Pid), unix.SIGKILL)
			kill(t, l.Process.Pid, unix.SIGKILL)
			_ = l.Wait()
			swept := sweep(t)
			t.Log(swept)
			assert.Check(t, cmp.Contains(swept, "swept /run/cdb-lab/"))
			assertSame(t, before)
		})
	}
}

// SIGKILL of the run alone: the janitor that it left behind sweeps, without anybody asking.
func TestKilled_TheJanitorSweeps(t *testing.T) {
	before := picture(t)
	for _, m := range moments {
		t.Run(m.name, func(t *testing.T) {
			l := newLab(starred)
			l.startUntil(t, m.command, m.nth)
			kill(t, l.Process.Pid, unix.SIGKILL)
			_ = l.Wait()
			assertSame(t, before)
		})
	}
}

// Ctrl-C and a service manager's stop end the run in order, before the process ends.
func TestKilled_SignalsEndTheRunInOrder(t *testing.T) {
	before := picture(t)
	for sig, code := range map[unix.Signal]int{unix.SIGINT: 130, unix.SIGTERM: 143, unix.SIGHUP: 129} {
		t.Run(sig.String(), func(t *testing.T) {
			l := newLab(starred)
			l.startUntil(t, "tasks metrics", 1)
			kill(t, l.Process.Pid, sig)
			_ = l.Wait()
			assert.Check(t, cmp.Equal(l.ProcessState.ExitCode(), code))
			assertSame(t, before)
		})
	}
}

// go test's own -timeout panics, and runs no cleanup.
func TestKilled_TimeoutLeavesNothing(t *testing.T) {
	before := picture(t)
	code, out := newLab(starred, "-test.timeout=1s").run(t)
	assert.Check(t, code != 0)
	assert.Check(t, strings.Contains(out, "panic: test timed out"), "%s", out)
	assertSame(t, before)
}

// Two runs at once, which share a kernel, a containerd namespace by name, and nothing else.
func TestTwoRunsAtOnceAreBothGreen(t *testing.T) {
	before := picture(t)
	a, b := newLab(starred), newLab(starred)
	assert.NilError(t, a.Start())
	assert.NilError(t, b.Start())
	errA, errB := a.Wait(), b.Wait()
	assert.Check(t, errA, "%s", a.out.String())
	assert.Check(t, errB, "%s", b.out.String())
	assertSame(t, before)
}
