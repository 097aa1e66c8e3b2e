//go:build linux

package ctrd

import (
	"slices"
	"strings"

	"gotest.tools/v3/poll"

	"cdblab/helpers/proc"
)

// StartTaskAndWaitForEvent starts a task and waits until the stream has told of it.
func (d *Daemon) StartTaskAndWaitForEvent(stream *Stream, id string) proc.Process {
	d.q.Helper()
	before := len(FilterTopics(stream.Events(), "/tasks/start"))
	task := d.StartTaskAndWait(id)
	proc.WaitFor(d.q, stream.Received("/tasks/start", before+1))
	return task
}

// FilterTopics lists the topics of those events that are of one of the topics, in order.
func FilterTopics(events []Event, of ...string) []string {
	return slices.DeleteFunc(Topics(events), func(t string) bool { return !slices.Contains(of, t) })
}

// Received returns a check that succeeds when the stream has received n events of the topic.
func (s *Stream) Received(topic string, n int) poll.Check {
	return func(poll.LogT) poll.Result {
		if got := len(FilterTopics(s.Events(), topic)); got < n {
			return poll.Continue("%d events %s, not yet %d, among %v", got, topic, n, Topics(s.Events()))
		}
		return poll.Success()
	}
}

// Topics lists the topics of events, in order.
func Topics(events []Event) []string {
	out := []string{}
	for _, e := range events {
		out = append(out, e.Topic)
	}
	return out
}

// OnlyTaskTopics keeps the topics that are about tasks.
func TaskTopics(all []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(t string) bool { return !strings.HasPrefix(t, "/tasks/") })
}
