//go:build linux

package ctrd

import (
	"context"

	"github.com/containerd/containerd/v2/core/mount"
	"gotest.tools/v3/assert"
)

// MountSnapshot mounts the snapshot of a container on the directory at, as containerd's snapshotter says, until the
// question ends.
func (d *Daemon) MountSnapshot(id, at string) {
	d.q.Helper()
	d.q.LogCommand("$(ctr -n %s snapshots mounts %s %s)", d.Namespace, at, id)
	ctx := context.Background()
	container, err := d.client.LoadContainer(ctx, id)
	assert.NilError(d.q, err)
	record, err := container.Info(ctx)
	assert.NilError(d.q, err)
	mounts, err := d.client.SnapshotService(record.Snapshotter).Mounts(ctx, record.SnapshotKey)
	assert.NilError(d.q, err)
	assert.NilError(d.q, mount.All(mounts, at))
	d.q.Cleanup(func() { assert.Check(d.q, mount.UnmountAll(at, 0)) })
}
