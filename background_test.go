//go:build linux && vmlab

package cdblab

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/poll"

	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// beside is a command that runs beside the question.
type beside struct {
	q    *lab.Q
	cmd  *exec.Cmd
	done chan error
	said bytes.Buffer
}

// background starts a command, and goes on. It is killed when the question ends, if it has not ended by then.
func background(q *lab.Q, argv ...string) *beside {
	q.Helper()
	b := &beside{q: q, done: make(chan error, 1)}
	b.cmd = q.Cmd(context.Background(), argv...)
	b.cmd.Stderr = &b.said
	// A container that is left behind holds what it inherited: do not wait for the pipe's end for ever.
	b.cmd.WaitDelay = time.Second
	q.LogCommand("%s &", strings.Join(argv, " "))
	assert.NilError(q, b.cmd.Start())
	go func() { b.done <- b.cmd.Wait(); close(b.done) }()
	q.TB.Cleanup(func() {
		_ = b.cmd.Process.Kill()
		for range b.done { //nolint:revive // until it is closed
		}
	})
	return b
}

func (b *beside) pid() proc.PID { return proc.PID(b.cmd.Process.Pid) }

func (b *beside) signal(s unix.Signal) {
	b.q.Helper()
	b.q.LogCommand("kill -%d %d", int(s), b.cmd.Process.Pid)
	assert.NilError(b.q, b.cmd.Process.Signal(s))
}

// code waits for the command's end, and is its exit code; -1 where a signal ended it.
func (b *beside) code() int {
	b.q.Helper()
	select {
	case <-b.done:
	case <-time.After(proc.Patience):
		b.q.Fatalf("%s has not ended within %v", b.cmd, proc.Patience)
	}
	return b.cmd.ProcessState.ExitCode()
}

// ended says whether the command has ended by now.
func (b *beside) ended() bool {
	select {
	case err := <-b.done:
		b.done <- err
		return true
	default:
		return false
	}
}

// has is a poll check: the directory has the entry.
func has(dir, name string) poll.Check {
	return func(poll.LogT) poll.Result {
		if !exists(filepath.Join(dir, name)) {
			return poll.Continue("%s has no %s", dir, name)
		}
		return poll.Success()
	}
}

// inState is a poll check: the runtime says that the container is in this state.
func inState(c *runc.Container, want specs.ContainerState) poll.Check {
	return func(poll.LogT) poll.Result {
		out, err := exec.Command(lab.UnderTest("runc").Path, "--root", c.Root, "state", c.ID).Output()
		var s specs.State
		if err == nil {
			err = json.Unmarshal(out, &s)
		}
		if err != nil || s.Status != want {
			return poll.Continue("container %s is %q (%v), not yet %q", c.ID, s.Status, err, want)
		}
		return poll.Success()
	}
}

// removed is a poll check that removes an empty cgroup: it can be removed only when its last process is gone.
func removed(dir string) poll.Check {
	return func(poll.LogT) poll.Result {
		if err := os.Remove(dir); err != nil && !os.IsNotExist(err) {
			return poll.Continue("%v", err)
		}
		return poll.Success()
	}
}
