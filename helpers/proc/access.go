//go:build linux

package proc

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/poll"
)

// AccessMode returns how a process may use its descriptor fd: "read", "write", "both", "none", or "path" for a
// descriptor that only names a file (O_PATH). It reads the flags in /proc/PID/fdinfo, which are octal.
func AccessMode(tb testing.TB, pid PID, fd int) string {
	tb.Helper()
	return accessMode(fdFlags(tb, pid, fd))
}

func accessMode(flags uint64) string {
	if flags&unix.O_PATH != 0 {
		return "path"
	}
	return []string{"read", "write", "both", "none"}[flags&unix.O_ACCMODE]
}

// AccessModes returns the access modes of all descriptors by which p holds the file target; sorted, each once.
// Descriptors that only name the file are left out.
func AccessModes(tb testing.TB, p Process, target string) []string {
	tb.Helper()
	modes := []string{}
	for fd, t := range p.FDs {
		if t != target {
			continue
		}
		if mode := AccessMode(tb, p.PID, fd); mode != "path" {
			modes = append(modes, mode)
		}
	}
	slices.Sort(modes)
	return slices.Compact(modes)
}

// HasAccessModes returns a check that succeeds when a process holds the file target with these access modes, sorted, as [AccessModes]
// returns them. The process may close descriptors meanwhile.
func HasAccessModes(pid PID, target string, want ...string) poll.Check {
	return func(poll.LogT) poll.Result {
		fds, err := readFDs(pid)
		if err != nil {
			return poll.Error(err)
		}
		got := []string{}
		for fd, t := range fds {
			if t != target {
				continue
			}
			if flags, err := readFDFlags(pid, fd); err == nil && accessMode(flags) != "path" {
				got = append(got, accessMode(flags))
			}
		}
		slices.Sort(got)
		if got = slices.Compact(got); !slices.Equal(got, want) {
			return poll.Continue("process %d holds %s with the access modes %v, not yet %v", pid, target, got, want)
		}
		return poll.Success()
	}
}

// HasFile returns a check that succeeds when a process has a descriptor of the file target, or one that only names it (O_PATH).
func HasFile(pid PID, target string) poll.Check {
	return func(poll.LogT) poll.Result {
		fds, err := readFDs(pid)
		if err != nil {
			return poll.Error(err)
		}
		if targets := slices.Collect(maps.Values(fds)); !slices.Contains(targets, target) {
			return poll.Continue("process %d has not opened %s; it has %v", pid, target, targets)
		}
		return poll.Success()
	}
}

// HasNoFile is the opposite of [HasFile].
func HasNoFile(pid PID, target string) poll.Check {
	has := HasFile(pid, target)
	return func(t poll.LogT) poll.Result {
		switch result := has(t); {
		case result.Error() != nil:
			return result
		case result.Done():
			return poll.Continue("process %d has not closed %s", pid, target)
		}
		return poll.Success()
	}
}

// FindFD returns a descriptor by which p holds the file target with this access mode.
func FindFD(tb testing.TB, p Process, target, mode string) int {
	tb.Helper()
	for fd, t := range p.FDs {
		if t == target && AccessMode(tb, p.PID, fd) == mode {
			return fd
		}
	}
	tb.Fatalf("process %d has no descriptor of %s with access mode %s: %v", p.PID, target, mode, p.FDs)
	return -1
}

// WrittenBytes returns how many bytes a process has written by system calls that have returned (wchar of
// proc_pid_io(5)).
func WrittenBytes(tb testing.TB, pid PID) int {
	tb.Helper()
	for line := range strings.Lines(File(tb, pid, "io")) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "wchar:" {
			n, err := strconv.Atoi(f[1])
			if err != nil {
				tb.Fatalf("read wchar in /proc/%d/io: %v", pid, err)
			}
			return n
		}
	}
	tb.Fatalf("/proc/%d/io has no line wchar", pid)
	return -1
}

// FindChild returns the child of a process that runs the program comm.
func FindChild(tb testing.TB, pid PID, comm string) PID {
	tb.Helper()
	for _, child := range Children(tb, pid) {
		if File(tb, child, "comm") == comm {
			return child
		}
	}
	tb.Fatalf("no child of process %d runs %s", pid, comm)
	return -1
}
