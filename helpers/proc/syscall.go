//go:build linux

package proc

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

// Syscall is the system call in which a process sleeps, from /proc/PID/syscall (proc_pid_syscall(5)).
type Syscall struct {
	Number int       // -1: sleeping, but in no system call
	Args   [6]uint64 // as in the registers
}

// InSyscall reads in which system call the process sleeps; one that runs fails the test (see [SleepsIn]).
func CurrentSyscall(tb testing.TB, pid PID) Syscall {
	tb.Helper()
	data, err := os.ReadFile(path(pid, "syscall"))
	if err != nil {
		tb.Fatalf("in which system call is process %d: %v", pid, err)
	}
	call, ok, err := parseSyscall(string(data))
	if err != nil || !ok {
		tb.Fatalf("process %d is in no system call: %q (%v)", pid, data, err)
	}
	return call
}

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

// CString reads the zero-terminated string at an address of the process's memory, such as the path that a system call
// was given.
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

// WaitChannel is the kernel function in which the process sleeps, from /proc/PID/wchan; "0" where it runs, or where the
// kernel does not tell.
func WaitChannel(tb testing.TB, pid PID) string {
	tb.Helper()
	data, err := os.ReadFile(path(pid, "wchan"))
	if err != nil {
		tb.Fatalf("where does process %d sleep: %v", pid, err)
	}
	return string(data)
}
