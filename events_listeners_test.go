//go:build linux && vmlab

package cdblab

import (
	"context"
	"strings"
	"testing"
	"time"

	"cdblab/helpers/check"

	eventsapi "github.com/containerd/containerd/api/events"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/ctrd"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// `ctr events` and a client see the same, because `ctr events` is a client that subscribes and prints: the events have the same order,
// fields and times.
//
// The time is that of publishing, not that of receiving. A subscription receives the events of all containerd
// namespaces, whatever -n says, unless a filter says otherwise: on the namespace, the topic, or a field of the event. A
// comma within a filter is an and, a second filter an or. Only fields that are text can be filtered on. A number counts as a
// missing field, which is the empty text: == of a number lets nothing through, != lets everything through, and containerd
// reports no error.
//
// Hint: `ctr events 'topic=="/tasks/exit"'`, with its quotation marks; what does it print in another namespace?
// Spec: https://github.com/containerd/containerd/blob/main/pkg/filters/filter.go, https://github.com/containerd/containerd/blob/main/core/events/events.go
func TestEvents_DoCtrEventsAndTheClientSeeTheSame(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Do `ctr events` and the client see the same?")
	defer q.Recover()
	clock := check.StartClock(q)
	d := ctrd.Shared(q)
	other := d.InNamespace("cdb-other")
	id := q.ID(ctrd.ContainerID)
	ref := d.PullImage()
	d.CreateContainer(ref, id, "sleep", "3600")

	q.Step("start listeners: ctr events and the client both get each filter, and one pair listens to all events")
	rows := []struct {
		filters  []string
		received []string // namespace a or b, and topic
		stream   *ctrd.Stream
	}{
		{filters: nil, received: []string{"a /tasks/create", "a /tasks/start", "b /namespaces/create", "a /containers/update", "a /tasks/exit"}},
		{filters: []string{`topic=="/tasks/exit"`}, received: []string{"a /tasks/exit"}},
		{
			filters:  []string{`topic~="^/(tasks|containers)/"`},
			received: []string{"a /tasks/create", "a /tasks/start", "a /containers/update", "a /tasks/exit"},
		},
		{filters: []string{"namespace==" + other.Namespace}, received: []string{"b /namespaces/create"}},
		{filters: []string{"event.container_id==" + id}, received: []string{"a /tasks/create", "a /tasks/start", "a /tasks/exit"}},
		{filters: []string{"event.container_id==" + id + `,topic!="/tasks/start"`}, received: []string{"a /tasks/create", "a /tasks/exit"}},
		{filters: []string{`topic=="/tasks/exit"`, "namespace==" + other.Namespace}, received: []string{"b /namespaces/create", "a /tasks/exit"}},
		{filters: []string{"event.exit_status==137"}, received: []string{}},
		{filters: []string{"event.exit_status!=137"}, received: []string{
			"a /tasks/create", "a /tasks/start", "b /namespaces/create", "a /containers/update", "a /tasks/exit",
		}},
	}
	for i := range rows {
		rows[i].stream = d.Listen(rows[i].filters...)
	}

	q.Step("start and kill a task, and change records in two namespaces")
	d.StartTask(id)
	pid := d.TaskPID(id)
	proc.WaitFor(q, proc.Runs(pid, "sleep"))
	rows[0].stream.WaitFor("/tasks/start")
	other.Ctr("namespaces", "create", other.Namespace)
	d.Ctr("containers", "label", id, "lesson=events")
	task := proc.Snapshot(q, pid)
	d.Ctr("tasks", "kill", "-s", "SIGKILL", id)
	proc.WaitFor(q, proc.Dead(task.Identity))
	rows[0].stream.WaitFor("/tasks/exit")
	received := time.Now()

	q.Step("compare what was received: each filter lets through what it says, and both listeners received the same lines")
	shortNames := map[string]string{d.Namespace: "a", other.Namespace: "b"}
	// The ids of a run are left out of the names of facts, by which two runs are compared.
	withoutRun := strings.NewReplacer(id, ctrd.ContainerID, other.Namespace, "cdb-other")
	for _, row := range rows {
		got := []string{}
		for _, e := range row.stream.TakeEvents() {
			got = append(got, shortNames[e.Namespace]+" "+e.Topic)
		}
		name := "all"
		if len(row.filters) > 0 {
			name = "'" + strings.Join(row.filters, "' '") + "'"
		}
		assert.Assert(q, cmp.DeepEqual(got, row.received), "received with filter %s", name)
		assert.Check(q, cmp.DeepEqual(row.stream.FromCtr(), row.stream.FromClient()), "ctr events, and the Go client, with filter %s", name)
		assert.Check(q, cmp.DeepEqual(row.stream.TimesFromCtr(), row.stream.TimesFromClient()), "times, with filter %s", name)
		q.Fact(withoutRun.Replace(name), got)
	}

	exit := rows[0].stream.Events()[4].Body.(*eventsapi.TaskExit)
	assert.Check(q, cmp.Equal(exit.ExitStatus, uint32(137)), "exit status, which the last filters are about")

	q.Step("compare the times: they are those of publishing, between the start of the process and the moment when the last event was received")
	events := rows[0].stream.Events()
	began := task.Start.At(q)
	for _, e := range events {
		clock.InOrder(q, "start of the process", began, e.Topic, e.Timestamp)
		clock.InOrder(q, e.Topic, e.Timestamp, "received", received)
	}

	q.Control("subscribe with an invalid filter, by ctr events and by the client: the daemon rejects it")
	const invalid = "topic==/tasks/exit" // without quotation marks; a slash begins a quotation, too
	ctx, cancel := context.WithTimeout(context.Background(), proc.Patience)
	defer cancel()
	_, errs := d.Client().Subscribe(ctx, invalid)
	err := <-errs
	assert.Check(q, cmp.ErrorContains(err, "filter"))
	rejected := d.TryCtr("events", invalid)
	assert.Check(q, rejected.Code != 0, "ctr events accepts an invalid filter:\n%s", rejected)
	assert.Check(q, cmp.Contains(rejected.Stderr, "filter"))
	q.Fact("'"+invalid+"'", runc.LastLogMessage(rejected))

	q.Answer("Yes, `ctr events` and a Go client receive the same events, with the same fields and times, in the same order. Both receive " +
		"those of all namespaces, unless a filter says otherwise.")
}
