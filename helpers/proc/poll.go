//go:build linux

package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/poll"
)

// Runs returns a check that succeeds when the process runs the program comm. A runtime may report "running" before or after
// the execve(2) of the program. During execve, the kernel sets comm first, then the arguments, then the environment, and then the
// address of the code: [Process.Env] and the like are complete.
func Runs(pid PID, comm string) poll.Check {
	return func(poll.LogT) poll.Result {
		now, err1 := os.ReadFile(path(pid, "comm"))
		args, err2 := os.ReadFile(path(pid, "cmdline"))
		if err := errors.Join(err1, err2); err != nil {
			return poll.Continue("process %d: %v", pid, err)
		}
		if got := strings.TrimSpace(string(now)); got != comm || len(args) == 0 {
			return poll.Continue("process %d is %q, not yet %q", pid, got, comm)
		}
		if loaded, err := isLoaded(pid); err != nil || !loaded {
			return poll.Continue("process %d is in the middle of execve: %v", pid, err)
		}
		return poll.Success()
	}
}

// isLoaded reports whether the kernel has loaded the program of the process: only then its field startcode is not 0 any more
// (proc_pid_stat(5)).
func isLoaded(pid PID) (bool, error) {
	stat, err := os.ReadFile(path(pid, "stat"))
	if err != nil {
		return false, err
	}
	const startcode = 26 - 3 // of the fields after comm, which begin with the third
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	return len(fields) > startcode && fields[startcode] != "0", nil
}

// SleepsIn returns a check that succeeds when the process sleeps in the system call of this number (unix.SYS_OPENAT).
func SleepsIn(pid PID, number int) poll.Check {
	return func(poll.LogT) poll.Result {
		data, err := os.ReadFile(path(pid, "syscall"))
		if err != nil {
			return poll.Error(err)
		}
		call, ok, err := parseSyscall(string(data))
		if err != nil {
			return poll.Error(err)
		}
		if !ok || call.Number != number {
			return poll.Continue("/proc/%d/syscall reads %q, not yet system call %d", pid, data, number)
		}
		return poll.Success()
	}
}

// Dead returns a check that succeeds when the process of this identity has ended. A zombie has ended.
func Dead(id Identity) poll.Check {
	return func(poll.LogT) poll.Result {
		p, err := procfs.NewProc(int(id.PID))
		if err != nil {
			return poll.Success()
		}
		stat, err := p.Stat()
		if err != nil || Ticks(stat.Starttime) != id.Start || hasEnded(stat) {
			return poll.Success()
		}
		return poll.Continue("process %d (%s) is still alive, in state %s, with %d threads", id.PID, stat.Comm, stat.State, stat.NumThreads)
	}
}

// LeftProcessor returns a check that succeeds when a process that is frozen or stopped has left its processor: from then on it uses no
// processor time. A process has the state, and the freezer counts it, a moment before. That moment is long where the host takes the
// processor away just then. /proc/PID/syscall reads "running" until the scheduler has switched to another process (wait_task_inactive).
func LeftProcessor(pid PID) poll.Check {
	return func(poll.LogT) poll.Result {
		data, err := os.ReadFile(path(pid, "syscall"))
		if err != nil {
			return poll.Error(err)
		}
		_, left, err := parseSyscall(string(data))
		if err != nil {
			return poll.Error(err)
		}
		if !left {
			return poll.Continue("process %d still has a processor: /proc/%[1]d/syscall reads %q", pid, data)
		}
		return poll.Success()
	}
}

// Patience is how long [WaitFor] waits. A run of the lab sets it to the deadline of a command, which is longer on a slow machine.
var Patience = time.Minute

// WaitFor waits until check succeeds. After [Patience], it fails the test with the check's last message.
func WaitFor(tb testing.TB, check poll.Check) {
	tb.Helper()
	poll.WaitOn(tb, catchPanic(check), poll.WithTimeout(Patience), poll.WithDelay(2*time.Millisecond))
}

// catchPanic turns a panic in a check into an error. Package poll calls a check in a goroutine of its own, where nothing that the test has
// deferred recovers the panic: it would end the run.
func catchPanic(check poll.Check) poll.Check {
	return func(t poll.LogT) (result poll.Result) {
		defer func() {
			if value := recover(); value != nil {
				result = poll.Error(fmt.Errorf("the check panicked: %v\n%s", value, debug.Stack()))
			}
		}()
		return check(t)
	}
}

// IsInState returns a check that succeeds when the process is in this state (field 3 of stat).
func IsInState(pid PID, state string) poll.Check {
	return func(poll.LogT) poll.Result {
		p, err := Read(pid)
		if err != nil {
			return poll.Error(err)
		}
		if p.State != state {
			return poll.Continue("process %d is in state %s, not yet %s", pid, p.State, state)
		}
		return poll.Success()
	}
}

// Reaped returns a check that succeeds when the process does not exist any more, not even as a zombie: its parent has waited
// for it.
func Reaped(id Identity) poll.Check {
	return func(poll.LogT) poll.Result {
		if p, err := procfs.NewProc(int(id.PID)); err == nil {
			if s, err := p.Stat(); err == nil && Ticks(s.Starttime) == id.Start {
				return poll.Continue("process %d is still there, in state %s, a child of %d", id.PID, s.State, s.PPID)
			}
		}
		return poll.Success()
	}
}

// Catches returns a check that succeeds when the process runs the program comm and has a handler for the signal. Both are
// needed: `runc init`, which the process runs before the program, catches nearly every signal, because Go's runtime does. A
// signal that is sent then arrives before the program has a handler, and the kernel drops it if the process is pid 1.
func Catches(pid PID, comm string, s unix.Signal) poll.Check {
	runs := Runs(pid, comm)
	return func(t poll.LogT) poll.Result {
		// In this order: execve(2) takes the handlers away before the process runs the program.
		if result := runs(t); !result.Done() {
			return result
		}
		caught, err := mask(pid, "SigCgt")
		if err != nil {
			return poll.Error(err)
		}
		if !caught.Signal(s) {
			return poll.Continue("process %d (%s) has handlers for the signals %s, not yet for %v", pid, comm, caught, s)
		}
		return poll.Success()
	}
}

// HasPending returns a check that succeeds when a signal waits for the process: a process that is stopped gets it when it goes on.
func HasPending(pid PID, s unix.Signal) poll.Check {
	return func(poll.LogT) poll.Result {
		pending, err := mask(pid, "ShdPnd")
		if err != nil {
			return poll.Error(err)
		}
		if !pending.Signal(s) {
			return poll.Continue("for process %d the signals %s are pending, not yet %v", pid, pending, s)
		}
		return poll.Success()
	}
}

// HandlesAllSignals returns a check that succeeds when a runtime that stays in the foreground has prepared for the signals
// that it passes on. It looks at SIGTTOU: a program in Go catches most signals from its beginning, and ends by them; but it
// catches TTOU only when it asks for all signals. A program in C or Rust blocks them, and reads them from a descriptor.
func HandlesAllSignals(pid PID) poll.Check {
	return func(poll.LogT) poll.Result {
		caught, err1 := mask(pid, "SigCgt")
		blocked, err2 := mask(pid, "SigBlk")
		if err := errors.Join(err1, err2); err != nil {
			return poll.Error(err)
		}
		if !caught.Signal(unix.SIGTTOU) && !blocked.Signal(unix.SIGTTOU) {
			return poll.Continue("process %d catches the signals %s and blocks %s, not yet all", pid, caught, blocked)
		}
		return poll.Success()
	}
}

// HasNoTerminal returns a check that succeeds when the process has no controlling terminal (tty_nr of proc_pid_stat(5)).
// A hangup takes it from the processes of a session one after the other. It begins when the last descriptor of the master
// is closed, and a program that is being started may have inherited one until it calls execve(2).
func HasNoTerminal(pid PID) poll.Check {
	return func(poll.LogT) poll.Result {
		p, err := procfs.NewProc(int(pid))
		if err != nil {
			return poll.Error(err)
		}
		stat, err := p.Stat()
		if err != nil {
			return poll.Error(err)
		}
		if stat.TTY != 0 {
			return poll.Continue("process %d (%s) still has the controlling terminal %d:%d", pid, stat.Comm,
				unix.Major(uint64(stat.TTY)), unix.Minor(uint64(stat.TTY)))
		}
		return poll.Success()
	}
}
