//go:build linux

package lab

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"cdblab/helpers/proc"
)

// Background is a command that runs beside the question.
type Background struct {
	q      *Q
	cmd    *exec.Cmd
	stderr *os.File      // not a pipe: a container that is left behind keeps what it inherited, and a pipe would have no end then
	done   chan struct{} // closed when the command has ended
}

// StartBackground starts a command and does not wait for its end. If it has not ended when the question ends, it is killed.
func (q *Q) StartBackground(argv ...string) *Background {
	q.Helper()
	return q.startBackground(nil, argv)
}

// StartOnTerminal is [Q.StartBackground] for a command that needs a terminal: the slave of a pseudo terminal, which is its standard input,
// output and error, and the controlling terminal of a session of its own.
func (q *Q) StartOnTerminal(slave *os.File, argv ...string) *Background {
	q.Helper()
	return q.startBackground(slave, argv)
}

func (q *Q) startBackground(terminal *os.File, argv []string) *Background {
	q.Helper()
	b := &Background{q: q, stderr: q.memfd("stderr"), done: make(chan struct{})}
	q.TB.Cleanup(func() { b.stderr.Close() })
	b.cmd = q.Cmd(context.Background(), argv...)
	b.cmd.Stderr = b.stderr
	if terminal != nil {
		b.cmd.Stdin, b.cmd.Stdout, b.cmd.Stderr = terminal, terminal, terminal
		b.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	}
	q.LogCommand("%s &", strings.Join(argv, " "))
	if err := b.cmd.Start(); err != nil {
		q.Fatalf("start %s: %v", b.cmd, err)
	}
	go func() { _ = b.cmd.Wait(); close(b.done) }()
	q.TB.Cleanup(func() {
		_ = b.cmd.Process.Kill()
		<-b.done
	})
	return b
}

// PID returns the pid of the command's process.
func (b *Background) PID() proc.PID { return proc.PID(b.cmd.Process.Pid) }

// Signal sends a signal to the command.
func (b *Background) Signal(s unix.Signal) {
	b.q.Helper()
	b.q.LogCommand("kill -%d %d", int(s), b.cmd.Process.Pid)
	if err := b.cmd.Process.Signal(s); err != nil {
		b.q.Fatalf("send %v to %s: %v", s, b.cmd, err)
	}
}

// ExitCode waits until the command has ended and returns its exit code, or -1 if a signal ended it.
func (b *Background) ExitCode() int {
	b.q.Helper()
	select {
	case <-b.done:
	case <-time.After(proc.Patience):
		b.q.Fatalf("%s has not ended within %v. These processes run:\n%sstderr: %s", b.cmd, proc.Patience, b.q.running(), b.Stderr())
	}
	return b.cmd.ProcessState.ExitCode()
}

// Stderr returns what the command has written to stderr so far.
func (b *Background) Stderr() string { b.q.Helper(); return readAll(b.q, b.stderr) }

// Ended reports whether the command has ended. From then on the channel has something for each reader: it is closed.
func (b *Background) Ended() bool {
	select {
	case <-b.done:
		return true
	default:
		return false
	}
}
