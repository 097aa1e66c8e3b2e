//go:build linux

package cgroup

import (
	"os"
	"path/filepath"
	"strconv"

	"cdblab/helpers/proc"
)

// Add moves a process into the group, in each hierarchy.
func (g Group) Add(pid proc.PID) {
	g.tb.Helper()
	for _, dir := range g.Dirs() {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(int(pid))), 0o644); err != nil {
			g.tb.Fatalf("move process %d into the cgroup %s: %v", pid, g.Path, err)
		}
	}
}
