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

	"cdblab/helpers/proc"
)

// Mounts reads the process's mount table.
func Mounts(tb testing.TB, p proc.Process) []*mountinfo.Info {
	tb.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/mountinfo", p.PID))
	assert.NilError(tb, err)
	defer f.Close()
	ms, err := mountinfo.GetMountsFromReader(f, nil)
	assert.NilError(tb, err)
	return ms
}

// MountOn is the last mount on a path, which hides those before it.
func TopMount(tb testing.TB, ms []*mountinfo.Info, path string) *mountinfo.Info {
	tb.Helper()
	for _, m := range slices.Backward(ms) {
		if m.Mountpoint == path {
			return m
		}
	}
	tb.Fatalf("nothing is mounted on %s", path)
	return nil
}

// MountPoints lists where something is mounted in the process's mount namespace.
func MountPoints(p proc.Process) []string {
	var out []string
	for _, m := range p.Mounts {
		point, _, _ := strings.Cut(m, " ")
		out = append(out, point)
	}
	return out
}
