//go:build linux

package proc

import (
	"slices"
	"strings"
	"testing"
)

// MemoryPolicies returns the memory policies of a process's mappings, each once, sorted. A policy is the second word of a
// line of /proc/PID/numa_maps, such as "default" or "bind:0" (proc_pid_numa_maps(5)).
func MemoryPolicies(tb testing.TB, pid PID) []string {
	tb.Helper()
	var out []string
	for line := range strings.Lines(File(tb, pid, "numa_maps")) {
		out = append(out, strings.Fields(line)[1])
	}
	slices.Sort(out)
	return slices.Compact(out)
}
