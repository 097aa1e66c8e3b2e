//go:build linux

package image

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"gotest.tools/v3/assert"

	"cdblab/helpers/rootfs"
)

// busybox returns the lab's root filesystem.
func busybox(t *testing.T) *rootfs.FS {
	t.Helper()
	path, err := exec.LookPath("busybox")
	if err == nil {
		err = rootfs.CheckStatic(path)
	}
	if err != nil {
		t.Skipf("no static busybox (%v): run make deps to get one", err)
	}
	fs, err := rootfs.Busybox(path)
	assert.NilError(t, err)
	return fs
}

// newImage returns an image and its layers. It asserts that the first layer is the root filesystem.
func newImage(t *testing.T, fs *rootfs.FS, newIndex func(*rootfs.FS) (v1.ImageIndex, error)) (v1.ImageIndex, []v1.Layer) {
	t.Helper()
	digest, err := fs.Digest()
	assert.NilError(t, err)
	index, err := newIndex(fs)
	assert.NilError(t, err)
	manifest, err := index.IndexManifest()
	assert.NilError(t, err)
	assert.Equal(t, len(manifest.Manifests), 1)
	img, err := index.Image(manifest.Manifests[0].Digest)
	assert.NilError(t, err)
	layers, err := img.Layers()
	assert.NilError(t, err)
	diffID, err := layers[0].DiffID()
	assert.NilError(t, err)
	assert.Equal(t, diffID.String(), digest)
	return index, layers
}

func TestIndex_HasTheRootFilesystemAsItsOnlyLayer(t *testing.T) {
	fs := busybox(t)
	index, layers := newImage(t, fs, Index)
	assert.Equal(t, len(layers), 1)

	again, err := Index(fs)
	assert.NilError(t, err)
	first, err := index.Digest()
	assert.NilError(t, err)
	second, err := again.Digest()
	assert.NilError(t, err)
	assert.Equal(t, first, second)
}

func TestListen_NamesTheAddressAndHowToFindItsOwner(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	defer l.Close()
	_, err = Listen(l.Addr().String())
	assert.ErrorContains(t, err, l.Addr().String())
	assert.ErrorContains(t, err, "ss -ltnp")
}

// Other programs on the machine can reach the registry. They get images, and can change nothing.
func TestRegistry_RefusesPushes(t *testing.T) {
	reached := false
	handler := readOnly(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"} {
		reached = false
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(method, "/v2/library/busybox/blobs/uploads/", nil))
		good := method == "GET" || method == "HEAD"
		assert.Check(t, reached == good, method)
		assert.Check(t, good == (w.Code == http.StatusOK), "%s: %d", method, w.Code)
	}
}
