//go:build linux

package ctrd

import (
	"context"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/snapshots"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/poll"
)

// CountContents returns how many containers, images, blobs and snapshots the question's containerd namespace has, by
// these names. A namespace that has any cannot be removed. A task is none of them.
func (d *Daemon) CountContents() map[string]int {
	d.q.Helper()
	ctx := context.Background()
	containers, err := d.client.ContainerService().List(ctx)
	assert.NilError(d.q, err)
	images, err := d.client.ImageService().List(ctx)
	assert.NilError(d.q, err)
	n := map[string]int{"containers": len(containers), "images": len(images), "blobs": 0, "snapshots": 0}
	assert.NilError(d.q, d.client.ContentStore().Walk(ctx, func(content.Info) error { n["blobs"]++; return nil }))
	assert.NilError(d.q, d.client.SnapshotService("").Walk(ctx, func(context.Context, snapshots.Info) error {
		n["snapshots"]++
		return nil
	}))
	return n
}

// CommittedSnapshots returns how many committed snapshots the question's containerd namespace has. A layer's snapshot is committed when the
// layer is unpacked.
func (d *Daemon) CommittedSnapshots() int {
	d.q.Helper()
	n, err := d.committedSnapshots()
	assert.NilError(d.q, err)
	return n
}

func (d *Daemon) committedSnapshots() (n int, err error) {
	err = d.client.SnapshotService("").Walk(context.Background(), func(_ context.Context, info snapshots.Info) error {
		if info.Kind == snapshots.KindCommitted {
			n++
		}
		return nil
	})
	return n, err
}

// HasCommittedSnapshots returns a check that succeeds when there are n committed snapshots.
func (d *Daemon) HasCommittedSnapshots(n int) poll.Check {
	return func(poll.LogT) poll.Result {
		committed, err := d.committedSnapshots()
		if err != nil {
			return poll.Error(err)
		}
		if committed != n {
			return poll.Continue("%d snapshots are committed, want %d", committed, n)
		}
		return poll.Success()
	}
}
