//go:build linux && vmlab

package cdblab

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/check"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// containerd namespaces isolate names. The same id in two of them is two containers, which share only the blobs. The kernel knows nothing
// of them.
//
// In containerd's database, each namespace has its own records. Outside of it, the namespace is a directory above the bundle and the
// runtime's state, and a cgroup above the task's. In the name of the shim's socket it is part of the hash. What goes by digest alone is
// there once: a blob that one namespace has fetched is a file that another may refer to, unless content_sharing_policy is "isolated".
// Unpacked snapshots go by key, and are unpacked for each.
//
// A containerd namespace is no boundary: a client that reaches the socket may name any of them. A process is in kernel namespaces, and
// the kernel knows no containerd namespace. So a container may join a kernel namespace of a container in another containerd namespace.
//
// Hint: `ctr -n` one or the other, then the same ls; /proc/PID/ns of both shims.
// Spec: https://github.com/containerd/containerd/blob/main/docs/namespaces.md#how-low-level-is-the-implementation
// Kernel: https://man7.org/linux/man-pages/man7/namespaces.7.html
func TestTask_WhatDoContainerdNamespacesIsolate(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What do containerd namespaces isolate?")
	defer q.Recover()
	d := ctrd.Start(q)
	other := d.InNamespace("cdb-lab-other")
	ctx := context.Background()
	id := q.ID(ctrd.ContainerID)

	q.Step("pull the image in both: the blobs are there once, and what is unpacked is there twice")
	ref := d.PullImage()
	dirs := d.SnapshotsDir()
	blobsOnDisk, unpacked := file.StatDir(q, d.BlobDir()), len(file.Names(q, dirs))
	assert.Check(q, cmp.Equal(strings.TrimSpace(other.Ctr("images", "ls", "-q").Stdout), ""))
	other.PullImageAgain(ref)
	assert.Check(q, cmp.DeepEqual(file.StatDir(q, d.BlobDir()), blobsOnDisk), "the blobs' inodes and times after the second pull")
	assert.Check(q, cmp.Len(file.Names(q, dirs), 2*unpacked))
	content := strings.Fields(d.Ctr("content", "ls", "-q").Stdout)
	assert.Check(q, cmp.DeepEqual(strings.Fields(other.Ctr("content", "ls", "-q").Stdout), content))
	assert.Check(q, cmp.DeepEqual(ctrd.BlobDigests(slices.Sorted(maps.Keys(blobsOnDisk))), content))
	q.Fact("blobs that each namespace lists, and files on disk", []int{len(content), len(file.Names(q, d.BlobDir()))})
	q.Fact("directories of unpacked layers, of one and of both", []int{unpacked, len(file.Names(q, dirs))})

	q.Step("start a task with the same id in both: each has an init, shim, socket, bundle, cgroup and snapshot of its own")
	startTask := func(d *ctrd.Daemon) (init, shim proc.Process) {
		d.CreateContainer(ref, id, "sleep", "3600")
		init = d.StartTaskAndWait(id)
		return init, proc.Snapshot(q, init.Parent)
	}
	init, shim := startTask(d)
	otherInit, otherShim := startTask(other)
	assert.Check(q, !init.Same(otherInit.Identity), "one process %d for both", init.PID)
	assert.Check(q, cmp.DeepEqual(d.Shims(), check.Sorted(shim.PID, otherShim.PID)))
	recordOwnPlaces(q, id, d, init, other, otherInit)

	q.Step("ask in each namespace: containerd answers with what is in that namespace")
	assert.Check(q, cmp.Equal(check.TableCell(q, d.Ctr("tasks", "ls").Stdout, id, 1), fmt.Sprint(init.PID)))
	assert.Check(q, cmp.Equal(check.TableCell(q, other.Ctr("tasks", "ls").Stdout, id, 1), fmt.Sprint(otherInit.PID)))
	only := q.ID("cdb-only-here")
	d.CreateContainer(ref, only)
	assert.Check(q, cmp.Contains(strings.Fields(d.Ctr("containers", "ls", "-q").Stdout), only))
	assert.Check(q, cmp.DeepEqual(strings.Fields(other.Ctr("containers", "ls", "-q").Stdout), []string{id}))
	unknown := other.Refused("not found", "containers", "info", only)
	q.Fact("error of ctr in the other namespace", errorCause(strings.ReplaceAll(unknown.Stderr, only, "ID")))

	q.Control("create the same id twice in one namespace: ctr is refused the second snapshot, and the Go client the second record")
	twice := d.Refused("already exists", "containers", "create", ref, id)
	assert.Check(q, cmp.Contains(twice.Stderr, "snapshot"), "ctr makes the snapshot before the record")
	q.Fact("second container with the id: error of ctr, of the snapshot", errorCause(twice.Stderr))
	record, err := d.Client().ContainerService().Get(ctx, id)
	assert.NilError(q, err)
	record.CreatedAt, record.UpdatedAt = time.Time{}, time.Time{}
	q.LogCommand("# Go client: create the record of %s again", id)
	_, err = d.Client().ContainerService().Create(ctx, record)
	assert.Check(q, errdefs.IsAlreadyExists(err), "error of a second record with the id: %v", err)
	q.Fact("second record with the id: it already exists", errdefs.IsAlreadyExists(err))

	q.Step("look at the kernel's namespaces: both shims are in those of the daemon")
	daemon := proc.Snapshot(q, d.PID())
	assert.Check(q, cmp.DeepEqual(shim.NS, daemon.NS))
	assert.Check(q, cmp.DeepEqual(otherShim.NS, daemon.NS))
	assert.Check(q, cmp.DeepEqual(init.OwnNamespaces(daemon.Identity), otherInit.OwnNamespaces(daemon.Identity)), "the types that the containers have")
	assert.Check(q, cmp.DeepEqual(init.OwnNamespaces(otherInit.Identity), init.OwnNamespaces(daemon.Identity)),
		"the types in which the containers differ from each other, and from the daemon")
	q.Fact("kernel namespaces in which the shims differ", shim.OwnNamespaces(otherShim.Identity))
	q.Fact("kernel namespaces in which the containers differ", init.OwnNamespaces(otherInit.Identity))

	q.Step("join the network of a container in the other namespace: it works, so a containerd namespace is no boundary")
	guest := q.ID("cdb-guest")
	other.CreateContainerWith([]string{"--with-ns", "network:/proc/" + fmt.Sprint(init.PID) + "/ns/net"}, ref, guest, "sleep", "3600")
	other.StartTask(guest)
	proc.WaitFor(q, proc.Runs(other.TaskPID(guest), "sleep"))
	joined := proc.Snapshot(q, other.TaskPID(guest))
	assert.Check(q, cmp.Equal(joined.NS["net"], init.NS["net"]))
	assert.Check(q, joined.NS["net"] != otherInit.NS["net"])
	check.OnlyProcessInCgroup(q, joined.Identity, "/"+other.Namespace+"/"+guest)
	sharedWithOther := joined.SharedNamespaces(otherInit.Identity)
	shared := slices.DeleteFunc(joined.SharedNamespaces(init.Identity), func(ns string) bool { return slices.Contains(sharedWithOther, ns) })
	q.Fact("kernel namespaces that the guest shares across", shared)

	q.TearDown("delete the task in the one namespace: that in the other goes on", func() {
		d.KillAndDeleteTask(id)
		proc.WaitFor(q, proc.Dead(init.Identity))
		proc.WaitFor(q, proc.Dead(shim.Identity))
		assert.Check(q, !file.Exists(d.Bundle(id)), "the bundle is still there")
		assert.Check(q, file.Exists(other.Bundle(id)), "the other one's bundle has gone")
		assert.Check(q, proc.Snapshot(q, otherInit.PID).Same(otherInit.Identity))
		status := check.TableCell(q, other.Ctr("tasks", "ls").Stdout, id, 2)
		assert.Check(q, cmp.Equal(status, "RUNNING"), "status of the task in the other namespace")
		q.Fact("the other task: status", status)
	})

	q.Answer("containerd namespaces isolate names: the same id in two of them is two containers, two tasks and two snapshots. They share the " +
		"blobs, and the kernel knows nothing of them.")
}

// recordOwnPlaces asserts that two tasks with the same id, in different containerd namespaces, have a bundle, a socket, a state directory
// of runc, a directory to write to and a cgroup of their own.
func recordOwnPlaces(q *lab.Q, id string, d *ctrd.Daemon, init proc.Process, other *ctrd.Daemon, otherInit proc.Process) {
	places := map[string][2]string{
		"bundle": {d.Bundle(id), other.Bundle(id)},
		"socket": {d.ShimSocket(id), other.ShimSocket(id)},
		"state":  {filepath.Join(d.RuncRoot, d.Namespace, id), filepath.Join(other.RuncRoot, other.Namespace, id)},
		"upper":  {d.RootOverlay(id).Upper, other.RootOverlay(id).Upper},
	}
	for _, what := range slices.Sorted(maps.Keys(places)) {
		paths := places[what]
		assert.Check(q, paths[0] != paths[1], "%s: both have %s", what, paths[0])
		assert.Check(q, file.Exists(paths[0]) && file.Exists(paths[1]), "%s: expected that both exist: %v", what, paths)
		q.Fact(what, lab.VolatileNames(what, paths[:]...))
	}
	cgroups := []string{d.Spec(id).Linux.CgroupsPath, other.Spec(id).Linux.CgroupsPath}
	want := []string{"/" + d.Namespace + "/" + id, "/" + other.Namespace + "/" + id}
	assert.Check(q, cmp.DeepEqual(cgroups, want), "linux.cgroupsPath of both")
	check.OnlyProcessInCgroup(q, init.Identity, cgroups[0])
	check.OnlyProcessInCgroup(q, otherInit.Identity, cgroups[1])
	q.Fact("cgroups", cgroups)
}

// errorCause returns what follows the last colon of an error.
func errorCause(stderr string) string {
	const separator = ": "
	stderr = strings.TrimSpace(stderr)
	return stderr[strings.LastIndex(stderr, separator)+len(separator):]
}
