//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/check"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// Names. The same id in two of them is two containers, with nothing in common but the blobs; the kernel knows nothing of it.
//
// A containerd namespace is a first word in every key of containerd's database, and a directory or a cgroup in whatever is
// made from it: bundle, shim's socket, runtime's state, cgroup. What goes by digest alone is there once: a blob that one
// namespace has fetched is a file that another may refer to. Unpacked snapshots go by key, and are unpacked for each.
//
// It is no boundary: whoever reaches the socket may name any namespace, and no process is in one as it is in a namespace
// of the kernel's. A container may join a kernel namespace of a container in another containerd namespace.
//
// Hint: `ctr -n` one or the other, then the same ls; /proc/PID/ns of both shims.
// Spec: https://github.com/containerd/containerd/blob/main/docs/namespaces.md
// Kernel: https://man7.org/linux/man-pages/man7/namespaces.7.html
func TestTask_WhatDoContainerdNamespacesIsolate(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What do containerd namespaces isolate?")
	d := ctrd.Start(q)
	other := d.InNamespace("cdb-lab-other")
	id := q.ID(ctrd.ID)

	q.Step("the image is pulled in both: the blobs are there once, what is unpacked is there twice")
	ref := d.PullImage()
	dirs := filepath.Join(snapshotterDir(d, "overlayfs"), "snapshots")
	once, unpacked := stats(q, blobs(d)), len(file.Names(q, dirs))
	assert.Check(q, cmp.Equal(strings.TrimSpace(other.Ctr("images", "ls", "-q").Stdout), ""))
	other.PullImageAgain(ref)
	assert.Check(q, cmp.DeepEqual(stats(q, blobs(d)), once), "the blobs' inodes and times after the second pull")
	assert.Check(q, cmp.Len(file.Names(q, dirs), 2*unpacked))
	content := strings.Fields(d.Ctr("content", "ls", "-q").Stdout)
	assert.Check(q, cmp.DeepEqual(strings.Fields(other.Ctr("content", "ls", "-q").Stdout), content))
	assert.Check(q, cmp.DeepEqual(named256(slices.Sorted(maps.Keys(once))), content))
	q.Fact("blobs that either lists, and files on disk", []int{len(content), len(file.Names(q, blobs(d)))})
	q.Fact("directories of unpacked layers, of one and of both", []int{unpacked, len(file.Names(q, dirs))})

	q.Step("the same id in both: another init, shim, socket, bundle, cgroup and snapshot for each")
	ours, theirs := sleeperOf(q, d, ref, id), sleeperOf(q, other, ref, id)
	assert.Check(q, !ours.init.Same(theirs.init.Identity), "one process %d for both", ours.init.PID)
	assert.Check(q, cmp.DeepEqual(d.Shims(), []proc.PID{min(ours.shim.PID, theirs.shim.PID), max(ours.shim.PID, theirs.shim.PID)}))
	places := map[string][2]string{
		"bundle": {d.Bundle(id), other.Bundle(id)},
		"socket": {d.ShimSocket(id), other.ShimSocket(id)},
		"state":  {filepath.Join(d.RuncRoot, d.Namespace, id), filepath.Join(other.RuncRoot, other.Namespace, id)},
		"upper":  {rootOverlay(q, d, id).upper, rootOverlay(q, other, id).upper},
	}
	for _, what := range slices.Sorted(maps.Keys(places)) {
		two := places[what]
		assert.Check(q, two[0] != two[1], "%s: both have %s", what, two[0])
		assert.Check(q, file.Exists(two[0]) && file.Exists(two[1]), "%s: %v", what, two)
		q.Fact(what, []named{{what, two[0]}, {what, two[1]}})
	}
	check.OnlyProcessInCgroup(q, ours.init.Identity, "/"+d.Namespace+"/"+id)
	check.OnlyProcessInCgroup(q, theirs.init.Identity, "/"+other.Namespace+"/"+id)
	q.Fact("cgroups", []string{"/" + d.Namespace + "/" + id, "/" + other.Namespace + "/" + id})

	q.Step("what is asked in the one is answered of the one")
	assert.Check(q, cmp.Equal(check.TableRow(q, d.Ctr("tasks", "ls").Stdout, id)[1], fmt.Sprint(ours.init.PID)))
	assert.Check(q, cmp.Equal(check.TableRow(q, other.Ctr("tasks", "ls").Stdout, id)[1], fmt.Sprint(theirs.init.PID)))
	only := q.ID("cdb-only-here")
	d.CreateContainer(ref, only)
	assert.Check(q, cmp.Contains(strings.Fields(d.Ctr("containers", "ls", "-q").Stdout), only))
	assert.Check(q, cmp.DeepEqual(strings.Fields(other.Ctr("containers", "ls", "-q").Stdout), []string{id}))
	unknown := other.TryCtr("containers", "info", only)
	assert.Check(q, unknown.Code != 0, "the other namespace knows it:\n%s", unknown)
	q.Fact("ctr in the other one says", lastOf(strings.ReplaceAll(unknown.Stderr, only, "ID"), ": "))

	q.Control("the same id twice in one namespace is refused")
	twice := d.TryCtr("containers", "create", ref, id)
	assert.Check(q, twice.Code != 0, "two containers of one id:\n%s", twice)
	assert.Check(q, cmp.Contains(twice.Stderr, "already exists"))
	q.Fact("ctr says", lastOf(twice.Stderr, ": "))

	q.Step("no namespace of the kernel's is behind it: both shims are in the daemon's own, all of them")
	daemon := proc.Snapshot(q, d.PID())
	assert.Check(q, cmp.DeepEqual(ours.shim.NS, daemon.NS))
	assert.Check(q, cmp.DeepEqual(theirs.shim.NS, daemon.NS))
	assert.Check(q, cmp.DeepEqual(ours.init.OwnNamespaces(daemon.Identity), theirs.init.OwnNamespaces(daemon.Identity)), "the types that the containers have")
	q.Fact("kernel namespaces that the shims have apart", ours.shim.OwnNamespaces(theirs.shim.Identity))
	q.Fact("and the containers", ours.init.OwnNamespaces(theirs.init.Identity))

	q.Step("so it is no wall: a container may join the network of one in another namespace")
	guest := q.ID("cdb-guest")
	other.CreateContainerWith([]string{"--with-ns", "network:/proc/" + fmt.Sprint(ours.init.PID) + "/ns/net"}, ref, guest, "sleep", "300")
	other.StartTask(guest)
	proc.WaitFor(q, proc.Runs(other.TaskPID(guest), "sleep"))
	joined := proc.Snapshot(q, other.TaskPID(guest))
	assert.Check(q, cmp.Equal(joined.NS["net"], ours.init.NS["net"]))
	assert.Check(q, joined.NS["net"] != theirs.init.NS["net"])
	check.OnlyProcessInCgroup(q, joined.Identity, "/"+other.Namespace+"/"+guest)
	q.Fact("the guest shares, across", notIn(joined.SharedNamespaces(ours.init.Identity), joined.SharedNamespaces(theirs.init.Identity)))

	q.TearDown("what ends in the one goes on in the other", func() {
		d.Ctr("tasks", "kill", "-s", "SIGKILL", id)
		proc.WaitFor(q, proc.Dead(ours.init.Identity))
		proc.WaitFor(q, d.Stopped(id))
		d.DeleteTask(id)
		proc.WaitFor(q, proc.Dead(ours.shim.Identity))
		assert.Check(q, !file.Exists(places["bundle"][0]), "the bundle is still there")
		assert.Check(q, file.Exists(places["bundle"][1]), "the other one's bundle has gone")
		assert.Check(q, proc.Snapshot(q, theirs.init.PID).Same(theirs.init.Identity))
		assert.Check(q, cmp.Equal(check.TableRow(q, other.Ctr("tasks", "ls").Stdout, id)[2], "RUNNING"))
		q.Fact("the other task", "RUNNING")
	})

	q.Answer("Names: every container, task, image and snapshot has one for each. Blobs are shared, and the kernel is not asked.")
}

// sleeper is a running task with its shim.
type sleeper struct{ init, shim proc.Process }

// sleeperOf creates and starts a container that sleeps.
func sleeperOf(q *lab.Q, d *ctrd.Daemon, ref, id string) sleeper {
	q.Helper()
	d.CreateContainer(ref, id, "sleep", "300")
	d.StartTask(id)
	pid := d.TaskPID(id)
	proc.WaitFor(q, proc.Runs(pid, "sleep"))
	init := proc.Snapshot(q, pid)
	return sleeper{init, proc.Snapshot(q, init.Parent)}
}

// lastOf is what follows the last separator, as an error's cause follows its colons.
func lastOf(s, separator string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndex(s, separator)+len(separator):]
}

// notIn are the words that are not among the others.
func notIn(words, others []string) []string {
	return slices.DeleteFunc(slices.Clone(words), func(w string) bool { return slices.Contains(others, w) })
}
