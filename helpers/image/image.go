//go:build linux

// Package image makes the lab's image, docker.io/library/busybox:latest, and serves it in a registry on loopback, so
// that the chapter's own commands pull it without a network. The image has one layer, which is the root filesystem of
// the hand-built bundle.
package image

import (
	"bytes"
	"compress/gzip"
	"io"
	"runtime"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"cdblab/helpers/rootfs"
)

// Config is the image's configuration: how to run a container of it. Its values are those of busybox on Docker Hub.
// Only LAB is added: by it a reader finds in a container what came from the image.
var Config = v1.Config{
	Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LAB=from the image config"},
	Cmd: []string{"sh"},
}

// Pause is the name of an image whose program only waits, for the sandboxes of pods. It has the same layer.
const Pause = "docker.io/library/busybox:pause"

// PauseIndex returns the image [Pause], as [Index] returns the lab's image.
func PauseIndex(fs *rootfs.FS) (v1.ImageIndex, error) {
	config := Config
	config.Cmd = []string{"sleep", "86400"}
	return indexWith(config, fs)
}

// InEtc is the name of an image whose config has a WorkingDir, [EtcDir]. It has the same layer.
const InEtc, EtcDir = "docker.io/library/busybox:in-etc", "/etc"

// InEtcIndex returns the image [InEtc], as [Index] returns the lab's image.
func InEtcIndex(fs *rootfs.FS) (v1.ImageIndex, error) {
	config := Config
	config.WorkingDir = EtcDir
	return indexWith(config, fs)
}

// Index returns the image: an index with one manifest, for the platform that this program was built for.
func Index(fs *rootfs.FS) (v1.ImageIndex, error) { return indexWith(Config, fs) }

// indexWith returns an index with an image that has this configuration, and the root filesystem as its one layer.
func indexWith(config v1.Config, fs *rootfs.FS) (v1.ImageIndex, error) {
	var layer bytes.Buffer
	if err := fs.WriteTar(&layer); err != nil {
		return nil, err
	}
	return addImageOf(emptyIndex(), native(), config, layer.Bytes())
}

// newIndex returns an index with an image of these uncompressed layers, the lowest first.
func newIndex(layers ...[]byte) (v1.ImageIndex, error) {
	return addImage(emptyIndex(), native(), layers...)
}

func emptyIndex() v1.ImageIndex { return mutate.IndexMediaType(empty.Index, types.OCIImageIndex) }

// native returns the platform that this program was built for.
func native() v1.Platform {
	platform := v1.Platform{OS: "linux", Architecture: runtime.GOARCH}
	if runtime.GOARCH == "arm64" {
		platform.Variant = "v8"
	}
	return platform
}

// addImage returns an index with one more image, which is for this platform and has these uncompressed layers, the lowest first.
func addImage(index v1.ImageIndex, platform v1.Platform, layers ...[]byte) (v1.ImageIndex, error) {
	return addImageOf(index, platform, Config, layers...)
}

func addImageOf(index v1.ImageIndex, platform v1.Platform, of v1.Config, layers ...[]byte) (v1.ImageIndex, error) {
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for _, layer := range layers {
		l, err := tarball.LayerFromOpener(
			func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer)), nil },
			tarball.WithCompressionLevel(gzip.BestSpeed), tarball.WithCompressedCaching, tarball.WithMediaType(types.OCILayer),
		)
		if err != nil {
			return nil, err
		}
		if img, err = mutate.AppendLayers(img, l); err != nil {
			return nil, err
		}
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.Config = of
	config.OS, config.Architecture, config.Variant = platform.OS, platform.Architecture, platform.Variant
	config.Created = v1.Time{Time: time.Unix(0, 0).UTC()} // constant, so that the same busybox gives the same digests
	if img, err = mutate.ConfigFile(img, config); err != nil {
		return nil, err
	}
	return mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &platform}}), nil
}
