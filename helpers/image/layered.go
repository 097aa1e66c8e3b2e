//go:build linux

package image

import (
	"archive/tar"
	"bytes"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"cdblab/helpers/rootfs"
)

// Layered is the lab's image with a second layer on top, under a tag of its own. The first layer is the same blob.
const Layered = "docker.io/library/busybox:layered"

// What the second layer does to the first: it adds a file, replaces one and takes one away.
const (
	Added    = "etc/layer"
	Replaced = "etc/group"
	Deleted = "bin/wget"
)

// second is the second layer. A file is taken away by an empty one, whose name says which
// (https://github.com/opencontainers/image-spec/blob/main/layer.md#whiteouts).
var second = []struct{ name, content string }{
	{Added, "from the second layer\n"},
	{Replaced, "root:x:0:\nnobody:x:65534:\nlayer:x:2:\n"},
	{"bin/.wh.wget", ""},
}

// LayeredIndex makes the image of two layers, as [Index] makes that of one.
func LayeredIndex(fs *rootfs.FS) (v1.ImageIndex, error) {
	var base, top bytes.Buffer
	if err := fs.WriteTar(&base); err != nil {
		return nil, err
	}
	if err := writeSecond(&top); err != nil {
		return nil, err
	}
	return index(base.Bytes(), top.Bytes())
}

func writeSecond(to *bytes.Buffer) error {
	tw := tar.NewWriter(to)
	for _, dir := range []string{"bin/", "etc/"} {
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755, ModTime: time.Unix(0, 0)}); err != nil {
			return err
		}
	}
	for _, f := range second {
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
