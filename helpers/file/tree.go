//go:build linux

package file

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
)

// Tree returns the files below a directory by their path in it. The value describes the file: its type and mode, and the
// digest of a regular file or the target of a symbolic link.
func Tree(tb testing.TB, dir string) map[string]string {
	tb.Helper()
	tree := map[string]string{}
	assert.NilError(tb, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		info, err := entry.Info()
		if err != nil || name == "." {
			return err
		}
		tree[name] = info.Mode().String()
		switch {
		case info.Mode().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			tree[name] += fmt.Sprintf(" sha256:%x", sha256.Sum256(data))
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			tree[name] += " → " + target
		}
		return nil
	}))
	return tree
}

// Owner returns the owner of a file as its file system has it, in the form uid:gid.
func Owner(tb testing.TB, path string) string {
	tb.Helper()
	var stat unix.Stat_t
	assert.NilError(tb, unix.Stat(path, &stat))
	return fmt.Sprintf("%d:%d", stat.Uid, stat.Gid)
}
