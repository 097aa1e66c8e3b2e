//go:build linux

package image

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	"gotest.tools/v3/assert"
)

func TestLayerTree(t *testing.T) {
	var layer bytes.Buffer
	assert.NilError(t, writeSecondLayer(&layer))
	tree := LayerTree(t, layer.Bytes())
	assert.Equal(t, tree["etc"], TreeDirectory)
	assert.Equal(t, tree[Deleted], TreeWhiteout)
	assert.Equal(t, tree[Added], digest.FromString("from the second layer\n").String())
}

func TestDirTree(t *testing.T) {
	dir := t.TempDir()
	before := DirTree(t, dir)
	assert.NilError(t, os.Mkdir(filepath.Join(dir, "etc"), 0o755))
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "etc/new"), []byte("new\n"), 0o644))
	assert.NilError(t, os.Symlink("new", filepath.Join(dir, "etc/link")))
	assert.DeepEqual(t, DirTree(t, dir).Without(before), Tree{
		"etc": TreeDirectory, "etc/new": digest.FromString("new\n").String(), "etc/link": "link to new",
	})
}
