//go:build linux

package image

import (
	"net"
	"os/exec"
	"testing"

	"gotest.tools/v3/assert"

	"cdblab/helpers/rootfs"
)

func TestIndex_HasTheRootfsAsItsOneLayer(t *testing.T) {
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

	index, err := Index(fs)
	assert.NilError(t, err)
	manifest, err := index.IndexManifest()
	assert.NilError(t, err)
	assert.Equal(t, len(manifest.Manifests), 1)
	img, err := index.Image(manifest.Manifests[0].Digest)
	assert.NilError(t, err)
	layers, err := img.Layers()
	assert.NilError(t, err)
	assert.Equal(t, len(layers), 1)
	diffID, err := layers[0].DiffID()
	assert.NilError(t, err)
	assert.Equal(t, diffID.String(), digest)

	again, err := Index(fs)
	assert.NilError(t, err)
	first, err := index.Digest()
	assert.NilError(t, err)
	second, err := again.Digest()
	assert.NilError(t, err)
	assert.Equal(t, first, second)
}

func TestListen_SaysWhoMayHaveThePort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	defer l.Close()
	_, err = Listen(l.Addr().String())
	assert.ErrorContains(t, err, l.Addr().String())
	assert.ErrorContains(t, err, "ss -ltnp")
}
