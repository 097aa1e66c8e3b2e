//go:build linux && vmlab

package cdblab

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	snapshotsapi "github.com/containerd/containerd/v2/core/snapshots"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/ctrd"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
)

// A snapshot is protected if references lead to it from a root: an image, a container, a lease, or a label containerd.io/gc.root. A
// protected snapshot also protects the snapshots below it. The next collection removes all others.
//
// The collector starts at the roots. It follows the references of records and of labels (containerd.io/gc.ref), and removes the other
// blobs and snapshots. So removing an image removes a name. Its files go with the next collection, unless another root leads to them. ctr
// labels the snapshots that it prepares by hand. A client that sets no label and holds no lease may lose its snapshot at any moment.
//
// Before a containerd namespace can be removed, its containers and images have to go, and after those the garbage.
//
// Hint: `ctr snapshots info KEY`, `ctr leases ls`, and what is below io.containerd.snapshotter.v1.overlayfs/snapshots.
// Spec: https://github.com/containerd/containerd/blob/main/docs/garbage-collection.md#garbage-collection-labels
func TestTask_WhoProtectsASnapshotFromGarbageCollection(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Who protects a snapshot from garbage collection?")
	defer q.Recover()
	d := ctrd.Start(q, ctrd.WithConfig(ctrd.GarbageOnDemand))
	ctx := context.Background()
	snapshots := d.Client().SnapshotService("overlayfs")

	q.Step("pull an image, and make four snapshots over its layer: they differ in what refers to them")
	ref := d.PullImage()
	var unpacked []string
	assert.NilError(q, snapshots.Walk(ctx, func(_ context.Context, info snapshotsapi.Info) error {
		unpacked = append(unpacked, info.Name)
		return nil
	}))
	assert.Assert(q, len(unpacked) > 0, "the pull of %s has unpacked nothing: it has no snapshot", ref)
	if len(unpacked) > 1 {
		q.Skipf("%s has more than one layer, and this is about snapshots over one: unset CDB_IMAGE", ref)
	}
	chain := unpacked[0]
	lease, err := d.Client().LeasesService().Create(ctx, leases.WithID("cdb-lease"), leases.WithExpiration(time.Hour))
	assert.NilError(q, err)
	q.LogCommand("ctr -n %s leases create --id %s --expires 1h   # and Prepare(by-lease) by a client that names it",
		d.Namespace, lease.ID)
	_, err = snapshots.Prepare(leases.WithLease(ctx, lease.ID), "by-lease", chain)
	assert.NilError(q, err)
	d.CreateContainer(ref, "by-container")
	d.Ctr("snapshots", "prepare", "by-label", chain)
	_, err = snapshots.Prepare(ctx, "by-nobody", chain)
	assert.NilError(q, err)
	q.LogCommand("ctr -n %[1]s snapshots prepare by-nobody %[2]s; ctr -n %[1]s snapshots label by-nobody containerd.io/gc.root=",
		d.Namespace, chain)
	info, err := snapshots.Stat(ctx, "by-label")
	assert.NilError(q, err)
	assert.Check(q, info.Labels["containerd.io/gc.root"] != "", "ctr did not label what it prepared: %v", info.Labels)

	watched := watchSnapshots(d, chain, "by-container", "by-label", "by-lease", "by-nobody")
	now := watched.remaining(q)
	assert.Assert(q, cmp.DeepEqual(now, []string{"layer", "by-container", "by-label", "by-lease", "by-nobody"}))
	q.Fact("snapshots", now)

	q.Step("collect the garbage: the snapshot to which nothing refers is removed from the list and from the disk")
	d.CollectGarbage()
	now = watched.remaining(q)
	assert.Assert(q, cmp.DeepEqual(now, []string{"layer", "by-container", "by-label", "by-lease"}))
	q.Fact("snapshots after a garbage collection", now)

	q.Control("delete the container and keep its snapshot: nothing refers to it now, and the next garbage collection removes it")
	d.Ctr("containers", "delete", "--keep-snapshot", "by-container")
	assert.Check(q, cmp.Contains(watched.remaining(q), "by-container"), "gone before a garbage collection")
	d.CollectGarbage()
	now = watched.remaining(q)
	assert.Check(q, cmp.DeepEqual(now, []string{"layer", "by-label", "by-lease"}))
	q.Fact("snapshots without the container", now)

	q.Control("delete the lease: the next garbage collection removes its snapshot, too")
	d.Ctr("leases", "delete", lease.ID)
	assert.Check(q, cmp.Contains(watched.remaining(q), "by-lease"), "gone before a garbage collection")
	d.CollectGarbage()
	now = watched.remaining(q)
	assert.Check(q, cmp.DeepEqual(now, []string{"layer", "by-label"}))
	q.Fact("snapshots without the lease", now)

	q.Step("remove the image: a name has gone, and its blobs stay until they are collected")
	count := len(file.Names(q, d.BlobDir()))
	d.Ctr("images", "rm", ref)
	assert.Check(q, cmp.Equal(strings.TrimSpace(d.Ctr("images", "ls", "-q").Stdout), ""))
	assert.Check(q, cmp.Len(file.Names(q, d.BlobDir()), count))
	assert.Check(q, cmp.Contains(watched.remaining(q), "layer"))
	refused := tryRemoveNamespace(q, d)
	assert.Check(q, strings.Contains(refused, "blobs") && strings.Contains(refused, "snapshots"), refused)
	q.Fact("blobs on disk, without the image", len(file.Names(q, d.BlobDir())))
	q.Fact("refusal of namespaces remove, without the image", refused)

	q.Step("collect the garbage: the blobs have gone, and the layer stays, because a snapshot with a label is over it")
	d.CollectGarbage()
	assert.Check(q, cmp.Len(file.Names(q, d.BlobDir()), 0))
	assert.Check(q, cmp.Equal(strings.TrimSpace(d.Ctr("content", "ls", "-q").Stdout), ""))
	now = watched.remaining(q)
	assert.Check(q, cmp.DeepEqual(now, []string{"layer", "by-label"}))
	refused = tryRemoveNamespace(q, d)
	assert.Check(q, !strings.Contains(refused, "blobs") && strings.Contains(refused, "snapshots"), refused)
	q.Fact("blobs on disk, collected", len(file.Names(q, d.BlobDir())))
	q.Fact("snapshots, collected", now)
	q.Fact("refusal of namespaces remove, collected", refused)

	q.Control("take the label off: both snapshots are removed, and now the namespace can be removed")
	d.Ctr("snapshots", "label", "by-label", "containerd.io/gc.root=")
	d.CollectGarbage()
	now = watched.remaining(q)
	assert.Check(q, cmp.DeepEqual(now, []string{}))
	assert.Check(q, cmp.Len(file.Names(q, d.SnapshotsDir()), 0))
	q.Fact("snapshots without the label", now)
	d.Ctr("namespaces", "remove", d.Namespace)
	namespaces := strings.Fields(d.Ctr("namespaces", "ls", "-q").Stdout)
	assert.Check(q, !slices.Contains(namespaces, d.Namespace), "the namespaces after namespaces remove: %v", namespaces)
	q.Fact("the namespace is listed", slices.Contains(namespaces, d.Namespace))

	q.Answer("A snapshot is protected if references lead to it from a root: an image, a container, a lease, or a label " +
		"containerd.io/gc.root. A protected snapshot also protects the snapshots below it. The next collection removes all others.")
}

// watchedSnapshots are the snapshot of the image's layer and those that the question makes over it.
type watchedSnapshots struct {
	d     *ctrd.Daemon
	chain string            // the chain ID of the layer, which is the key of its snapshot
	keys  []string          // of all snapshots, the layer's first
	dirOf map[string]string // by the key; the directory goes with the snapshot
}

// watchSnapshots finds out the directories of the snapshots while all of them exist.
func watchSnapshots(d *ctrd.Daemon, chain string, over ...string) watchedSnapshots {
	dirOf := map[string]string{}
	for _, key := range over {
		overlay := d.SnapshotOverlay(key)
		dirOf[key], dirOf[chain] = filepath.Dir(overlay.Upper), filepath.Dir(overlay.Lower[0])
	}
	return watchedSnapshots{d: d, chain: chain, keys: append([]string{chain}, over...), dirOf: dirOf}
}

// remaining lists the snapshots that exist. The list of the snapshotter and the directories on the disk must agree.
func (w watchedSnapshots) remaining(q *lab.Q) []string {
	listed, onDisk := []string{}, []string{}
	var keys []string // the first column; the second one is the parent's key
	for line := range strings.Lines(w.d.Ctr("snapshots", "ls").Stdout) {
		if row := strings.Fields(line); len(row) > 0 {
			keys = append(keys, row[0])
		}
	}
	for _, key := range w.keys {
		name := key
		if key == w.chain {
			name = "layer"
		}
		if slices.Contains(keys, key) {
			listed = append(listed, name)
		}
		if file.Exists(w.dirOf[key]) {
			onDisk = append(onDisk, name)
		}
	}
	assert.Check(q, cmp.DeepEqual(onDisk, listed), "directories against ctr snapshots ls")
	return onDisk
}

// tryRemoveNamespace tries to remove the namespace, which has to be refused, and returns from the refusal what the namespace still has.
func tryRemoveNamespace(q *lab.Q, d *ctrd.Daemon) string {
	q.Helper()
	const words = "must be empty"
	r := d.Refused(words, "namespaces", "remove", d.Namespace)
	return strings.TrimSpace(r.Stderr[max(0, strings.LastIndex(r.Stderr, words)):])
}
