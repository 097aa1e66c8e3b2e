//go:build linux

package proc

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
)

// ExeIsProtected reports whether no process can write to the program file that the process runs, even after the process has ended.
// See [ExeProtection].
func ExeIsProtected(tb testing.TB, pid PID) bool {
	tb.Helper()
	return ExeProtection(tb, pid) != ""
}

// ExeProtection returns why no process can write to the program file that the process runs, even after the process has ended: "seal" if
// the file is sealed against writing (memfd_create(2)), or "read-only mount" if it was opened through one. For other files it returns "".
func ExeProtection(tb testing.TB, pid PID) string {
	tb.Helper()
	exe, err := os.Open(path(pid, "exe"))
	assert.NilError(tb, err)
	defer exe.Close()
	// A file that is no memfd has no seals: EINVAL.
	if seals, err := unix.FcntlInt(exe.Fd(), unix.F_GET_SEALS, 0); err == nil && seals&unix.F_SEAL_WRITE != 0 {
		return "seal"
	}
	var fs unix.Statfs_t
	assert.NilError(tb, unix.Fstatfs(int(exe.Fd()), &fs))
	if fs.Flags&unix.ST_RDONLY != 0 {
		return "read-only mount"
	}
	return ""
}
