//go:build linux

package cgroup

import (
	"os"
	"path/filepath"
	"strings"

	"cdblab/helpers/proc"
)

// Make makes the group in every hierarchy, so that processes can be moved into it. When the test ends, the group is removed;
// it has to be empty by then.
func (g Group) Make() {
	g.tb.Helper()
	for _, h := range g.hierarchies {
		dir := h.Mountpoint
		for name := range strings.SplitSeq(strings.Trim(g.Path, "/"), "/") {
			parent := dir
			dir = filepath.Join(dir, name)
			err := os.MkdirAll(dir, 0o755)
			if err == nil && !h.V2 {
				err = inheritCpuset(parent, dir)
			}
			if err != nil {
				g.tb.Fatalf("make the cgroup %s: %v", dir, err)
			}
		}
	}
	g.tb.Cleanup(func() {
		for _, dir := range g.Dirs() {
			proc.WaitFor(g.tb, Removed(dir))
		}
	})
}

// inheritCpuset copies the processors and memory nodes of the parent. On v1 a new cpuset has none, and takes no process.
func inheritCpuset(parent, dir string) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		own, err := os.ReadFile(filepath.Join(dir, name))
		if os.IsNotExist(err) {
			return nil // a hierarchy without the controller cpuset
		}
		if err != nil || strings.TrimSpace(string(own)) != "" {
			return err
		}
		inherited, err := os.ReadFile(filepath.Join(parent, name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), inherited, 0o644); err != nil {
			return err
		}
	}
	return nil
}
