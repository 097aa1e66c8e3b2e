//go:build linux

package proc

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/poll"
)

// Runs is a poll check: the process pid has become the program comm. Between execve(2) and the moment when a runtime
// reports "running" there is no order that one could rely on; and during execve the kernel sets comm before the
// arguments and the environment.
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
		return poll.Success()
	}
}

// SleepsIn is a poll check: the process sleeps in the system call of a number (unix.SYS_OPENAT).
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
			return poll.Continue("/proc/%d/syscall reads %q, and not system call %d", pid, data, number)
		}
		return poll.Success()
	}
}

// Dead is a poll check: the process of this identity has ended. A zombie is dead.
func Dead(id Identity) poll.Check {
	return func(poll.LogT) poll.Result {
		p, err := procfs.NewProc(int(id.PID))
		if err != nil {
			return poll.Success()
		}
		stat, err := p.Stat()
		if err != nil || Ticks(stat.Starttime) != id.Start || stat.State == "Z" || stat.State == "X" {
			return poll.Success()
		}
		return poll.Continue("process %d (%s) is alive, state %s", id.PID, stat.Comm, stat.State)
	}
}

// Patience is how long WaitFor waits. Even under emulation nothing takes a tenth of it.
var Patience = time.Minute

// WaitFor polls until check succeeds; after Patience it fails the test with what was last seen.
func WaitFor(tb testing.TB, check poll.Check) {
	tb.Helper()
	poll.WaitOn(tb, check, poll.WithTimeout(Patience), poll.WithDelay(2*time.Millisecond))
}

// Catches is a poll check: the process has a handler for the signal.
func Catches(pid PID, s unix.Signal) poll.Check {
	return func(poll.LogT) poll.Result {
		data, err := os.ReadFile(path(pid, "status"))
		if err != nil {
			return poll.Error(err)
		}
		field, _ := statusField(string(data), "SigCgt")
		caught, err := strconv.ParseUint(field, 16, 64)
		if err != nil {
			return poll.Error(err)
		}
		if !Mask(caught).Signal(s) {
			return poll.Continue("process %d has handlers for %s, none for %v", pid, Mask(caught), s)
		}
		return poll.Success()
	}
}

// IsInState is a poll check: the process is in this state (field 3 of stat).
func IsInState(pid PID, state string) poll.Check {
	return func(poll.LogT) poll.Result {
		p, err := Read(pid)
		if err != nil {
			return poll.Error(err)
		}
		if p.State != state {
			return poll.Continue("process %d is in state %s, not %s", pid, p.State, state)
		}
		return poll.Success()
	}
}

// Reaped is a poll check: the process is gone, and no zombie either: its parent has asked for its status.
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
