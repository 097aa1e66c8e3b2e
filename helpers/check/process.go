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

	"golang.org/x/sys/unix"
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

// Device describes a device file by its type (c, b or p), numbers, mode and owner: "c 1:3, mode 0666, owner 0:0".
func Device(kind rune, major, minor int64, mode, uid, gid uint32) string {
	return fmt.Sprintf("%c %d:%d, mode %04o, owner %d:%d", kind, major, minor, mode, uid, gid)
}

// DeviceInRoot returns what [Device] says of a file in the root directory of the process. The type of another file than a device is "?".
func DeviceInRoot(tb testing.TB, pid proc.PID, path string) string {
	tb.Helper()
	st := StatInRoot(tb, pid, path)
	kind, ok := map[uint32]rune{syscall.S_IFCHR: 'c', syscall.S_IFBLK: 'b', syscall.S_IFIFO: 'p'}[st.Mode&syscall.S_IFMT]
	if !ok {
		kind = '?'
	}
	return Device(kind, int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev)), st.Mode&0o7777, st.Uid, st.Gid)
}

// StatInRoot returns the stat(2) of a path in the root directory of the process.
func StatInRoot(tb testing.TB, pid proc.PID, path string) *syscall.Stat_t {
	tb.Helper()
	info, err := os.Stat(filepath.Join("/proc", strconv.Itoa(int(pid)), "root", path))
	assert.NilError(tb, err)
	return info.Sys().(*syscall.Stat_t)
}
