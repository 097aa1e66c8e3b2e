//go:build linux && vmlab

package cdblab

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cdblab/helpers/file"

	eventsapi "github.com/containerd/containerd/api/events"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/opencontainers/runtime-spec/specs-go"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// No, it has no word of tasks, but tells of each change of containerd's own records: of namespaces, images, blobs,
// snapshots and containers.
//
// Events are neither a log nor an account of what the kernel does. Reading makes none. Leases, and labels of blobs and
// snapshots, are changed in silence; what the garbage collector takes away is told of snapshots, and not of blobs. Of a
// task the beginning and the end are told, and in between nothing: no signal, no output, no fork, no child's death, no
// new limit.
//
// Hint: `ctr events` in a second terminal, then everything else that ctr can do.
// Spec: https://github.com/containerd/containerd/tree/main/api/events
func TestEvents_IsTheStreamEmptyWithoutATask(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Is the stream empty without a task?")
	d := ctrd.Shared(q)
	id := q.ID(ctrd.ContainerID)
	stream := d.Listen()
	all := []string{}
	heard := func() []ctrd.Event {
		q.Helper()
		events := stream.TakeEvents()
		all = append(all, ctrd.Topics(events)...)
		return events
	}

	q.Step("a namespace and an image: each record that is made is told")
	d.Ctr("namespaces", "create", d.Namespace)
	assert.Check(q, cmp.DeepEqual(ctrd.Topics(heard()), []string{"/namespaces/create"}))
	ref := d.PullImage()
	pulled := heard()
	blobs := strings.Fields(d.Ctr("content", "ls", "-q").Stdout)
	toldBlobs(q, d, pulled, blobs)
	kinds := ctrd.Topics(pulled)
	slices.Sort(kinds) // layers are fetched and unpacked at once
	kinds = slices.Compact(kinds)
	for _, want := range []string{"/images/create", "/snapshot/commit", "/snapshot/prepare"} {
		assert.Check(q, cmp.Contains(kinds, want))
	}
	q.Fact("pull", kinds)

	q.Step("change by change: what is told, and what is not")
	for _, row := range []struct {
		act  string
		argv []string
		told []string
	}{
		{"a container", nil, []string{"/snapshot/prepare", "/containers/create"}},
		{"its label", []string{"containers", "label", id, "lesson=events"}, []string{"/containers/update"}},
		{"an image's label", []string{"images", "label", ref, "lesson=events"}, []string{"/images/update"}},
		{"a namespace's label", []string{"namespaces", "label", d.Namespace, "lesson=events"}, []string{"/namespaces/update"}},
		{"a blob's label", []string{"content", "label", blobs[0], "lesson=events"}, []string{}},
		{"a snapshot's label", []string{"snapshots", "label", id, "lesson=events"}, []string{}},
		{"a lease", []string{"leases", "create", "--id", "lesson"}, []string{}},
		{"reading an image's manifest", []string{"content", "get", blobs[0]}, []string{}},
	} {
		if row.argv == nil {
			d.CreateContainerWith(nil, ref, id, "sh", "-c", oneForkEachTime)
		} else {
			d.Ctr(row.argv...)
		}
		got := ctrd.Topics(heard())
		assert.Check(q, cmp.DeepEqual(got, row.told), row.act)
		q.Fact(row.act, got)
	}
	assert.Check(q, cmp.Contains(d.Ctr("content", "ls").Stdout, "lesson=events"), "the blob was not labelled, so there was nothing to tell")
	assert.Check(q, cmp.DeepEqual(ctrd.TaskTopics(all), []string{}), "without a task")
	q.Fact("of tasks, without one", ctrd.TaskTopics(all))

	q.Control("with a task there are; and what happens in it is not told")
	output := filepath.Join(q.Mkdir("output"), "log")
	d.Ctr("tasks", "start", "-d", "--log-uri", "file://"+output, id)
	pid := d.TaskPID(id)
	proc.WaitFor(q, file.HasContent(output, "ready"))
	task := proc.Snapshot(q, pid)
	stream.WaitFor("/tasks/start")
	assert.Check(q, cmp.DeepEqual(ctrd.Topics(heard()), []string{"/tasks/create", "/tasks/start"}))

	before := proc.Children(q, pid)
	d.Ctr("tasks", "kill", "-s", "SIGUSR1", id)
	proc.WaitFor(q, file.HasContent(output, "ready\nforked"))
	children := proc.Children(q, pid)
	assert.Assert(q, cmp.Len(children, len(before)+1), "children of the program, after a signal")
	forked := proc.Snapshot(q, children[len(children)-1])
	q.KillProcess(forked)
	proc.WaitFor(q, proc.Dead(forked.Identity))
	d.Ctr("tasks", "metrics", id)
	held := d.Task(id)
	q.LogCommand("task.Update: at most 77 processes")
	assert.NilError(q, held.Update(context.Background(), containerd.WithResources(&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: new(int64(77))}})))
	assert.Check(q, cmp.Equal(cgroup.Of(q, "/"+d.Namespace+"/"+id).Read("pids", "pids.max"), "77"))
	quiet := heard()
	q.Fact("a signal, a line of output, a fork", ctrd.Topics(quiet))
	q.Fact("a child's death, metrics, a limit", ctrd.Topics(quiet))

	q.TearDown("the end is told: so the shim had nothing to tell before, for what one shim tells comes in order", func() {
		d.Ctr("tasks", "kill", "-s", "SIGKILL", id)
		proc.WaitFor(q, proc.Dead(task.Identity))
		stream.WaitFor("/tasks/exit")
		events := append(quiet, heard()...)
		assert.DeepEqual(q, ctrd.Topics(events), []string{"/tasks/exit"})
		assert.Check(q, cmp.Equal(events[0].Body.(*eventsapi.TaskExit).Pid, uint32(pid)))
		q.Fact("of the task, all in all", ctrd.TaskTopics(all))
		proc.WaitFor(q, d.TaskStopped(id))
		d.DeleteTask(id)
		heard()

		q.Step("deleting is told, too; but not of the blobs, which the garbage collector takes")
		d.Ctr("containers", "delete", id)
		gone := ctrd.Topics(heard())
		assert.Check(q, cmp.DeepEqual(withoutTasks(gone), []string{"/snapshot/remove", "/containers/delete"}))
		q.Fact("container deleted", withoutTasks(gone))
		d.Ctr("images", "rm", "--sync", ref)
		gone = ctrd.Topics(heard())
		assert.Check(q, cmp.Contains(gone, "/images/delete"))
		if q.UnderTest("containerd").Pinned { // an older one does not tell what its garbage collector takes, at all
			assert.Check(q, cmp.DeepEqual(withoutTasks(gone), []string{"/images/delete", "/snapshot/remove"}))
		}
		assert.Check(q, cmp.Equal(strings.TrimSpace(d.Ctr("content", "ls", "-q").Stdout), ""), "there are blobs still")
		q.Fact("image and its blobs deleted", withoutTasks(gone))
	})

	q.Answer("Of tasks, yes. It tells of containerd's own records, and never of what is read, or of what a task does while it runs.")
}

// oneForkEachTime is a program that forks, and says so, when it is told by SIGUSR1.
const oneForkEachTime = `trap 'sleep 301 & echo forked' USR1; sleep 300 & echo ready; while :; do wait; done`

// toldBlobs asserts that those blobs which /content/create tells are those that containerd lists and the file system has.
func toldBlobs(q *lab.Q, d *ctrd.Daemon, pulled []ctrd.Event, listed []string) {
	q.Helper()
	told := []string{}
	for _, e := range pulled {
		if blob, ok := e.Body.(*eventsapi.ContentCreate); ok {
			told = append(told, blob.Digest)
			algorithm, sum, _ := strings.Cut(blob.Digest, ":")
			path, err := os.Stat(filepath.Join(d.Root, "io.containerd.content.v1.content/blobs", algorithm, sum))
			assert.NilError(q, err)
			assert.Check(q, cmp.Equal(blob.Size, path.Size()), "size of the blob that the event names")
		}
	}
	if len(told) == 0 && !q.UnderTest("containerd").Pinned {
		q.Fact("blobs", "this containerd does not tell of them")
		return
	}
	slices.Sort(told)
	slices.Sort(listed)
	assert.Check(q, cmp.DeepEqual(told, listed), "blobs: told, and there")
	q.Fact("blobs told, and there", len(told))
}

// withoutTasks leaves those out: a shim's last event may come late.
func withoutTasks(all []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(t string) bool { return strings.HasPrefix(t, "/tasks/") })
}
