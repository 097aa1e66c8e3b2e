//go:build linux

package check

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"gotest.tools/v3/assert"

	"cdblab/helpers/proc"
)

// ProcessSettings is what the kernel shows of a process that config.json decides, in words that two processes can share.
func ProcessSettings(tb testing.TB, p proc.Process) map[string]string {
	tb.Helper()
	out := map[string]string{
		"args": strings.Join(p.Args, " "), "env": strings.Join(p.Env, " "), "exe": p.Exe,
		"uid": fmt.Sprint(p.UID), "cwd": proc.Cwd(tb, p.PID),
		"namespaces": strings.Join(p.OwnNamespaces(proc.Self(tb).Identity), " "),
		"mounts":     strings.Join(slices.Sorted(slices.Values(MountPoints(p))), " "), // in which order it masks is the runtime's
		"NoNewPrivs": proc.Status(tb, p.PID, "NoNewPrivs"), "Seccomp": proc.Status(tb, p.PID, "Seccomp"),
		"open files": fmt.Sprint(proc.Limit(tb, p.PID, "Max open files")),
	}
	for _, set := range []string{"CapBnd", "CapEff", "CapPrm", "CapInh", "CapAmb"} {
		out[set] = proc.Bits(tb, p.PID, set).String()
	}
	for hierarchy, path := range p.Cgroups {
		out["cgroup "+hierarchy] = path
	}
	return out
}

// FDTargets lists what the descriptors of a process refer to.
func FDTargets(p proc.Process) []string {
	var out []string
	for _, t := range p.FDs {
		out = append(out, t)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// StatInRoot looks at a file as the process sees it.
func StatInRoot(tb testing.TB, pid proc.PID, path string) *syscall.Stat_t {
	tb.Helper()
	info, err := os.Stat(filepath.Join("/proc", strconv.Itoa(int(pid)), "root", path))
	assert.NilError(tb, err)
	return info.Sys().(*syscall.Stat_t)
}
