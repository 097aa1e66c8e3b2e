//go:build linux

package file

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
)

// Version is a file at one moment. Two equal versions are one file that was not written in between.
type Version struct {
	Inode    uint64
	Modified time.Time
	Content  string // without the white space around it
}

// VersionOf returns the present version of a file.
func VersionOf(tb testing.TB, path string) Version {
	tb.Helper()
	info, err := os.Stat(path)
	assert.NilError(tb, err)
	var sys unix.Stat_t
	assert.NilError(tb, unix.Stat(path, &sys))
	return Version{Inode: sys.Ino, Modified: info.ModTime(), Content: Read(tb, path)}
}
