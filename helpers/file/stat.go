//go:build linux

package file

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
)

// StatDir returns the inode, size and change time of each file in a directory, by name. They show whether a file was
// written again.
func StatDir(tb testing.TB, dir string) map[string]string {
	tb.Helper()
	out := map[string]string{}
	for _, name := range Names(tb, dir) {
		var st unix.Stat_t
		assert.NilError(tb, unix.Stat(filepath.Join(dir, name), &st))
		out[name] = fmt.Sprintf("inode %d, %d bytes, changed %d.%09d", st.Ino, st.Size, st.Ctim.Sec, st.Ctim.Nsec)
	}
	return out
}

// Size returns the size of a file in bytes.
func Size(tb testing.TB, path string) int64 {
	tb.Helper()
	info, err := os.Stat(path)
	assert.NilError(tb, err)
	return info.Size()
}

// DiskUsage returns how many bytes a directory and everything in it take on the disk, as du(1) counts them.
func DiskUsage(tb testing.TB, dir string) int64 {
	tb.Helper()
	var blocks int64
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil {
			err = unix.Lstat(path, &st)
		}
		blocks += st.Blocks
		return err
	})
	assert.NilError(tb, err)
	return blocks * 512
}

// WritableByOthers lists the files below a directory that the group or other users may write, with their modes. It does not look
// into directories with the name skip. Symbolic links have no mode of their own.
func WritableByOthers(tb testing.TB, dir, skip string) []string {
	tb.Helper()
	out := []string{}
	assert.NilError(tb, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && entry.Name() == skip {
			return fs.SkipDir
		}
		info, err := entry.Info()
		if err == nil && info.Mode()&fs.ModeSymlink == 0 && info.Mode()&0o022 != 0 {
			name, _ := filepath.Rel(dir, path)
			out = append(out, fmt.Sprintf("%s %v", name, info.Mode()))
		}
		return err
	}))
	return out
}

// AccessOf returns the type, the mode and the owner of a file: "socket 0600 0:0". Of a symbolic link it returns the link's own.
func AccessOf(tb testing.TB, path string) string {
	tb.Helper()
	var stat unix.Stat_t
	assert.NilError(tb, unix.Lstat(path, &stat), path)
	kind := map[uint32]string{
		unix.S_IFSOCK: "socket", unix.S_IFDIR: "directory", unix.S_IFREG: "file", unix.S_IFIFO: "FIFO", unix.S_IFLNK: "link",
	}[stat.Mode&unix.S_IFMT]
	return fmt.Sprintf("%s %04o %d:%d", kind, stat.Mode&0o7777, stat.Uid, stat.Gid)
}
