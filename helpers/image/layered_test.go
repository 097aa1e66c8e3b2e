//go:build linux

package image

import (
	"archive/tar"
	"io"
	"os/exec"
	"testing"

	"gotest.tools/v3/assert"

	"cdblab/helpers/rootfs"
)

func TestLayeredIndex_AddsReplacesAndTakesAway(t *testing.T) {
	path, err := exec.LookPath("busybox")
	if err == nil {
		err = rootfs.Static(path)
	}
	if err != nil {
		t.Skipf("no static busybox (%v); to run this: make deps", err)
	}
	fs, err := rootfs.Busybox(path)
	assert.NilError(t, err)
	digest, err := fs.Digest()
	assert.NilError(t, err)

	index, err := LayeredIndex(fs)
	assert.NilError(t, err)
	manifest, err := index.IndexManifest()
	assert.NilError(t, err)
	img, err := index.Image(manifest.Manifests[0].Digest)
	assert.NilError(t, err)
	layers, err := img.Layers()
	assert.NilError(t, err)
	assert.Equal(t, len(layers), 2)
	diffID, err := layers[0].DiffID()
	assert.NilError(t, err)
	assert.Equal(t, diffID.String(), digest)

	var names [2]map[string]bool
	for i, l := range layers {
		names[i] = map[string]bool{}
		r, err := l.Uncompressed()
		assert.NilError(t, err)
		defer r.Close()
		for tr := tar.NewReader(r); ; {
			h, err := tr.Next()
			if err == io.EOF {
				break
			}
			assert.NilError(t, err)
			names[i][h.Name] = true
		}
	}
	assert.Check(t, names[1][Added] && !names[0][Added])
	assert.Check(t, names[1][Replaced] && names[0][Replaced])
	assert.Check(t, names[1]["bin/.wh.wget"] && names[0][Whiteout])
}
