//go:build linux

package check

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
	"gotest.tools/v3/assert"

	"cdblab/helpers/host"
	"cdblab/helpers/proc"
)

// Mounts returns the mount table of the process.
func Mounts(tb testing.TB, p proc.Process) []*mountinfo.Info {
	tb.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/mountinfo", p.PID))
	assert.NilError(tb, err)
	defer f.Close()
	mounts, err := mountinfo.GetMountsFromReader(f, nil)
	assert.NilError(tb, err)
	return mounts
}

// TopMount returns the last mount on a path, which hides the earlier ones.
func TopMount(tb testing.TB, mounts []*mountinfo.Info, path string) *mountinfo.Info {
	tb.Helper()
	for _, m := range slices.Backward(mounts) {
		if m.Mountpoint == path {
			return m
		}
	}
	tb.Fatalf("expected a mount on %s, found none in a table of %d mounts", path, len(mounts))
	return nil
}

// MountPoints lists the mount points in the process's mount namespace.
func MountPoints(p proc.Process) []string {
	var out []string
	for _, m := range p.Mounts {
		point, _, _ := strings.Cut(m, " ")
		out = append(out, point)
	}
	return out
}

// MountAt returns the mount of the host whose mount point is path (/proc/self/mountinfo), or nil if nothing is mounted there. Of several, it
// returns the uppermost, which hides the others.
func MountAt(tb testing.TB, path string) *mountinfo.Info {
	tb.Helper()
	mounts, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(path))
	assert.NilError(tb, err)
	if len(mounts) == 0 {
		return nil
	}
	return mounts[len(mounts)-1]
}

// SeesHostMounts reports whether the process sees a mount of the host. It looks for a mount below the lab's directory, which
// exists on the host only.
func SeesHostMounts(p proc.Process) bool {
	return slices.ContainsFunc(p.Mounts, func(m string) bool { return strings.HasPrefix(m, host.Dir) })
}
