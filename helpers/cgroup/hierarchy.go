//go:build linux

// Package cgroup reads control groups as the kernel shows them, on v1, hybrid and v2 (cgroups(7)).
package cgroup

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"

	"cdblab/helpers/proc"
)

// Mode is how the cgroup hierarchies are mounted: ModeV1, ModeHybrid or ModeV2.
type Mode string

// The three modes, in systemd's words (https://systemd.io/CGROUP_DELEGATION/).
const (
	ModeV1     Mode = "v1"     // legacy: one hierarchy for each controller or set of controllers
	ModeHybrid Mode = "hybrid" // v1, and a v2 hierarchy beside it that has no controllers
	ModeV2     Mode = "v2"     // unified: one hierarchy with all controllers
)

// Hierarchy is one mounted cgroup hierarchy.
type Hierarchy struct {
	Name       string // the controllers and name of a v1 hierarchy as mounted ("cpu,cpuacct", "name=systemd"); "unified" for v2
	Mountpoint string
	V2         bool
}

// Path returns the directory of a cgroup (such as /cdb-lab/1) in the hierarchy.
func (h Hierarchy) Path(cgroup string) string { return filepath.Join(h.Mountpoint, cgroup) }

// mountRoot is the directory at and below which the hierarchies are mounted.
const mountRoot = "/sys/fs/cgroup"

// Hierarchies returns the cgroup hierarchies mounted below /sys/fs/cgroup, sorted by name.
func Hierarchies() ([]Hierarchy, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseHierarchies(f)
}

// parseHierarchies returns the hierarchies in a mountinfo file (proc_pid_mountinfo(5)).
func parseHierarchies(r io.Reader) ([]Hierarchy, error) {
	mounts, err := mountinfo.GetMountsFromReader(r, mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return nil, err
	}
	var hs []Hierarchy
	for _, m := range mounts {
		if m.Mountpoint != mountRoot && !strings.HasPrefix(m.Mountpoint, mountRoot+"/") {
			continue
		}
		h := Hierarchy{Name: "unified", Mountpoint: m.Mountpoint, V2: m.FSType == "cgroup2"}
		if !h.V2 {
			h.Name = controllers(m.VFSOptions)
		}
		hs = append(hs, h)
	}
	slices.SortFunc(hs, func(a, b Hierarchy) int { return strings.Compare(a.Name, b.Name) })
	return hs, nil
}

// controllers returns the controllers and the name in a v1 hierarchy's super block options ("rw,cpu,cpuacct").
func controllers(options string) string {
	var out []string
	for o := range strings.SplitSeq(options, ",") {
		key, _, _ := strings.Cut(o, "=")
		switch key {
		case "rw", "ro", "xattr", "noprefix", "clone_children", "release_agent", "cpuset_v2_mode", "favordynmods", "seclabel":
		default:
			out = append(out, o)
		}
	}
	return strings.Join(out, ",")
}

// ModeOf returns how the hierarchies are mounted, or "" if there are none.
func ModeOf(hs []Hierarchy) Mode {
	v1 := slices.ContainsFunc(hs, func(h Hierarchy) bool { return !h.V2 })
	v2 := slices.ContainsFunc(hs, func(h Hierarchy) bool { return h.V2 })
	switch {
	case v1 && v2:
		return ModeHybrid
	case v1:
		return ModeV1
	case v2:
		return ModeV2
	}
	return ""
}

// Subtree lists the cgroups of a hierarchy at and below a cgroup, parents first, relative to the root. A cgroup that is removed
// during the walk is no error.
func Subtree(h Hierarchy, cgroup string) []string {
	var out []string
	_ = filepath.WalkDir(h.Path(cgroup), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // it was removed
		}
		if d.IsDir() {
			out = append(out, "/"+strings.TrimPrefix(strings.TrimPrefix(path, h.Mountpoint), "/"))
		}
		return nil
	})
	return out
}

// ProcsIn lists the processes of one cgroup directory. A cgroup that does not exist has none.
func ProcsIn(dir string) []proc.PID {
	data, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return nil
	}
	var pids []proc.PID
	for f := range strings.FieldsSeq(string(data)) {
		if pid, err := strconv.Atoi(f); err == nil && pid > 0 {
			pids = append(pids, proc.PID(pid))
		}
	}
	return pids
}
