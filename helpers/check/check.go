//go:build linux

// Package check has the assertions that several sections of the chapter share.
package check

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/host"
	"cdblab/helpers/proc"
)

// OnlyProcessInCgroup asserts, in every hierarchy, that the process is in the cgroup of this path and that nothing else is. It reads both
// /proc/PID/cgroup and the cgroup's cgroup.procs.
func OnlyProcessInCgroup(tb testing.TB, id proc.Identity, path string) {
	tb.Helper()
	hs, err := cgroup.Hierarchies()
	assert.NilError(tb, err)
	for _, h := range hs {
		key := h.Name
		if h.V2 {
			key = ""
		}
		assert.Check(tb, cmp.Equal(id.Cgroups[key], path), "/proc/%d/cgroup, hierarchy %s", id.PID, h.Name)
		procs, err := os.ReadFile(filepath.Join(h.Path(path), "cgroup.procs"))
		assert.NilError(tb, err)
		assert.Check(tb, cmp.Equal(strings.TrimSpace(string(procs)), strconv.Itoa(int(id.PID))), "members in hierarchy %s", h.Name)
	}
}

// NoCgroup asserts that no hierarchy has the cgroup.
func NoCgroup(tb testing.TB, path string) {
	tb.Helper()
	hs, err := cgroup.Hierarchies()
	assert.NilError(tb, err)
	for _, h := range hs {
		_, err := os.Stat(h.Path(path))
		assert.Check(tb, os.IsNotExist(err), "cgroup %s is still there in hierarchy %s: %v", path, h.Name, err)
	}
}

// SeesHostMounts reports whether the process still sees a mount of the host. It looks for the directory of the lab,
// which is mounted on the host only.
func SeesHostMounts(p proc.Process) bool {
	return slices.ContainsFunc(p.Mounts, func(m string) bool { return strings.HasPrefix(m, host.Dir) })
}

// MountAt returns the mount whose mount point is path, as /proc/self/mountinfo shows it, or nil if there is none.
func MountAt(tb testing.TB, path string) *mountinfo.Info {
	tb.Helper()
	ms, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(path))
	assert.NilError(tb, err)
	if len(ms) == 0 {
		return nil
	}
	return ms[0]
}

// Int parses a number in decimal notation.
func Int(tb testing.TB, s string) int {
	tb.Helper()
	n, err := strconv.Atoi(s)
	assert.NilError(tb, err)
	return n
}

// TableRow returns the fields of the first line of a table whose first field is first.
func TableRow(tb testing.TB, table, first string) []string {
	tb.Helper()
	for line := range strings.SplitSeq(table, "\n") {
		if f := strings.Fields(line); len(f) > 0 && f[0] == first {
			return f
		}
	}
	tb.Fatalf("no line begins with %q:\n%s", first, table)
	return nil
}

func LastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// InOrder asserts that one moment is not before another. The kernel tells a process's start in ticks of 10 ms, so
// that much is no contradiction.
func InOrder(tb testing.TB, first string, a time.Time, second string, b time.Time) {
	tb.Helper()
	const tick = 10 * time.Millisecond
	assert.Check(tb, !a.After(b.Add(tick)), "%s (%v) is later than %s (%v)", first, a, second, b)
}

func Sorted[T ~int](ns ...T) []T {
	slices.Sort(ns)
	return ns
}

func DecodeJSON(tb testing.TB, text string, into any) {
	tb.Helper()
	assert.NilError(tb, json.Unmarshal([]byte(text), into), "no JSON as expected: %s", fmt.Sprintf("%.400s", text))
}

// Dial tries to connect to a socket.
func Dial(socket string) error {
	conn, err := net.Dial("unix", socket)
	if err == nil {
		conn.Close()
	}
	return err
}
