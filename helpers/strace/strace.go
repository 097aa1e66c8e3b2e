//go:build linux

// Package strace runs programs under strace and reads what strace has written.
package strace

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// Require skips the question if strace is not installed, or if it may not trace.
func Require(q *lab.Q) {
	q.Helper()
	path := q.LookPathOrSkip("strace")
	if r := q.Exec(path, "-f", "--seccomp-bpf", "-o", "/dev/null", "-e", "trace=execve", "true"); r.Code != 0 {
		q.Skipf("strace cannot trace here: %s\n"+
			"    it needs ptrace(2) (sysctl kernel.yama.ptrace_scope below 3, no seccomp filter around this machine), "+
			"and strace 5.3 or later (make deps)", strings.TrimSpace(r.Stderr))
	}
}

// CommandLine returns a shell command line of strace, to which a program and its arguments are appended. It traces the
// system calls that create processes and namespaces, and the given ones ("openat,mount"). It writes a file for each
// thread into dir, for [Read]. strace runs as a grandchild (-D), so that the program stays the child of its caller.
func CommandLine(dir, calls string) string {
	return "strace -D -f -ff -ttt -y -s 256 --seccomp-bpf -o " + output(dir) +
		" -e 'trace=clone,?clone3,?fork,?vfork,unshare," + calls + "'"
}

// Tracers returns the processes of strace that write into dir.
func Tracers(tb testing.TB, dir string) []proc.PID {
	tb.Helper()
	return proc.Find(tb, func(_ proc.PID, comm string, args []string) bool {
		return comm == "strace" && slices.Contains(args, output(dir))
	})
}

// File returns the path of the file in dir to which strace writes the calls of a thread.
func File(dir string, thread proc.PID) string { return fmt.Sprintf("%s.%d", output(dir), thread) }

// output returns strace's option -o for dir. strace appends a dot and the number of the thread.
func output(dir string) string { return dir + "/t" }
