//go:build linux

// Package check has the assertions and small readers that several sections of the chapter share.
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

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/proc"
)

// OnlyProcessInCgroup asserts, in every hierarchy, that the process is in the cgroup with this path, and that no other process
// is. It reads both /proc/PID/cgroup and the cgroup's cgroup.procs.
func OnlyProcessInCgroup(tb testing.TB, id proc.Identity, path string) {
	tb.Helper()
	hierarchies, err := cgroup.Hierarchies()
	assert.NilError(tb, err)
	for _, h := range hierarchies {
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
	hierarchies, err := cgroup.Hierarchies()
	assert.NilError(tb, err)
	for _, h := range hierarchies {
		_, err := os.Stat(h.Path(path))
		assert.Check(tb, os.IsNotExist(err), "cgroup %s is still there in hierarchy %s: %v", path, h.Name, err)
	}
}

// Int returns the number that s has in decimal notation. Another text fails the test.
func Int(tb testing.TB, s string) int {
	tb.Helper()
	n, err := strconv.Atoi(s)
	assert.NilError(tb, err)
	return n
}

// TableRow returns the fields of the one line of a table whose first field is first. It fails the test if there are more.
func TableRow(tb testing.TB, table, first string) []string {
	tb.Helper()
	var rows [][]string
	for line := range strings.SplitSeq(table, "\n") {
		if f := strings.Fields(line); len(f) > 0 && f[0] == first {
			rows = append(rows, f)
		}
	}
	if len(rows) != 1 {
		tb.Fatalf("expected one line that begins with %q in this table, found %d:\n%s", first, len(rows), table)
	}
	return rows[0]
}

// TableCell returns a field of the line that [TableRow] returns, counted from 0.
func TableCell(tb testing.TB, table, first string, column int) string {
	tb.Helper()
	row := TableRow(tb, table, first)
	if column >= len(row) {
		tb.Fatalf("expected at least %d columns in the line that begins with %q of this table:\n%s", column+1, first, table)
	}
	return row[column]
}

// LastLine returns the last line of a text.
func LastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// Sorted returns its arguments, sorted.
func Sorted[T ~int](ns ...T) []T {
	slices.Sort(ns)
	return ns
}

// DecodeJSON decodes a JSON document. A text that cannot be decoded into the value fails the test.
func DecodeJSON(tb testing.TB, text string, into any) {
	tb.Helper()
	assert.NilError(tb, json.Unmarshal([]byte(text), into), "decode JSON from: %s", fmt.Sprintf("%.400s", text))
}

// Dial returns the error of connecting to a unix socket, or nil if a process accepts the connection.
func Dial(socket string) error {
	conn, err := net.Dial("unix", socket)
	if err == nil {
		conn.Close()
	}
	return err
}
