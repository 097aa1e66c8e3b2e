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

// Yes: `ctr events` is a client that subscribes and prints. Same events, same order, same fields, same times.
//
// The time is the sender's, not that of the hearing. A subscription hears all containerd namespaces, whatever -n says,
// unless a filter says otherwise: on the namespace, the topic, or a field of the event. A comma within a filter is an
// and, a second filter an or. Only fields that are text can be filtered on: a filter on a number lets nothing through,
// and nobody says so.
//
// Hint: `ctr events 'topic=="/tasks/exit"'`, with its quotation marks; what does it print in another namespace?
// Spec: https://github.com/containerd/containerd/blob/main/pkg/filters/filter.go, https://github.com/containerd/containerd/blob/main/core/events/events.go
func TestEvents_DoCtrEventsAndTheClientSeeTheSame(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Do `ctr events` and the client see the same?")
	d := ctrd.Shared(q)
	other := d.InNamespace("cdb-other")
	id := q.ID(ctrd.ContainerID)
	ref := d.PullImage()
	d.CreateContainer(ref, id, "sleep", "300")

	q.Step("listeners: each filter is given to both, and one listens to all")
	rows := []struct {
		filters []string
		through []string
		stream  *ctrd.Stream
	}{
		{filters: nil, through: []string{"a /tasks/create", "a /tasks/start", "b /namespaces/create", "a /containers/update", "a /tasks/exit"}},
		{filters: []string{`topic=="/tasks/exit"`}, through: []string{"a /tasks/exit"}},
		{filters: []string{`topic~="^/(tasks|containers)/"`}, through: []string{"a /tasks/create", "a /tasks/start", "a /containers/update", "a /tasks/exit"}},
		{filters: []string{"namespace==" + other.Namespace}, through: []string{"b /namespaces/create"}},
		{filters: []string{"event.container_id==" + id}, through: []string{"a /tasks/create", "a /tasks/start", "a /tasks/exit"}},
		{filters: []string{"event.container_id==" + id + `,topic!="/tasks/start"`}, through: []string{"a /tasks/create", "a /tasks/exit"}},
		{filters: []string{`topic=="/tasks/exit"`, "namespace==" + other.Namespace}, through: []string{"b /namespaces/create", "a /tasks/exit"}},
		{filters: []string{"event.exit_status==137"}, through: []string{}},
	}
	for i := range rows {
		rows[i].stream = d.Listen(rows[i].filters...)
	}

	q.Step("something happens, in two namespaces")
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
	seen := time.Now()

	q.Step("what each filter lets through, and that both have the same lines")
	short := map[string]string{d.Namespace: "a", other.Namespace: "b"}
	for _, row := range rows {
		got := []string{}
		for _, e := range row.stream.TakeEvents() {
			got = append(got, short[e.Namespace]+" "+e.Topic)
		}
		name := "all"
		if len(row.filters) > 0 {
			name = ""
			for _, f := range row.filters {
				name += " '" + f + "'"
			}
			name = strings.TrimSpace(name)
		}
		assert.Assert(q, cmp.DeepEqual(got, row.through), "through %s", name)
		assert.Check(q, cmp.DeepEqual(row.stream.FromCtr(), row.stream.FromClient()), "ctr events, and the client, through %s", name)
		assert.Check(q, cmp.DeepEqual(row.stream.TimesFromCtr(), row.stream.TimesFromClient()), "times, through %s", name)
		q.Fact(name, got)
	}

	exit := rows[0].stream.Events()[4].Body.(*eventsapi.TaskExit)
	assert.Check(q, cmp.Equal(exit.ExitStatus, uint32(137)), "there was no such number to filter on")

	q.Step("the times are the sender's: between the process's beginning and the moment when it was heard")
	events := rows[0].stream.Events()
	began := task.Start.At(q)
	for _, e := range events {
		check.InOrder(q, "the process begins", began, e.Topic, e.Timestamp)
		check.InOrder(q, e.Topic, e.Timestamp, "heard", seen)
	}

	q.Control("a filter that is none is refused, by the daemon: to both")
	const broken = "topic==/tasks/exit" // without quotation marks, and a slash begins a quotation, too
	ctx, cancel := context.WithTimeout(context.Background(), proc.Patience)
	defer cancel()
	_, errs := d.Client().Subscribe(ctx, broken)
	err := <-errs
	assert.Check(q, cmp.ErrorContains(err, "filter"))
	refused := d.TryCtr("events", broken)
	assert.Check(q, refused.Code != 0, "ctr events takes a filter that is none:\n%s", refused)
	assert.Check(q, cmp.Contains(refused.Stderr, "filter"))
	q.Fact("'"+broken+"'", runc.LastLogMessage(refused))

	q.Answer("Yes, all of it: fields, order, times. Of all namespaces, too, unless a filter says otherwise.")
}
