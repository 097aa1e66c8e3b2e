//go:build linux

package cgroup

import (
	"os"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// parseHierarchies returns only hierarchies below /sys/fs/cgroup, whatever a mountinfo file contains.
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
			if !strings.HasPrefix(h.Mountpoint, mountRoot) {
				t.Errorf("a hierarchy at %q", h.Mountpoint)
			}
			if h.V2 && h.Name != "unified" {
				t.Errorf("v2 and named %q", h.Name)
			}
		}
		if mode := ModeOf(hs); (mode == "") != (len(hs) == 0) {
			t.Errorf("%d hierarchies are the mode %q", len(hs), mode)
		}
	})
}

func TestControllersAndMode_FollowTheMounts(t *testing.T) {
	assert.Equal(t, controllers("rw,cpu,cpuacct"), "cpu,cpuacct")
	assert.Equal(t, controllers("rw,xattr,name=systemd"), "name=systemd")
	assert.Equal(t, controllers("rw,favordynmods,pids"), "pids")
	assert.Equal(t, ModeOf([]Hierarchy{{Name: "pids"}, {Name: "unified", V2: true}}), ModeHybrid)
	assert.Equal(t, ModeOf([]Hierarchy{{Name: "pids"}}), ModeV1)
	assert.Equal(t, ModeOf([]Hierarchy{{Name: "unified", V2: true}}), ModeV2)
	assert.Equal(t, ModeOf(nil), Mode(""))
}
