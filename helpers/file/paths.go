//go:build linux

package file

import (
	"io/fs"
	"path/filepath"
	"testing"

	"gotest.tools/v3/assert"
)

// PathsBelow lists the paths of a directory and of all that is below it. Directories named skip are listed without what is below
// them.
func PathsBelow(tb testing.TB, dir, skip string) []string {
	tb.Helper()
	var out []string
	assert.NilError(tb, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		out = append(out, path)
		if d != nil && d.Name() == skip {
			return fs.SkipDir
		}
		return err
	}))
	return out
}
