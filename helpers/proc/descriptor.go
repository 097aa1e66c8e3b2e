//go:build linux

package proc

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
)

// A Descriptor is an open file of a process.
type Descriptor struct {
	FD          int
	Target      string // what the link in /proc/PID/fd says
	FileSystem  int64  // the type of the file's file system, such as unix.PROC_SUPER_MAGIC (statfs(2))
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
		out = append(out, Descriptor{FD: fd, Target: target, FileSystem: int64(fs.Type), Directory: info.IsDir(),
			CloseOnExec: fdFlags(tb, pid, fd)&unix.O_CLOEXEC != 0})
	}
	slices.SortFunc(out, func(a, b Descriptor) int { return a.FD - b.FD })
	return out
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
