//go:build linux

package proc

import (
	"io"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/poll"
)

// firstThreadEndsEnv makes the test binary a process whose first thread ends, while others run until stdin is closed.
const firstThreadEndsEnv = "CDB_TEST_FIRST_THREAD_ENDS"

func init() {
	if os.Getenv(firstThreadEndsEnv) == "" {
		return
	}
	runtime.LockOSThread() // init runs on the first thread
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	_, _, _ = unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0)
}

// A killed process whose first thread is a zombie already was taken for dead, while its children still had it as their parent.
func TestDead_IsNotYetAProcessOfWhichOnlyTheFirstThreadHasEnded(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), firstThreadEndsEnv+"=yes")
	stdin, err := cmd.StdinPipe()
	assert.NilError(t, err)
	assert.NilError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	pid := PID(cmd.Process.Pid)
	id := Identity{PID: pid, Start: Ticks(Stat(t, pid).Starttime)}
	WaitFor(t, func(poll.LogT) poll.Result {
		if state := Stat(t, pid).State; state != "Z" {
			return poll.Continue("the first thread is in state %s", state)
		}
		return poll.Success()
	})
	assert.Check(t, !Dead(id)(nil).Done(), "other threads of the process still run")
	assert.Check(t, Alive(pid), "other threads of the process still run")

	assert.NilError(t, stdin.Close())
	WaitFor(t, Dead(id))
	assert.Check(t, !Alive(pid))
	assert.Equal(t, Stat(t, pid).State, "Z", "this test has not waited for it")
}
