//go:build linux

package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/poll"

	"cdblab/helpers/slowness"
)

// fakeProgram puts a shell script into PATH in place of a program.
func fakeProgram(t *testing.T, name, script string) {
	t.Helper()
	dir := t.TempDir()
	assert.NilError(t, os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// fakeQEMU puts a shell script into PATH in place of QEMU.
func fakeQEMU(t *testing.T, script string) {
	t.Helper()
	for _, p := range platforms {
		fakeProgram(t, p.program, script)
	}
}

// hang is a script that never ends, like a child of it that holds its output. It writes the pid of the child to a file.
func hang(pidFile string) string { return "sleep 1000 & echo $! >'" + pidFile + "'; wait" }

// pidIn waits for the pid in the file that hang writes.
func pidIn(t *testing.T, file string) string {
	t.Helper()
	var pid string
	poll.WaitOn(t, func(poll.LogT) poll.Result {
		b, err := os.ReadFile(file)
		if pid = strings.TrimSpace(string(b)); pid == "" {
			return poll.Continue("no pid: %v", err)
		}
		return poll.Success()
	}, poll.WithTimeout(20*time.Second), poll.WithDelay(5*time.Millisecond))
	return pid
}

// isAlive reports whether the process runs, and is no zombie.
func isAlive(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	_, after, _ := strings.Cut(string(stat), ") ")
	return err == nil && !strings.HasPrefix(after, "Z") && !strings.HasPrefix(after, "X")
}

func hasEnded(t *testing.T, pid string) {
	t.Helper()
	poll.WaitOn(t, func(poll.LogT) poll.Result {
		if isAlive(pid) {
			return poll.Continue("process %s still runs", pid)
		}
		return poll.Success()
	}, poll.WithTimeout(20*time.Second), poll.WithDelay(5*time.Millisecond))
}

func TestHelper_HasADeadline(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	// Long enough for the script to write the pid, also on a busy machine.
	limit := time.Duration(slowness.Measure(nil, "true")) * 500 * time.Millisecond
	_, err := runHelper(t.Context(), limit, nil, "sh", "-c", hang(file))
	assert.ErrorContains(t, err, fmt.Sprintf("sh did not end within %v, and was killed", limit))
	hasEnded(t, pidIn(t, file))

	_, err = runHelper(t.Context(), time.Minute, nil, "sh", "-c", "echo first >&2; echo last >&2; exit 3")
	assert.Error(t, err, "exit status 3: last")
}

func TestHelper_EndsWithTheRun(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		pidIn(t, file)
		cancel(&Stopped{Code: 143})
	}()
	_, err := runHelper(ctx, time.Minute, nil, "sh", "-c", hang(file))
	_, stopped := errors.AsType[*Stopped](err)
	assert.Assert(t, stopped, "%v", err)
	hasEnded(t, pidIn(t, file))
}

func TestQEMU_ThatDoesNotTellItsVersion(t *testing.T) {
	was := quickLimit
	quickLimit = 500 * time.Millisecond
	t.Cleanup(func() { quickLimit = was })
	fakeQEMU(t, "sleep 1000")
	_, err := findQEMU(t.Context())
	assert.ErrorContains(t, err, "did not end within 500ms")
}

// QEMU may be a script that starts the real one. All of its process group ends with the run, and nothing else.
func TestMachine_KillEndsItsProcessGroup(t *testing.T) {
	for name, end := range map[string]string{"by kill": "; wait", "by itself": ""} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "pid")
			fakeQEMU(t, `case "$*" in *--version*) echo QEMU emulator version 9.0.0;; *) sleep 1000 & echo $! >'`+file+`'`+end+`;; esac`)
			q, err := findQEMU(t.Context())
			assert.NilError(t, err)
			bystander := exec.Command("sleep", "1000")
			assert.NilError(t, bystander.Start())
			t.Cleanup(func() { _ = bystander.Process.Kill(); _ = bystander.Wait() })

			initrd, err := os.Open(os.DevNull)
			assert.NilError(t, err)
			defer initrd.Close()
			m, err := q.start(Config{Accel: "tcg"}, &kernel{image: "/dev/null"}, machineDisks{initrd: initrd}, "")
			assert.NilError(t, err)
			child := pidIn(t, file)
			ended := make(chan struct{})
			go func() { m.kill(); m.kill(); close(ended) }() // a second kill does nothing
			select {
			case <-ended:
			case <-time.After(20 * time.Second):
				t.Error("kill waits for a process that QEMU started")
			}
			hasEnded(t, child)
			assert.Assert(t, isAlive(fmt.Sprint(bystander.Process.Pid)))
		})
	}
}
