//go:build linux

package ctrd

import (
	"context"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/image"
)

// PullImage pulls the lab's image from a registry on loopback, under the chapter's name for it, and returns that name.
func (d *Daemon) PullImage() string {
	d.q.Helper()
	ref, ours := d.q.Image()
	if !ours {
		d.Ctr("images", "pull", ref)
		return ref
	}
	registry := image.Serve(d.q)
	d.Ctr("images", "pull", "--hosts-dir", registry.HostsDir(d.q), ref) // absolute: the daemon reads it, and works in another directory
	// A pull asks for the manifest each time. The layer is fetched once, because all containerd namespaces of a daemon
	// share their blobs.
	requests := registry.Requests()
	assert.Check(d.q, cmp.Contains(requests, "HEAD /v2/library/busybox/manifests/latest"), "requests to the registry on loopback")
	d.q.Fact(d.factName("image served from"), "loopback")
	return ref
}

// PullImageAgain pulls from the registry of [Daemon.PullImage]: the same image in another containerd namespace, or another image.
func (d *Daemon) PullImageAgain(ref string) {
	d.q.Helper()
	argv := []string{"images", "pull"}
	if _, ours := d.q.Image(); ours {
		// The registry of the first pull serves until the question ends.
		argv = append(argv, "--hosts-dir", filepath.Join(d.q.Dir, "hosts"))
	}
	d.Ctr(append(argv, ref)...)
}

// LayerDigests returns the digests of an image's compressed layers, from its manifest.
func (d *Daemon) LayerDigests(ref string) []digest.Digest {
	d.q.Helper()
	ctx := context.Background()
	img, err := d.client.GetImage(ctx, ref)
	if err != nil {
		d.q.Fatalf("find image %s: %v", ref, err)
	}
	manifest, err := images.Manifest(ctx, d.client.ContentStore(), img.Target(), platforms.Default())
	if err != nil {
		d.q.Fatalf("read the manifest of %s: %v", ref, err)
	}
	var out []digest.Digest
	for _, l := range manifest.Layers {
		out = append(out, l.Digest)
	}
	return out
}
