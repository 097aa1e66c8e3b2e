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

// ProcessSettings returns what config.json decides about a process, as the kernel shows it. Two processes with the same
// configuration have the same settings.
func ProcessSettings(tb testing.TB, p proc.Process) map[string]string {
	tb.Helper()
	out := map[string]string{
		"args": strings.Join(p.Args, " "), "env": strings.Join(p.Env, " "), "exe": p.Exe,
		"uid": fmt.Sprint(p.UID), "cwd": proc.Cwd(tb, p.PID),
		"namespaces": strings.Join(p.OwnNamespaces(proc.Self(tb).Identity), " "),
		// Sorted, because the runtime chooses the order in which it masks paths.
		"mounts":     strings.Join(slices.Sorted(slices.Values(MountPoints(p))), " "),
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

// FDTargets lists what the descriptors of a process refer to, sorted, each target once.
func FDTargets(p proc.Process) []string {
	var out []string
	for _, target := range p.FDs {
		out = append(out, target)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// StatInRoot returns the stat(2) of a path in the root directory of the process.
func StatInRoot(tb testing.TB, pid proc.PID, path string) *syscall.Stat_t {
	tb.Helper()
	info, err := os.Stat(filepath.Join("/proc", strconv.Itoa(int(pid)), "root", path))
	assert.NilError(tb, err)
	return info.Sys().(*syscall.Stat_t)
}
