//go:build linux

package proc

import (
	"os"
	"strings"
	"testing"
)

// Listens reports whether the process has a listening unix socket that is bound to the path. Then /proc/net/unix has a line
// with the path, the flag __SO_ACCEPTCON and the socket's inode (proc_net_unix(5)), and one of the process's descriptors refers
// to that inode.
func Listens(tb testing.TB, p Process, path string) bool {
	tb.Helper()
	data, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		tb.Fatalf("list the unix sockets: %v", err)
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		const flags, inode, name = 3, 6, 7
		f := strings.Fields(line)
		if len(f) != 8 || f[name] != path || f[flags] != "00010000" {
			continue
		}
		for _, target := range p.FDs {
			if target == "socket:["+f[inode]+"]" {
				return true
			}
		}
	}
	return false
}
