//go:build linux

package host

import (
	"os"
	"strings"
	"testing"
)

// Whatever a mountinfo file says, a hierarchy that comes of it is below /sys/fs/cgroup and has a name.
func FuzzHierarchies(f *testing.F) {
	own, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(own))
	f.Add("25 30 0:23 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n")
	f.Add("31 25 0:26 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n")
	f.Add("31 25 0:26 / /sys/fs/cgroup/sys\\040temd rw - cgroup cgroup rw,xattr,name=systemd\n")
	f.Fuzz(func(t *testing.T, text string) {
		hs, err := parseHierarchies(strings.NewReader(text))
		if err != nil {
			return
		}
		for _, h := range hs {
			if !pathBegins(h.Mountpoint, "/sys/fs/cgroup") {
				t.Errorf("a hierarchy at %q", h.Mountpoint)
			}
			if h.V2 && h.Name != "unified" {
				t.Errorf("v2 and named %q", h.Name)
			}
		}
		if mode := CgroupMode(hs); (mode == "") != (len(hs) == 0) {
			t.Errorf("%d hierarchies are the mode %q", len(hs), mode)
		}
	})
}

// Whatever a stat file says, a process that is read has a state, and its name may have anything in it.
func FuzzStat(f *testing.F) {
	own, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(own))
	f.Add("7 (a) b (c)) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 1234 0 0")
	f.Add(") (")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parseStat(text)
		if err == nil && p.State == "" {
			t.Errorf("no state in %q", text)
		}
	})
}
