//go:build linux

package ctrd

import (
	"context"

	"github.com/containerd/containerd/v2/core/mount"
	"gotest.tools/v3/assert"

	"cdblab/helpers/lab"
)

// MountSnapshot mounts the snapshot of a container, as containerd's snapshotter says, until the question ends.
func MountSnapshot(q *lab.Q, d *Daemon, id, at string) {
	q.Helper()
	q.LogCommand("$(ctr -n %s snapshots mounts %s %s)", d.Namespace, at, id)
	ctx := context.Background()
	info, err := d.Client().LoadContainer(ctx, id)
	assert.NilError(q, err)
	record, err := info.Info(ctx)
	assert.NilError(q, err)
	mounts, err := d.Client().SnapshotService(record.Snapshotter).Mounts(ctx, record.SnapshotKey)
	assert.NilError(q, err)
	assert.NilError(q, mount.All(mounts, at))
	q.Cleanup(func() { assert.Check(q, mount.UnmountAll(at, 0)) })
}
