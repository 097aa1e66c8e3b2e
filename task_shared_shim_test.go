//go:build linux && vmlab

package cdblab

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/check"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// Yes, if config.json has the same annotation io.containerd.runc.v2.group in both. The record's label of that name is not
// read; but ctr writes its labels into both.
//
// containerd starts a shim for each task all the same. Its helper finds that a shim listens at the group's socket already,
// and ends with the address of that shim, not of a new one: so pods came to have one shim for all of their containers, before
// there were sandboxes. Such a shim lives until the last of its tasks is deleted. It also outlives the task for which it was
// started.
//
// Hint: `ctr containers create --label io.containerd.runc.v2.group=NAME`; the children of the shim; the addresses in
// both bundles.
// Spec: https://github.com/containerd/containerd/blob/main/docs/runtime-v2.md#start
func TestTask_CanTwoTasksShareAShim(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Can two tasks share a shim?")
	defer q.Recover()
	const groupKey = "io.containerd.runc.v2.group"
	var socket string
	q.Cleanup(func() { // registered before the daemon's cleanup, so that it runs when no task is left
		if errors.Is(check.Dial(socket), unix.ECONNREFUSED) {
			q.LogCommand("rm %s", socket)
			file.Remove(q, socket)
		}
	})
	d := ctrd.Shared(q)
	ref := d.PullImage()
	ids := []string{q.ID(ctrd.ContainerID), q.ID(ctrd.ContainerID + "-2"), q.ID(ctrd.ContainerID + "-3")}
	group := q.ID("cdb-group")
	socket = filepath.Join(d.SocketDir, d.SocketName(group))
	labelOf := func(id string) string {
		q.Helper()
		container, err := d.Client().LoadContainer(context.Background(), id)
		assert.NilError(q, err)
		labels, err := container.Labels(context.Background())
		assert.NilError(q, err)
		return labels[groupKey]
	}

	q.Step("ctr writes a label into the record, and the annotation into config.json")
	d.CreateContainerWith([]string{"--label", groupKey + "=" + group}, ref, ids[0], "sleep", "300")
	assert.Check(q, cmp.Equal(d.Spec(ids[0]).Annotations[groupKey], group), "annotation of a container that ctr labels")
	assert.Check(q, cmp.Equal(labelOf(ids[0]), group))
	q.Fact("ctr --label", "label and annotation")

	q.Step("a program that uses the Go client sets the annotation alone")
	annotation := oci.WithAnnotations(map[string]string{groupKey: group})
	d.CreateContainerByClient(ctrd.ClientOptions{Spec: []oci.SpecOpts{annotation}}, ref, ids[1], "sleep", "300")
	assert.Check(q, cmp.Equal(d.Spec(ids[1]).Annotations[groupKey], group))
	assert.Check(q, cmp.Equal(labelOf(ids[1]), ""))

	q.Step("two tasks: one shim, with two children, and one socket, named after the group")
	var tasks []proc.Process
	for _, id := range ids[:2] {
		tasks = append(tasks, d.StartTaskAndWait(id))
	}
	shims := d.Shims()
	assert.Assert(q, cmp.Len(shims, 1), "shims of two tasks of a group")
	shim := proc.Snapshot(q, shims[0])
	assert.Check(q, cmp.DeepEqual(proc.Children(q, shim.PID), check.Sorted(tasks[0].PID, tasks[1].PID)))
	for i, id := range ids[:2] {
		assert.Check(q, cmp.Equal(tasks[i].Parent, shim.PID), "the parent of %s", id)
		assert.Check(q, cmp.Equal(d.ShimSocket(id), socket), "the socket that the bundle of %s names", id)
		assert.Check(q, !file.Exists(filepath.Join(d.SocketDir, d.SocketName(id))), "%s has a socket of its own", id)
	}
	assert.Check(q, proc.Listens(q, shim, socket), "the shim does not listen on the group's socket")
	assert.Check(q, cmp.Equal(proc.Cwd(q, shim.PID), d.Bundle(ids[0])), "the shim's working directory, the bundle of the first task")
	q.Fact("shims", len(shims))
	q.Fact("children of the shim", []proc.PID{tasks[0].PID, tasks[1].PID})
	q.Fact("socket", "sha256 of address/namespace/group")

	q.Step("the tasks share the shim, and nothing else")
	for _, ns := range []string{"mnt", "net", "pid"} {
		assert.Check(q, tasks[0].NS[ns] != tasks[1].NS[ns], "both are in one %s namespace", ns)
	}
	for i, id := range ids[:2] {
		check.OnlyProcessInCgroup(q, tasks[i].Identity, "/"+d.Namespace+"/"+id)
	}
	q.Fact("namespaces in common", tasks[0].SharedNamespaces(tasks[1].Identity))

	q.Control("the label alone, through the Go client: a shim of its own")
	d.CreateContainerByClient(ctrd.ClientOptions{Labels: map[string]string{groupKey: group}}, ref, ids[2], "sleep", "300")
	assert.Check(q, cmp.Equal(labelOf(ids[2]), group))
	assert.Check(q, cmp.Equal(d.Spec(ids[2]).Annotations[groupKey], ""))
	alone := d.StartTaskAndWait(ids[2])
	assert.Check(q, cmp.Len(d.Shims(), 2), "shims, with a third task that is labelled only")
	assert.Check(q, alone.Parent != shim.PID, "the third task is the group's shim's child")
	assert.Check(q, cmp.Equal(filepath.Base(d.ShimSocket(ids[2])), d.SocketName(ids[2])))
	q.Fact("shims with the third", len(d.Shims()))

	q.TearDown("the first task is deleted: its shim stays, for the second, in a directory that is gone", func() {
		// A shim that ends with its task may take the last event with it. This one stays, so no event can be lost.
		stream := d.Listen("event.container_id==" + ids[0])
		d.KillAndDeleteTask(ids[0])
		stream.WaitFor("/tasks/delete")
		ended := ctrd.Topics(stream.TakeEvents())
		assert.Check(q, cmp.DeepEqual(ended, []string{"/tasks/exit", "/tasks/delete"}), "events of a task whose shim goes on")
		q.Fact("events of the first task's end", ended)
		assert.Check(q, proc.Snapshot(q, shim.PID).Same(shim.Identity), "the shim is another one")
		assert.Check(q, cmp.DeepEqual(proc.Children(q, shim.PID), []proc.PID{tasks[1].PID}))
		cwd := proc.Cwd(q, shim.PID) // containerd renames a bundle before it removes it
		assert.Check(q, strings.HasSuffix(cwd, ids[0]+" (deleted)"), "the shim's working directory is %s", cwd)
		hello := d.Ctr("tasks", "exec", "--fifo-dir", d.FifoDir, "--exec-id", "second", ids[1], "echo", "still here")
		assert.Check(q, cmp.Equal(strings.TrimSpace(hello.Stdout), "still here"))
		q.Fact("after the first task", "the shim stays")

		q.Step("the second is deleted: the shim ends")
		d.KillAndDeleteTask(ids[1])
		proc.WaitFor(q, proc.Dead(shim.Identity))
		assert.Check(q, cmp.DeepEqual(d.Shims(), []proc.PID{alone.Parent}))
		q.Fact("after the second task", "the shim has ended")

		q.Step("the group's socket may be left over: the cleanup removes only a socket that is named after a container")
		leftover := file.Exists(socket)
		if leftover {
			assert.Check(q, cmp.ErrorIs(check.Dial(socket), unix.ECONNREFUSED), "the group's socket, at which no process listens")
		}
		if q.Pinned() {
			assert.Check(q, leftover, "this containerd was known to leave the socket of a group behind; look at the fact again")
		}
		d.KillAndDeleteTask(ids[2])
		proc.WaitFor(q, d.HasShims(0))
		own := filepath.Join(d.SocketDir, d.SocketName(ids[2]))
		assert.Check(q, cmp.ErrorIs(check.Dial(own), unix.ENOENT), "the socket of the third, which was in no group")
		q.Fact("leftover of the group's socket", map[bool]string{true: "the file", false: "nothing"}[leftover])
		q.Fact("leftover of the third task's socket", "nothing")
	})

	q.Answer("Yes, by an annotation: one shim, one socket, and the shim lives as long as the last of the tasks.")
}
