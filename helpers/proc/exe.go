//go:build linux

package proc

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
)

// ExeIsProtected reports whether no process can write to the program file that the process runs, also after the process has ended: the
// file is sealed against writing (memfd_create(2)), or it was opened through a mount that is read-only.
func ExeIsProtected(tb testing.TB, pid PID) bool {
	tb.Helper()
	exe, err := os.Open(path(pid, "exe"))
	assert.NilError(tb, err)
	defer exe.Close()
	// A file that is no memfd has no seals: EINVAL.
	if seals, err := unix.FcntlInt(exe.Fd(), unix.F_GET_SEALS, 0); err == nil && seals&unix.F_SEAL_WRITE != 0 {
		return true
	}
	var fs unix.Statfs_t
	assert.NilError(tb, unix.Fstatfs(int(exe.Fd()), &fs))
	return fs.Flags&unix.ST_RDONLY != 0
}
