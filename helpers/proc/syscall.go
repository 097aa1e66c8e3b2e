//go:build linux

package proc

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/poll"

	"cdblab/helpers/retry"
	"cdblab/helpers/slowness"
)

// Syscall is the system call in which a process sleeps, from /proc/PID/syscall (proc_pid_syscall(5)).
type Syscall struct {
	Number int       // -1: it sleeps, but not in a system call
	Args   [6]uint64 // as in the registers
}

// CurrentSyscall returns the system call in which the process sleeps. A process that sleeps for long may run for a moment in
// between, so CurrentSyscall waits until it sleeps. To wait for a certain call, use [SleepsIn] before.
func CurrentSyscall(tb testing.TB, pid PID) Syscall {
	tb.Helper()
	var call Syscall
	WaitFor(tb, func(poll.LogT) poll.Result {
		data, err := os.ReadFile(path(pid, "syscall"))
		if err != nil {
			return poll.Error(fmt.Errorf("read the system call of process %d: %w", pid, err))
		}
		var sleeps bool
		if call, sleeps, err = parseSyscall(string(data)); err != nil {
			return poll.Error(err)
		}
		if !sleeps {
			return poll.Continue("process %d has to sleep in a system call, but /proc/%[1]d/syscall reads %q", pid, data)
		}
		return poll.Success()
	})
	return call
}

// parseSyscall reads the content of /proc/PID/syscall. It reports false for a process that runs.
func parseSyscall(s string) (call Syscall, ok bool, err error) {
	f := strings.Fields(s)
	if len(f) == 1 && f[0] == "running" {
		return Syscall{}, false, nil
	}
	if len(f) == 0 {
		return Syscall{}, false, fmt.Errorf("/proc/PID/syscall is empty")
	}
	if call.Number, err = strconv.Atoi(f[0]); err != nil {
		return Syscall{}, false, fmt.Errorf("/proc/PID/syscall reads %q: %w", s, err)
	}
	if call.Number == -1 {
		return call, true, nil
	}
	if len(f) < 7 {
		return Syscall{}, false, fmt.Errorf("/proc/PID/syscall reads %q: want a number and six arguments", s)
	}
	for i := range call.Args {
		if call.Args[i], err = strconv.ParseUint(f[i+1], 0, 64); err != nil {
			return Syscall{}, false, fmt.Errorf("/proc/PID/syscall reads %q: %w", s, err)
		}
	}
	return call, true, nil
}

// CString returns the zero-terminated string at an address of the process's memory, such as the path that is the argument of a
// system call.
func CString(tb testing.TB, pid PID, address uint64) string {
	tb.Helper()
	mem, err := os.Open(path(pid, "mem"))
	if err != nil {
		tb.Fatalf("read memory of process %d: %v", pid, err)
	}
	defer mem.Close()
	buf := make([]byte, 256)
	n, err := mem.ReadAt(buf, int64(address))
	end := bytes.IndexByte(buf[:n], 0)
	if end < 0 {
		tb.Fatalf("read memory of process %d at %#x: no string within %d bytes (%v)", pid, address, n, err)
	}
	return string(buf[:end])
}

// WaitChannel returns the kernel function in which the process sleeps, from /proc/PID/wchan. It returns "0" if the process runs,
// or if the kernel does not show the function. A process that was interrupted on its way to sleep runs for a moment longer, so a "0" is
// read again for a tenth of a second, and for longer on a slow machine. Not for [Patience]: where the kernel does not show it, each
// question would wait for so long.
func WaitChannel(tb testing.TB, pid PID) string {
	tb.Helper()
	function := "0"
	retry.Until(slowness.Scale(100*time.Millisecond), func() bool {
		data, err := os.ReadFile(path(pid, "wchan"))
		if err != nil {
			tb.Fatalf("read the kernel function in which process %d sleeps: %v", pid, err)
		}
		function = string(data)
		return function != "0"
	})
	return function
}
