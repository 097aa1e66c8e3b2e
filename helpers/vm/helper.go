//go:build linux

package vm

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"syscall"
	"time"
)

// How long a helper command may take: ten times what it takes on a slow machine. A longer one hangs, because it waits
// for a lock, a server or a terminal. Variables, so that a test can make them shorter.
var (
	quickLimit = 30 * time.Second // it prints something: --version, --list
	aptLimit   = 2 * time.Minute  // it reads the package lists; seen: 7 s on a busy machine
	fetchLimit = 15 * time.Minute // it fetches package lists or a kernel, 30 to 100 MB
	buildLimit = 10 * time.Minute // go build of pid 1 with a cold cache
)

// HelperCommand returns a command that gets the signal when ctx ends, with all processes that it started: they have a process
// group of their own. So a Ctrl-C at the terminal does not reach them; it ends ctx.
func HelperCommand(ctx context.Context, signal syscall.Signal, name string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, name, args...)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error {
		// Only while the process is not reaped: later its number may belong to another process.
		if err := c.Process.Signal(syscall.Signal(0)); err != nil {
			return err
		}
		return syscall.Kill(-c.Process.Pid, signal)
	}
	c.WaitDelay = time.Second // a process that left the group may hold the output open
	return c
}

// runHelper runs a helper command that may take as long as limit, and returns its standard output. set may change the
// command before it starts; it may be nil. The error has the last line that the command printed on its standard error.
func runHelper(ctx context.Context, limit time.Duration, set func(*exec.Cmd), name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("%s did not end within %v, and was killed", name, limit))
	defer cancel()
	c := HelperCommand(ctx, syscall.SIGKILL, name, args...)
	var stderr tailBuffer
	c.Stderr = &stderr
	if set != nil {
		set(c)
	}
	out, err := c.Output()
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay):
		return out, nil
	case ctx.Err() != nil:
		return out, context.Cause(ctx)
	}
	return out, fmt.Errorf("%w: %s", err, lastLine([]byte(stderr.String())))
}
