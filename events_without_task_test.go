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

// Without a task the stream has no events about tasks, but it has events about containerd's own records: namespaces, images, snapshots,
// containers and, since containerd 2.1, new blobs.
//
// Events are neither a log nor an account of what the kernel does. Reading publishes none. Changes of leases, and of
// the labels of blobs and snapshots, publish none either. When the garbage collector removes snapshots, containerd
// publishes that; when it removes blobs, it does not. A blob that a client deletes is published (/content/delete). Of a task, containerd
// publishes the start, the end, execs, pauses and out-of-memory kills, but not what the program does: no signal, no output, no fork, no
// child's death, no new limit.
//
// Hint: `ctr events` in a second terminal, then everything else that ctr can do.
// Spec: https://github.com/containerd/containerd/tree/main/api/events
func TestEvents_IsTheStreamEmptyWithoutATask(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Is the stream empty without a task?")
	defer q.Recover()
	d := ctrd.Shared(q)
	id := q.ID(ctrd.ContainerID)
	stream := d.Listen()
	allTopics := []string{}
	takeEvents := func() []ctrd.Event {
		q.Helper()
		events := stream.TakeEvents()
		allTopics = append(allTopics, ctrd.Topics(events)...)
		return events
	}

	q.Step("create a namespace and pull an image: each new record is published")
	d.Ctr("namespaces", "create", d.Namespace)
	assert.Check(q, cmp.DeepEqual(ctrd.Topics(takeEvents()), []string{"/namespaces/create"}))
	ref := d.PullImage()
	pulled := takeEvents()
	blobs := strings.Fields(d.Ctr("content", "ls", "-q").Stdout)
	assert.Assert(q, len(blobs) > 0, "the pull has fetched no blob")
	assertBlobsPublished(q, d, pulled, blobs)
	recordPulled(q, ctrd.Topics(pulled))

	q.Step("make one change after the other: some are published, and some are not")
	for _, row := range changesOfRecords(d, ref, id, blobs[0]) {
		if row.argv == nil {
			d.CreateContainerWith(nil, ref, id, "sh", "-c", forkOnSignal)
		} else {
			d.Ctr(row.argv...)
		}
		got := ctrd.Topics(takeEvents())
		assert.Check(q, cmp.DeepEqual(got, row.published), row.change)
		q.Fact(row.change, got)
	}
	assert.Check(q, cmp.Contains(d.Ctr("content", "ls").Stdout, "lesson=events"), "the blob was not labelled, so there was nothing to publish")
	assert.Check(q, cmp.DeepEqual(ctrd.TaskTopics(allTopics), []string{}), "topics about tasks, without a task")
	q.Fact("of tasks, without one", ctrd.TaskTopics(allTopics))

	q.Control("start a task: its start is published, but what happens inside it is not")
	output := filepath.Join(q.Mkdir("output"), "log")
	d.Ctr("tasks", "start", "-d", "--log-uri", "file://"+output, id)
	pid := d.TaskPID(id)
	proc.WaitFor(q, file.HasContent(output, "ready"))
	task := proc.Snapshot(q, pid)
	stream.WaitFor("/tasks/start")
	assert.Check(q, cmp.DeepEqual(ctrd.Topics(takeEvents()), []string{"/tasks/create", "/tasks/start"}))

	before := proc.Children(q, pid)
	d.Ctr("tasks", "kill", "-s", "SIGUSR1", id)
	proc.WaitFor(q, file.HasContent(output, "ready\nforked"))
	children := proc.Children(q, pid)
	assert.Assert(q, cmp.Len(children, len(before)+1), "children of the program, after a signal")
	whileRunning := takeEvents()
	q.Fact("a signal, a line of output, a fork", ctrd.Topics(whileRunning))
	forked := proc.Snapshot(q, children[len(children)-1])
	q.KillProcess(forked)
	proc.WaitFor(q, proc.Dead(forked.Identity))
	d.Ctr("tasks", "metrics", id)
	q.LogCommand("task.Update: at most 77 processes")
	limit := &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: new(int64(77))}}
	assert.NilError(q, d.Task(id).Update(context.Background(), containerd.WithResources(limit)))
	assert.Check(q, cmp.Equal(cgroup.Of(q, "/"+d.Namespace+"/"+id).Read("pids", "pids.max"), "77"))
	afterwards := takeEvents()
	q.Fact("a child's death, metrics, a limit", ctrd.Topics(afterwards))

	q.TearDown("kill the task: the end is published, and nothing before it, because the events of one shim come in order", func() {
		d.Ctr("tasks", "kill", "-s", "SIGKILL", id)
		proc.WaitFor(q, proc.Dead(task.Identity))
		stream.WaitFor("/tasks/exit")
		events := slices.Concat(whileRunning, afterwards, takeEvents())
		assert.DeepEqual(q, ctrd.Topics(events), []string{"/tasks/exit"})
		assert.Check(q, cmp.Equal(events[0].Body.(*eventsapi.TaskExit).Pid, uint32(pid)))
		q.Fact("of the task, all in all", ctrd.TaskTopics(allTopics))
		proc.WaitFor(q, d.TaskStopped(id))
		d.DeleteTask(id)
		takeEvents()

		q.Step("delete container, a layer's blob and image: this is published, but not that the garbage collector removes the other blobs")
		d.Ctr("containers", "delete", id)
		topics := ctrd.Topics(takeEvents())
		assert.Check(q, cmp.DeepEqual(ctrd.OtherTopics(topics), []string{"/snapshot/remove", "/containers/delete"}))
		q.Fact("container deleted", ctrd.OtherTopics(topics))
		layer := d.LayerDigests(ref)[0].String()
		d.Ctr("content", "delete", layer)
		recordDeletedBlob(q, takeEvents(), layer)
		d.Ctr("images", "rm", "--sync", ref)
		topics = slices.Compact(ctrd.OtherTopics(ctrd.Topics(takeEvents()))) // an image may have more layers than one
		assert.Check(q, cmp.DeepEqual(topics, []string{"/images/delete", "/snapshot/remove"}), "the image and its other blobs are deleted")
		assert.Check(q, cmp.Equal(strings.TrimSpace(d.Ctr("content", "ls", "-q").Stdout), ""), "blobs after the image was deleted")
		q.Fact("image and its blobs deleted", topics)
	})

	q.Answer("Without a task the stream has no events about tasks, but it has those about changes of containerd's own records. Reading " +
		"publishes no event, and neither does what a task's program does.")
}

// recordDeletedBlob asserts that the one event that is not about a task names the blob that a client has deleted.
func recordDeletedBlob(q *lab.Q, events []ctrd.Event, digest string) {
	q.Helper()
	events = slices.DeleteFunc(events, func(e ctrd.Event) bool { return ctrd.IsTaskTopic(e.Topic) }) // a task's delete event may come late
	assert.Assert(q, cmp.DeepEqual(ctrd.Topics(events), []string{"/content/delete"}), "events when a client deletes a blob")
	assert.Check(q, cmp.Equal(events[0].Body.(*eventsapi.ContentDelete).Digest, digest), "the blob that the event names")
	q.Fact("a layer's blob deleted", ctrd.Topics(events))
}

// recordPulled asserts that a pull has published the image's record, and the snapshots of its layers.
func recordPulled(q *lab.Q, topics []string) {
	slices.Sort(topics) // layers are fetched and unpacked at once
	topics = slices.Compact(topics)
	for _, want := range []string{"/images/create", "/snapshot/commit", "/snapshot/prepare"} {
		assert.Check(q, cmp.Contains(topics, want))
	}
	q.Fact("pull", topics)
}

// recordChange is a change of containerd's records, and the topics of the events that it publishes.
type recordChange struct {
	change    string
	argv      []string // of ctr; nil: create the container
	published []string
}

// changesOfRecords returns one change of each kind, in the order in which they are made.
func changesOfRecords(d *ctrd.Daemon, ref, id, blob string) []recordChange {
	return []recordChange{
		{"a container", nil, []string{"/snapshot/prepare", "/containers/create"}},
		{"its label", []string{"containers", "label", id, "lesson=events"}, []string{"/containers/update"}},
		{"an image's label", []string{"images", "label", ref, "lesson=events"}, []string{"/images/update"}},
		{"a namespace's label", []string{"namespaces", "label", d.Namespace, "lesson=events"}, []string{"/namespaces/update"}},
		{"a blob's label", []string{"content", "label", blob, "lesson=events"}, []string{}},
		{"a snapshot's label", []string{"snapshots", "label", id, "lesson=events"}, []string{}},
		{"a lease", []string{"leases", "create", "--id", "lesson"}, []string{}},
		{"reading a blob", []string{"content", "get", blob}, []string{}},
	}
}

// forkOnSignal is a shell script that, at each SIGUSR1, starts a child and prints "forked".
const forkOnSignal = `trap 'sleep 3601 & echo forked' USR1; sleep 3600 & echo ready; while :; do wait; done`

// assertBlobsPublished asserts that the events /content/create name the blobs that containerd lists and that the file
// system has.
func assertBlobsPublished(q *lab.Q, d *ctrd.Daemon, events []ctrd.Event, listed []string) {
	q.Helper()
	published := []string{}
	for _, e := range events {
		if blob, ok := e.Body.(*eventsapi.ContentCreate); ok {
			published = append(published, blob.Digest)
			algorithm, sum, _ := strings.Cut(blob.Digest, ":")
			info, err := os.Stat(filepath.Join(d.Root, "io.containerd.content.v1.content/blobs", algorithm, sum))
			assert.NilError(q, err)
			assert.Check(q, cmp.Equal(blob.Size, info.Size()), "size of the blob that the event names")
		}
	}
	if !ctrd.Knows(q, "containerd", "/content/create") { // containerd 2.0 and 1.7 do not publish them
		listed = []string{}
	}
	slices.Sort(published)
	slices.Sort(listed)
	assert.Check(q, cmp.DeepEqual(published, listed), "blobs: published, and listed")
	q.Fact("blobs published, and listed", len(published))
}
