//go:build linux && vmlab && selftest

package selftest

import (
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/skip"

	"cdblab/helpers/host"
)

// moments are ten moments of a run: the run has noted the nth command that contains the text, and is about to run it.
var moments = []struct {
	name, command string
	nth           int
}{
	{"before anything is made", "cd /run/cdb-lab/", 1},
	{"a bundle exists", "root-args create", 1},
	{"a container is created", "/root create", 1},
	{"a daemon runs, an image is pulled", "images pull", 1},
	{"a task is started", "tasks start", 1},
	{"a task and two event listeners run", "tasks metrics", 1},
	{"a container is started", "/root start", 1},
	{"two containers exist", "root-mark kill", 1},
	{"a task runs, the daemon does not", "--connect-timeout", 1},
	{"a second task is started", "tasks start", 4},
}

// The run and its janitor get SIGKILL at the same time, as when a whole CI job is killed. One sweep removes everything.
func TestKilled_OneSweepRemovesEverything(t *testing.T) {
	before := takeInventory(t)
	for _, m := range moments {
		t.Run(m.name, func(t *testing.T) {
			l := newLab(chapterQuestions)
			l.startUntil(t, m.command, m.nth)
			kill(t, janitorOf(t, l.Process.Pid), unix.SIGKILL)
			kill(t, l.Process.Pid, unix.SIGKILL)
			_ = l.Wait()
			sweepKilled(t)
			assertHostUnchanged(t, before)
		})
	}
}

// The run alone gets SIGKILL. The janitor that it left behind sweeps by itself.
func TestKilled_TheJanitorSweeps(t *testing.T) {
	before := takeInventory(t)
	for _, m := range moments {
		t.Run(m.name, func(t *testing.T) {
			l := newLab(chapterQuestions)
			l.startUntil(t, m.command, m.nth)
			kill(t, l.Process.Pid, unix.SIGKILL)
			_ = l.Wait()
			assertHostUnchanged(t, before)
		})
	}
}

// On Ctrl-C and on a service manager's stop, the run is swept before its process ends.
func TestKilled_SignalsSweepTheRunBeforeItEnds(t *testing.T) {
	before := takeInventory(t)
	for sig, code := range map[unix.Signal]int{unix.SIGINT: 130, unix.SIGTERM: 143, unix.SIGHUP: 129} {
		t.Run(sig.String(), func(t *testing.T) {
			skip.If(t, signal.Ignored(sig), "the caller ignores this signal, as nohup does, and then the lab ignores it too")
			l := newLab(chapterQuestions)
			l.startUntil(t, "tasks metrics", 1)
			kill(t, l.Process.Pid, sig)
			out := <-l.rest
			_ = l.Wait()
			assert.Check(t, cmp.Equal(l.ProcessState.ExitCode(), code))
			// The janitor sweeps a run that has only ended, so the host alone does not show this.
			assert.Check(t, cmp.Regexp(`cdblab: `+sig.String()+`: swept /run/cdb-lab/\d+: [1-9]\d* processes`, out))
			assertHostUnchanged(t, before)
		})
	}
}

// go test's own -timeout panics, and runs no cleanup. The janitor sweeps.
func TestKilled_TimeoutLeavesNothing(t *testing.T) {
	before := takeInventory(t)
	code, out := newLab(chapterQuestions, "-test.timeout=1s").run(t)
	assert.Check(t, code != 0)
	assert.Check(t, strings.Contains(out, "panic: test timed out"), "%s", out)
	assertHostUnchanged(t, before)
}

// Two runs at the same time share a kernel, and the name of a containerd namespace, and nothing else.
func TestTwoRunsAtTheSameTime_BothSucceed(t *testing.T) {
	before := takeInventory(t)
	a, b := newLab(chapterQuestions), newLab(chapterQuestions)
	assert.NilError(t, a.Start())
	assert.NilError(t, b.Start())
	errA, errB := a.Wait(), b.Wait()
	assert.Check(t, errA, "%s", a.out.String())
	assert.Check(t, errB, "%s", b.out.String())
	assertHostUnchanged(t, before)
}

// A number is used again when a run has ended. A run that has lost its number sweeps nothing of the run that has it now.
func TestClose_SweepsNothingOfTheRunThatHasTheNumberNow(t *testing.T) {
	before := takeInventory(t)
	run, err := host.NewRun()
	assert.NilError(t, err)
	id := filepath.Join(run.Dir(), "id")
	assert.NilError(t, os.WriteFile(id, []byte("0123456789abcdef"), 0o600))
	_, err = run.Close()
	assert.Check(t, cmp.ErrorContains(err, "is not the directory of this run any more"))
	_, err = os.Stat(id)
	assert.Check(t, err, "the file of the other run was removed")

	_, err = host.SweepOwner(run.Owner)
	assert.NilError(t, err)
	_, err = host.Sweep(false) // what all runs share goes with the last one
	assert.NilError(t, err)
	assertHostUnchanged(t, before)
}

// A process may outlive the directory and the cgroups of its run. While it lives, no other run gets the number, and the end of another
// run does it no harm.
func TestNewRun_UsesNoNumberOfAProcessThatLives(t *testing.T) {
	before := takeInventory(t)
	ended, err := host.NewRun()
	assert.NilError(t, err)
	_, err = ended.Close()
	assert.NilError(t, err)
	sleep := exec.Command("sleep", "1000")
	sleep.Env = append(os.Environ(), testMark, host.OwnerEnv+"="+ended.Dir()+":0123456789abcdef")
	assert.NilError(t, sleep.Start())
	t.Cleanup(func() {
		_ = sleep.Process.Kill()
		_ = sleep.Wait()
		assertHostUnchanged(t, before)
	})
	next, err := host.NewRun()
	assert.NilError(t, err)
	assert.Check(t, next.Run != ended.Run, "the new run has the number %s, as the process %d", next.Run, sleep.Process.Pid)
	swept, err := next.Close()
	assert.Check(t, err)
	assert.Check(t, !strings.Contains(swept.String(), "sleep"), "%s", swept)
	dead, err := unix.Wait4(sleep.Process.Pid, nil, unix.WNOHANG, nil)
	assert.NilError(t, err)
	assert.Equal(t, dead, 0, "the end of the new run has killed the process")
}

// A signal during the last inventory closes a run that closes itself already. It is swept once.
func TestClose_TwiceAtTheSameTimeSweepsOnce(t *testing.T) {
	before := takeInventory(t)
	run, err := host.NewRun()
	assert.NilError(t, err)
	var both errgroup.Group
	sweeps := make(chan host.Swept, 2)
	for range 2 {
		both.Go(func() error {
			swept, _, err := run.CloseAndCompare(before)
			sweeps <- swept
			return err
		})
	}
	assert.Check(t, both.Wait(), "the second close must do nothing")
	a, b := <-sweeps, <-sweeps
	assert.Check(t, (a.Dir == "") != (b.Dir == ""), "swept %q and %q", a, b)
	assertHostUnchanged(t, before)
}

// Who can open a file can lock it. If another user could lock a run's directory, root's sweep would wait for that user.
func TestLock_IsOutOfReachOfOtherUsers(t *testing.T) {
	before := takeInventory(t)
	run, err := host.NewRun()
	assert.NilError(t, err)
	for _, dir := range []string{host.Dir, run.Dir()} {
		out, err := exec.Command("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "ls", dir).CombinedOutput()
		assert.Check(t, err != nil, "another user can open %s", dir)
		assert.Check(t, cmp.Contains(string(out), "Permission denied"))
	}
	_, err = run.Close()
	assert.NilError(t, err)
	assertHostUnchanged(t, before)
}

// After the run and its janitor were killed, the next run sweeps, and says so.
func TestKilled_TheNextRunSweeps(t *testing.T) {
	before := takeInventory(t)
	l := newLab(chapterQuestions)
	l.startUntil(t, "/root create", 1)
	kill(t, janitorOf(t, l.Process.Pid), unix.SIGKILL)
	kill(t, l.Process.Pid, unix.SIGKILL)
	_ = l.Wait()
	code, out := newLab("-test.run=Lifecycle_WhatDoesKillDo").run(t)
	assert.Check(t, cmp.Equal(code, 0), "%s", out)
	others, err := host.RunsInProgress()
	assert.NilError(t, err)
	swept := strings.Contains(out, "swept the leftovers of a killed run: /run/cdb-lab/")
	assert.Check(t, len(others) > 0 || swept, "the next run did not sweep:\n%s", out) // another run may have been faster
	assertHostUnchanged(t, before)
}
