//go:build linux

package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"cdblab/helpers/vm"
)

// stepLimit is how long a program may take: many times what the slowest one takes on a slow machine. A longer one hangs.
const stepLimit = 2 * time.Hour

// command returns a command that ends when ctx ends, with the processes that it started.
func command(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	program, err := find(name)
	if err != nil {
		return nil, err
	}
	c := vm.HelperCommand(ctx, syscall.SIGTERM, program, args...) // mmdebstrap removes what it made
	c.WaitDelay = 20 * time.Second
	// apt and dpkg call programs of the sbin directories.
	c.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "PATH="+os.Getenv("PATH")+":/usr/local/sbin:/usr/sbin:/sbin")
	return c, nil
}

// output returns what a command prints. The error has the last line of its standard error.
func output(ctx context.Context, name string, args ...string) ([]byte, error) {
	c, err := command(ctx, name, args...)
	if err != nil {
		return nil, err
	}
	out, err := c.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%w: %s", err, lastLine(string(exit.Stderr)))
	}
	return out, err
}

// run runs a step of a build in the directory of the build. What it prints is in the build's log.
func (b *build) run(ctx context.Context, set func(*exec.Cmd), name string, args ...string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, stepLimit, fmt.Errorf("%s did not end within %v", name, stepLimit))
	defer cancel()
	c, err := command(ctx, name, args...)
	if err != nil {
		return err
	}
	var tail lastBytes
	c.Dir, c.Env = b.dir, append(c.Env, b.recipe.Env...)
	c.Stdout = io.MultiWriter(b.logFile, &tail)
	c.Stderr = c.Stdout // the same value, so that os/exec writes in order
	if set != nil {
		set(c)
	}
	fmt.Fprintf(b.logFile, "+ %s\n", name)
	err = c.Run()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return &vm.Fault{
		Tried: "make the disk image of a node with " + name, Seen: fmt.Sprintf("%v: %s", err, reason(string(tail))),
		Do: "read " + b.logFile.Name() + ", mend the reason, and run this again",
	}
}

// lastBytes keeps the end of what is written to it.
type lastBytes []byte

func (l *lastBytes) Write(p []byte) (int, error) {
	*l = append(*l, p...)
	*l = (*l)[max(0, len(*l)-4096):]
	return len(p), nil
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// reason returns the first line that is an error of apt or of mmdebstrap: the last ones only say that it failed. Without such a line,
// reason returns the last line.
func reason(text string) string {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "E: ") {
			return strings.TrimSpace(line)
		}
	}
	return lastLine(text)
}
