//go:build linux && vmlab

package cdblab

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	eventsapi "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/pkg/oci"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/poll"

	"cdblab/helpers/check"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// Two tasks share a shim if config.json has the same annotation io.containerd.runc.v2.group in both. The record's label of that name is not
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

	q.Step("create a container with a label, by ctr: it writes the label into the record, and the annotation into config.json")
	d.CreateContainerWith([]string{"--label", groupKey + "=" + group}, ref, ids[0], "sleep", "3600")
	byCtr := []string{labelOf(ids[0]), d.Spec(ids[0]).Annotations[groupKey]}
	assert.Check(q, cmp.DeepEqual(byCtr, []string{group, group}), "label and annotation of a container that ctr labels")
	q.Fact("ctr --label: label and annotation", byCtr)

	q.Step("create another container by the Go client: it has the annotation alone")
	annotation := oci.WithAnnotations(map[string]string{groupKey: group})
	d.CreateContainerByClient(ctrd.ClientOptions{Spec: []oci.SpecOpts{annotation}}, ref, ids[1], "sleep", "3600")
	assert.Check(q, cmp.Equal(d.Spec(ids[1]).Annotations[groupKey], group))
	assert.Check(q, cmp.Equal(labelOf(ids[1]), ""))

	q.Step("start two tasks: there is one shim with two children, and one socket, which is named after the group")
	var tasks []proc.Process
	for _, id := range ids[:2] {
		tasks = append(tasks, d.StartTaskAndWait(id))
	}
	shims := d.Shims()
	assert.Assert(q, cmp.Len(shims, 1), "shims of two tasks of a group")
	shim := proc.Snapshot(q, shims[0])
	assert.Check(q, cmp.DeepEqual(proc.Children(q, shim.PID), check.Sorted(tasks[0].PID, tasks[1].PID)))
	named := 0 // bundles that name the group's socket
	for i, id := range ids[:2] {
		assert.Check(q, cmp.Equal(tasks[i].Parent, shim.PID), "the parent of %s", id)
		assert.Check(q, cmp.Equal(d.ShimSocket(id), socket), "the socket that the bundle of %s names", id)
		if d.ShimSocket(id) == socket {
			named++
		}
		assert.Check(q, !file.Exists(filepath.Join(d.SocketDir, d.SocketName(id))), "%s has a socket of its own", id)
	}
	assert.Check(q, proc.Listens(q, shim, socket), "the shim does not listen on the group's socket")
	assert.Check(q, cmp.Equal(proc.Cwd(q, shim.PID), d.Bundle(ids[0])), "the shim's working directory, the bundle of the first task")
	q.Fact("shims", len(shims))
	q.Fact("children of the shim", []proc.PID{tasks[0].PID, tasks[1].PID})
	q.Fact("bundles that name the socket sha256 of address/namespace/group", named)

	q.Step("compare the tasks: they share the shim, and neither namespaces nor cgroup")
	for _, ns := range []string{"mnt", "net", "pid"} {
		assert.Check(q, tasks[0].NS[ns] != tasks[1].NS[ns], "both are in one %s namespace", ns)
	}
	for i, id := range ids[:2] {
		check.OnlyProcessInCgroup(q, tasks[i].Identity, "/"+d.Namespace+"/"+id)
	}
	q.Fact("namespaces in common", tasks[0].SharedNamespaces(tasks[1].Identity))

	q.Control("start a task that has the label alone: it has a shim of its own")
	d.CreateContainerByClient(ctrd.ClientOptions{Labels: map[string]string{groupKey: group}}, ref, ids[2], "sleep", "3600")
	assert.Check(q, cmp.Equal(labelOf(ids[2]), group))
	assert.Check(q, cmp.Equal(d.Spec(ids[2]).Annotations[groupKey], ""))
	alone := d.StartTaskAndWait(ids[2])
	assert.Check(q, cmp.Len(d.Shims(), 2), "shims, with a third task that is labelled only")
	assert.Check(q, alone.Parent != shim.PID, "the third task is the group's shim's child")
	assert.Check(q, cmp.Equal(filepath.Base(d.ShimSocket(ids[2])), d.SocketName(ids[2])))
	q.Fact("shims with the third", len(d.Shims()))

	q.Step("start a further task of the group, with a logger, whose program is missing: create fails, and the logger ends as well")
	// A shim that serves others does not end. What it forgets here stays for days. This logger ends on TERM only: the end of its input
	// would come in any case, when Go collects the garbage of the shim.
	children := proc.Children(q, shim.PID)
	started := filepath.Join(q.Mkdir("started"), "pid")
	logger := q.WriteWrapper("logger", "echo $$ > "+started+"\nexec 5>&-   # ready\ntrap exit TERM; while :; do sleep 0.1; done")
	failing := q.ID(ctrd.ContainerID + "-none")
	d.CreateContainerByClient(ctrd.ClientOptions{Spec: []oci.SpecOpts{annotation}}, ref, failing, "/no/such/program")
	refused := d.TryCtr("tasks", "start", "-d", "--log-uri", "binary://"+logger, failing)
	assert.Check(q, refused.Code != 0, "a task of a missing program was started:\n%s", refused)
	assert.Assert(q, file.Exists(started), "the shim has not started the logger:\n%s", refused)
	if p, err := proc.Read(proc.PID(check.Int(q, file.Read(q, started)))); err == nil && d.Bootstrap(ids[0]).Version < 3 {
		// In 1.7 the shim keeps the logger: containerd/containerd#11885 was mended in 2.0.6 and 2.1.4 only.
		q.Fact("a shim of containerd 1.7 keeps the logger", p.Alive())
		q.KillProcess(p)
	}
	proc.WaitFor(q, func(poll.LogT) poll.Result {
		if now := proc.Children(q, shim.PID); !slices.Equal(now, children) {
			return poll.Continue("a create has failed, and the shim keeps the logger: its children are %v, and were %v", now, children)
		}
		return poll.Success()
	})
	q.Fact("children of the shim, after a create that failed", proc.Children(q, shim.PID))

	q.TearDown("delete the first task: its shim stays for the second task, in a directory that is gone", func() {
		// A shim that ends with its task may take the last event with it. This one stays, so no event can be lost.
		stream := d.Listen("event.container_id==" + ids[0])
		d.KillAndDeleteTask(ids[0])
		stream.WaitFor("/tasks/delete")
		events := stream.TakeEvents()
		ended := ctrd.Topics(events)
		assert.Assert(q, cmp.DeepEqual(ended, []string{"/tasks/exit", "/tasks/delete"}), "events of a task whose shim goes on")
		exit, deleted := events[0].Body.(*eventsapi.TaskExit), events[1].Body.(*eventsapi.TaskDelete)
		inDelete, inExit := []uint32{deleted.Pid, deleted.ExitStatus}, []uint32{exit.Pid, exit.ExitStatus}
		assert.Check(q, cmp.DeepEqual(inDelete, []uint32{uint32(tasks[0].PID), 128 + 9}), "pid and exit status, in the delete event")
		assert.Check(q, cmp.DeepEqual(inDelete, inExit), "pid and exit status, in the delete event and in the exit event")
		assert.Check(q, cmp.Equal(deleted.ExitedAt.AsTime(), exit.ExitedAt.AsTime()), "time of the exit, in both events")
		q.Fact("events of the first task's end", ended)
		q.Fact("exit status in the delete event", deleted.ExitStatus)
		assert.Check(q, proc.Snapshot(q, shim.PID).Same(shim.Identity), "the shim is another one")
		assert.Check(q, cmp.DeepEqual(proc.Children(q, shim.PID), []proc.PID{tasks[1].PID}))
		cwd := proc.Cwd(q, shim.PID) // containerd renames a bundle before it removes it
		assert.Check(q, strings.HasSuffix(cwd, ids[0]+" (deleted)"), "the shim's working directory is %s", cwd)
		hello := d.Ctr("tasks", "exec", "--fifo-dir", d.FifoDir, "--exec-id", "second", ids[1], "echo", "still here")
		assert.Check(q, cmp.Equal(strings.TrimSpace(hello.Stdout), "still here"))
		q.Fact("after the first task: children of its shim", proc.Children(q, shim.PID))

		q.Step("delete the second task: the shim ends")
		d.KillAndDeleteTask(ids[1])
		proc.WaitFor(q, proc.Dead(shim.Identity))
		assert.Check(q, cmp.DeepEqual(d.Shims(), []proc.PID{alone.Parent}))
		q.Fact("after the second task: shims", d.Shims())

		q.Step("look for sockets: that of the group may be left over, because the cleanup removes only a socket that is named after a container")
		leftover := file.Exists(socket)
		if leftover {
			assert.Check(q, cmp.ErrorIs(check.Dial(socket), unix.ECONNREFUSED), "the group's socket, at which no process listens")
		}
		d.KillAndDeleteTask(ids[2])
		proc.WaitFor(q, d.HasShims(0))
		own := filepath.Join(d.SocketDir, d.SocketName(ids[2]))
		assert.Check(q, cmp.ErrorIs(check.Dial(own), unix.ENOENT), "the socket of the third, which was in no group")
		q.Fact("the group's socket is left over", leftover)
		q.Fact("the third task's socket is left over", file.Exists(own))
	})

	q.Answer("Yes, if their config.json has the same group annotation. They have one shim and one socket then, and the shim " +
		"lives as long as the last of the tasks.")
}
