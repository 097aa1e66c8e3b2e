//go:build linux

package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
)

// Tree is what a layer or a directory has, by path: the digest of a file, "link to TARGET", [TreeDirectory] or
// [TreeWhiteout].
type Tree map[string]string

// What is neither a file nor a link in a [Tree].
const (
	TreeDirectory = "directory"
	TreeWhiteout  = "whiteout"
)

// Uncompress returns the bytes of a layer that is compressed with gzip.
func Uncompress(tb testing.TB, layer []byte) []byte {
	tb.Helper()
	r, err := gzip.NewReader(bytes.NewReader(layer))
	assert.NilError(tb, err)
	out, err := io.ReadAll(r)
	assert.NilError(tb, err)
	return out
}

// LayerTree returns what an uncompressed layer has. In a layer, a whiteout is a file whose name begins with .wh.
func LayerTree(tb testing.TB, layer []byte) Tree {
	tb.Helper()
	out := Tree{}
	for tr := tar.NewReader(bytes.NewReader(layer)); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return out
		}
		assert.NilError(tb, err)
		name := path.Clean(h.Name)
		hidden, isWhiteout := strings.CutPrefix(path.Base(name), ".wh.")
		switch {
		case isWhiteout:
			out[path.Join(path.Dir(name), hidden)] = TreeWhiteout
		case h.Typeflag == tar.TypeDir:
			out[name] = TreeDirectory
		case h.Typeflag == tar.TypeSymlink:
			out[name] = "link to " + h.Linkname
		case h.Typeflag == tar.TypeLink:
			out[name] = out[path.Clean(h.Linkname)]
		default:
			sum, err := digest.FromReader(tr)
			assert.NilError(tb, err)
			out[name] = sum.String()
		}
	}
}

// DirTree returns what a directory of an overlay has. There, a whiteout is a character device 0:0.
func DirTree(tb testing.TB, root string) Tree {
	tb.Helper()
	out := Tree{}
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		name := strings.TrimPrefix(path, root+"/")
		switch e.Type() {
		case fs.ModeDir:
			out[name] = TreeDirectory
		case fs.ModeSymlink:
			var to string
			to, err = os.Readlink(path)
			out[name] = "link to " + to
		case 0:
			var data []byte
			data, err = os.ReadFile(path)
			out[name] = digest.FromBytes(data).String()
		default:
			var st unix.Stat_t
			err = unix.Lstat(path, &st)
			out[name] = fmt.Sprintf("%s %d:%d", e.Type(), unix.Major(st.Rdev), unix.Minor(st.Rdev))
			if st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 {
				out[name] = TreeWhiteout
			}
		}
		return err
	})
	assert.NilError(tb, err)
	return out
}

// Without returns what the tree has and the other tree has not, or has otherwise.
func (t Tree) Without(other Tree) Tree {
	out := Tree{}
	for name, what := range t {
		if other[name] != what {
			out[name] = what
		}
	}
	return out
}
