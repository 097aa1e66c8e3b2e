package dist

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"time"
)

// A File of the tarball has its content.
type File struct {
	Mode    fs.FileMode // 0644 or 0755
	Content []byte
}

// Write writes a tarball with the files, by their names below [Top], and with a file of their digests. All times are modified, and
// the owner is root: the bytes depend on nothing else.
func Write(w io.Writer, files map[string]File, modified time.Time) error {
	files = maps.Clone(files)
	files[SumsFile] = File{0o644, sums(files)}
	zip := gzip.NewWriter(w) // the best compression takes three times as long, and saves less than 1 %
	archive := tar.NewWriter(zip)
	add := func(h *tar.Header, content []byte) error {
		h.ModTime, h.Format = modified.UTC().Truncate(time.Second), tar.FormatUSTAR
		if err := archive.WriteHeader(h); err != nil {
			return fmt.Errorf("write %s: %w", h.Name, err)
		}
		_, err := archive.Write(content)
		return err
	}
	for _, dir := range dirs(files) {
		if err := add(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755}, nil); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		f := files[name]
		h := &tar.Header{Typeflag: tar.TypeReg, Name: path.Join(Top, name), Mode: int64(f.Mode), Size: int64(len(f.Content))}
		if err := add(h, f.Content); err != nil {
			return err
		}
	}
	return errors.Join(archive.Close(), zip.Close())
}

// dirs returns the directories of the files, each after its parent.
func dirs(files map[string]File) []string {
	set := map[string]bool{Top: true}
	for name := range files {
		for dir := path.Dir(path.Join(Top, name)); dir != "."; dir = path.Dir(dir) {
			set[dir] = true
		}
	}
	return slices.Sorted(maps.Keys(set))
}

// sums returns the digests of the files in the form of sha256sum.
func sums(files map[string]File) []byte {
	var b bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(&b, "%x  %s\n", sha256.Sum256(files[name].Content), name)
	}
	return b.Bytes()
}
