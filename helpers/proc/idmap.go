//go:build linux

package proc

import (
	"strings"
	"testing"
)

// IDMap reads uid_map or gid_map of a process (user_namespaces(7)). Each line has three columns: the first id inside of the
// user namespace, the first id outside, and the number of ids.
func IDMap(tb testing.TB, pid PID, name string) [][]string {
	tb.Helper()
	var out [][]string
	for line := range strings.Lines(File(tb, pid, name)) {
		out = append(out, strings.Fields(line))
	}
	return out
}
