//go:build linux

package proc

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// StatField returns a field of /proc/PID/stat by its number in proc_pid_stat(5).
func StatField(tb testing.TB, pid PID, number int) string {
	tb.Helper()
	stat := File(tb, pid, "stat")
	// The second field, the name in parentheses, may contain blanks: count from the third one, which follows it.
	fields := strings.Fields(stat[strings.LastIndex(stat, ")")+1:])
	const first = 3
	if number < first || number-first >= len(fields) {
		tb.Fatalf("/proc/%d/stat has no field %d that can be read: %q", pid, number, stat)
	}
	return fields[number-first]
}

// IOPriority returns the class of a process's I/O priority and its priority within the class, as ioprio_get(2) returns them.
func IOPriority(tb testing.TB, pid PID) (class, priority int) {
	tb.Helper()
	const whoProcess, classShift = 1, 13 // IOPRIO_WHO_PROCESS, IOPRIO_CLASS_SHIFT
	value, _, errno := unix.Syscall(unix.SYS_IOPRIO_GET, whoProcess, uintptr(pid), 0)
	if errno != 0 {
		tb.Fatalf("ioprio_get of process %d: %v", pid, errno)
	}
	return int(value) >> classShift, int(value) & (1<<classShift - 1)
}
