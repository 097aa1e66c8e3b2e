//go:build linux

package dist

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Committed returns an error if the checkout is not the commit: the second build is of the commit.
func (b *Build) Committed(ctx context.Context) error {
	version, _, err := b.version(ctx)
	if err == nil && strings.Contains(version, withChanges) {
		err = errors.New("the checkout has changes that are not committed, and a clone would not have them: commit them first")
	}
	return err
}

// Again builds the tarball a second time, and compares it with the first one. The second build is that of another user: it is made from a
// clone of the commit, in another directory, and with an empty build cache. The error names the files that differ.
func (b *Build) Again(ctx context.Context, first []byte) (err error) {
	if err := b.Committed(ctx); err != nil { // also since the first build
		return err
	}
	dir, err := filepath.Abs(filepath.Join(b.Module, ".lab", "dist", "again"))
	if err == nil {
		err = os.RemoveAll(dir) // of a build that was killed
	}
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	clone := filepath.Join(dir, "clone")
	if err := output(ctx, b.Module, "git", "clone", "--quiet", ".", clone); err != nil {
		return err
	}
	again := *b
	again.Module, again.cross, again.env = clone, nil, []string{"GOCACHE=" + filepath.Join(dir, "cache")}
	var second bytes.Buffer
	if err := again.Write(ctx, &second); err != nil {
		return err
	}
	differ, err := differences(first, second.Bytes())
	switch {
	case err != nil:
		return err
	case len(differ) > 0:
		return fmt.Errorf("two builds of one commit differ in %d files: %s", len(differ), strings.Join(differ, ", "))
	case !bytes.Equal(first, second.Bytes()):
		return errors.New("two builds of one commit have the same files in archives that differ")
	}
	return nil
}

// differences returns the names of the files that are not the same in two tarballs, sorted. [SumsFile] differs with any other, and is left
// out.
func differences(a, b []byte) ([]string, error) {
	filesA, errA := digests(a)
	filesB, errB := digests(b)
	if err := errors.Join(errA, errB); err != nil {
		return nil, err
	}
	names := maps.Clone(filesA)
	maps.Copy(names, filesB)
	delete(names, Top+"/"+SumsFile)
	return slices.DeleteFunc(slices.Sorted(maps.Keys(names)), func(name string) bool { return filesA[name] == filesB[name] }), nil
}

// content is what a file of a tarball is compared by. That of a directory has no digest.
type content struct {
	mode   fs.FileMode
	digest [sha256.Size]byte
}

func digests(tarball []byte) (map[string]content, error) {
	zip, err := gzip.NewReader(bytes.NewReader(tarball))
	if err != nil {
		return nil, err
	}
	files := map[string]content{}
	for archive := tar.NewReader(zip); ; {
		h, err := archive.Next()
		if err == io.EOF {
			return files, nil
		}
		if err != nil {
			return nil, err
		}
		digest := sha256.New()
		if _, err := io.Copy(digest, archive); err != nil {
			return nil, err
		}
		files[strings.TrimSuffix(h.Name, "/")] = content{h.FileInfo().Mode(), [sha256.Size]byte(digest.Sum(nil))}
	}
}
