//go:build linux

package ctrd

import (
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"

	"cdblab/helpers/check"
)

// contentStore is the directory of containerd's content store below its root.
const contentStore = "io.containerd.content.v1.content"

// BlobDir returns the directory of the daemon's blobs. Each blob is a file that is named by its digest.
func (d *Daemon) BlobDir() string { return filepath.Join(d.Root, contentStore, "blobs/sha256") }

// IngestDir returns the directory of the downloads that are in progress.
func (d *Daemon) IngestDir() string { return filepath.Join(d.Root, contentStore, "ingest") }

// BlobPath returns the file of a blob.
func (d *Daemon) BlobPath(blob digest.Digest) string {
	return filepath.Join(d.BlobDir(), blob.Encoded())
}

// ReadBlob reads a blob from the disk. It fails the question unless the digest of the bytes is the blob's name.
func (d *Daemon) ReadBlob(blob digest.Digest) []byte {
	d.q.Helper()
	path := d.BlobPath(blob)
	d.q.LogCommand("sha256sum %s", path)
	data, err := os.ReadFile(path)
	if err != nil {
		d.q.Fatalf("read blob %s: %v", blob, err)
	}
	if got := digest.FromBytes(data); got != blob {
		d.q.Fatalf("the bytes in %s have the digest %s, want %s", path, got, blob)
	}
	return data
}

// DecodeBlob reads a blob that is JSON into a value.
func (d *Daemon) DecodeBlob(blob digest.Digest, into any) {
	d.q.Helper()
	check.DecodeJSON(d.q, string(d.ReadBlob(blob)), into)
}

// BlobDigests returns the digests of blobs, given the names of their files.
func BlobDigests(files []string) []string {
	var out []string
	for _, f := range files {
		out = append(out, digest.NewDigestFromEncoded(digest.SHA256, f).String())
	}
	return out
}

// BlobFiles returns the names of the blobs' files, sorted.
func BlobFiles(blobs []digest.Digest) []string {
	var out []string
	for _, blob := range blobs {
		out = append(out, blob.Encoded())
	}
	slices.Sort(out)
	return out
}

// SnapshotterDir returns the directory of one of the daemon's snapshotters.
func (d *Daemon) SnapshotterDir(name string) string {
	return filepath.Join(d.Root, "io.containerd.snapshotter.v1."+name)
}

// SnapshotsDir returns the directory in which overlayfs, the default snapshotter, has a directory for each snapshot.
func (d *Daemon) SnapshotsDir() string {
	return filepath.Join(d.SnapshotterDir("overlayfs"), "snapshots")
}
