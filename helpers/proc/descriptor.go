//go:build linux

package proc

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/poll"
)

// A Descriptor is an open file of a process.
type Descriptor struct {
	FD          int
	Target      string // what the link in /proc/PID/fd says
	FileSystem  int64  // the type of the file's file system, such as unix.PROC_SUPER_MAGIC (statfs(2))
	Device      uint64 // the device of the file's file system (st_dev of stat(2))
	Directory   bool
	CloseOnExec bool
}

// Descriptors returns all descriptors of a process, sorted by number.
func Descriptors(tb testing.TB, pid PID) []Descriptor {
	tb.Helper()
	fds, err := readFDs(pid)
	assert.NilError(tb, err)
	var out []Descriptor
	for fd, target := range fds {
		link := filepath.Join(path(pid, "fd"), strconv.Itoa(fd))
		var fs unix.Statfs_t
		assert.NilError(tb, unix.Statfs(link, &fs), "statfs of %s, which is %s", link, target)
		info, err := os.Stat(link)
		assert.NilError(tb, err)
		out = append(out, Descriptor{FD: fd, Target: target, FileSystem: int64(fs.Type), Device: info.Sys().(*syscall.Stat_t).Dev,
			Directory: info.IsDir(), CloseOnExec: fdFlags(tb, pid, fd)&unix.O_CLOEXEC != 0})
	}
	slices.SortFunc(out, func(a, b Descriptor) int { return a.FD - b.FD })
	return out
}

// OnOwnProcfs reports whether a descriptor leads to a procfs that is not the host's: no mount of the host has its device. runc opens a
// procfs that is mounted nowhere, or that of the container. Through the host's, a process would reach /proc/1/root. The mount alone
// would not show it: a mount namespace begins with copies of the host's mounts, and a copy has another number, but the same device.
func (d Descriptor) OnOwnProcfs(tb testing.TB) bool {
	tb.Helper()
	if d.FileSystem != unix.PROC_SUPER_MAGIC {
		return false
	}
	ofHost, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("proc"))
	assert.NilError(tb, err)
	return !slices.ContainsFunc(ofHost, func(m *mountinfo.Info) bool { return unix.Mkdev(uint32(m.Major), uint32(m.Minor)) == d.Device })
}

// DescriptorKinds returns how many descriptors of each kind a process has: socket, pipe, pidfd, eventpoll and the like, and "file" for
// what has a path.
func DescriptorKinds(tb testing.TB, pid PID) map[string]int {
	tb.Helper()
	kinds, err := descriptorKinds(pid)
	assert.NilError(tb, err)
	return kinds
}

func descriptorKinds(pid PID) (map[string]int, error) {
	fds, err := readFDs(pid)
	kinds := map[string]int{}
	for _, target := range fds {
		kinds[descriptorKind(target)]++
	}
	return kinds, err
}

// descriptorKind returns the kind of what a link in /proc/PID/fd names: "socket:[26]", "anon_inode:[pidfd]" (since Linux 6.9 "pidfd:[26]"),
// "anon_inode:inotify" or a path.
func descriptorKind(target string) string {
	kind, rest, special := strings.Cut(target, ":")
	switch {
	case strings.HasPrefix(target, "/") || !special:
		return "file"
	case kind == "anon_inode":
		return strings.Trim(rest, "[]")
	}
	return kind
}

// HasNoMoreDescriptors returns a check that succeeds when a process has, of each kind, at most so many descriptors more than before.
func HasNoMoreDescriptors(pid PID, before map[string]int, more int) poll.Check {
	return func(poll.LogT) poll.Result {
		now, err := descriptorKinds(pid)
		if err != nil {
			return poll.Error(err)
		}
		for kind, n := range now {
			if n > before[kind]+more {
				return poll.Continue("process %d has %d descriptors of the kind %s, and had %d before; of all kinds it has %v", pid, n, kind,
					before[kind], now)
			}
		}
		return poll.Success()
	}
}

// fdFlags returns the flags of a descriptor.
func fdFlags(tb testing.TB, pid PID, fd int) uint64 {
	tb.Helper()
	flags, err := readFDFlags(pid, fd)
	if err != nil {
		tb.Fatalf("read the flags of descriptor %d of process %d: %v", fd, pid, err)
	}
	return flags
}

// readFDFlags reads the flags of a descriptor, which /proc/PID/fdinfo shows in octal digits.
func readFDFlags(pid PID, fd int) (uint64, error) {
	data, err := os.ReadFile(path(pid, filepath.Join("fdinfo", strconv.Itoa(fd))))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, "flags:"); ok {
			return strconv.ParseUint(strings.TrimSpace(value), 8, 64)
		}
	}
	return 0, errors.New("fdinfo has no line with flags")
}
