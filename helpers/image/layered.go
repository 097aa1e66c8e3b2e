//go:build linux

package image

import (
	"archive/tar"
	"bytes"
	"io"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"cdblab/helpers/rootfs"
)

// Layered is the name of the lab's image with a second layer on top. The first layer is the same blob as that of the
// lab's image.
const Layered = "docker.io/library/busybox:layered"

// The files that the second layer adds to the first, replaces in it and deletes from it.
const (
	Added    = "etc/layer"
	Replaced = "etc/group"
	Deleted  = "bin/wget"
)

// secondLayer has the files of the second layer. An empty file with the prefix .wh. is a whiteout: it deletes the file
// whose name follows (https://github.com/opencontainers/image-spec/blob/main/layer.md#whiteouts).
var secondLayer = []struct{ name, content string }{
	{Added, "from the second layer\n"},
	{Replaced, "root:x:0:\nnobody:x:65534:\nlayer:x:2:\n"},
	{"bin/.wh.wget", ""},
}

// LayeredIndex returns the image [Layered], as [Index] returns the lab's image.
func LayeredIndex(fs *rootfs.FS) (v1.ImageIndex, error) {
	first, second, err := layers(fs)
	if err != nil {
		return nil, err
	}
	return newIndex(first, second)
}

// layers returns the two layers, uncompressed.
func layers(fs *rootfs.FS) (first, second []byte, err error) {
	var of [2]bytes.Buffer
	if err := fs.WriteTar(&of[0]); err != nil {
		return nil, nil, err
	}
	err = writeSecondLayer(&of[1])
	return of[0].Bytes(), of[1].Bytes(), err
}

func writeSecondLayer(to io.Writer) error {
	tw := tar.NewWriter(to)
	for _, dir := range []string{"bin/", "etc/"} {
		h := tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755, ModTime: time.Unix(0, 0)}
		if err := tw.WriteHeader(&h); err != nil {
			return err
		}
	}
	for _, f := range secondLayer {
		h := tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: 0o644, Size: int64(len(f.content)), ModTime: time.Unix(0, 0)}
		if err := tw.WriteHeader(&h); err != nil {
			return err
		}
		if _, err := tw.Write([]byte(f.content)); err != nil {
			return err
		}
	}
	return tw.Close()
}
