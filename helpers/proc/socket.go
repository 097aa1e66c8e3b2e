//go:build linux

package proc

import (
	"os"
	"strings"
	"testing"

	"gotest.tools/v3/poll"
)

// Listens reports whether the process has a listening unix socket that is bound to the path: one of its descriptors refers to
// that socket's inode.
func Listens(tb testing.TB, p Process, path string) bool {
	tb.Helper()
	for _, inode := range listeners(tb, path) {
		for _, target := range p.FDs {
			if target == "socket:["+inode+"]" {
				return true
			}
		}
	}
	return false
}

// HasListener reports whether any process listens on a unix socket that is bound to the path. A socket's file alone does not tell:
// it stays when the process that listened is killed.
func HasListener(tb testing.TB, path string) bool { tb.Helper(); return len(listeners(tb, path)) > 0 }

// HasNoListener waits until [HasListener] is false.
func HasNoListener(tb testing.TB, path string) poll.Check {
	return func(poll.LogT) poll.Result {
		if HasListener(tb, path) {
			return poll.Continue("a process listens on %s", path)
		}
		return poll.Success()
	}
}

// listeners returns the inodes of the listening unix sockets that are bound to the path. For each, /proc/net/unix has a line with
// the path, the flag __SO_ACCEPTCON and the inode (proc_net_unix(5)).
func listeners(tb testing.TB, path string) (inodes []string) {
	tb.Helper()
	data, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		tb.Fatalf("list the unix sockets: %v", err)
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		const flags, inode, name = 3, 6, 7
		f := strings.Fields(line)
		if len(f) == 8 && f[name] == path && f[flags] == "00010000" {
			inodes = append(inodes, f[inode])
		}
	}
	return inodes
}

// HasCaller reports whether a process has connected to the unix socket of this path, and the connection is not accepted yet. The kernel
// shows such a connection without an inode (proc_net_unix(5)).
func HasCaller(path string) bool {
	data, _ := os.ReadFile("/proc/net/unix")
	for line := range strings.Lines(string(data)) {
		const inode, name = 6, 7
		if f := strings.Fields(line); len(f) == 8 && f[name] == path && f[inode] == "0" {
			return true
		}
	}
	return false
}
