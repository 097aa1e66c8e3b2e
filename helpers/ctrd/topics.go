//go:build linux

package ctrd

import (
	"slices"
	"strings"

	"gotest.tools/v3/poll"

	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// StartTaskAndWaitForEvent starts a task and waits until the stream has told of it.
func StartTaskAndWaitForEvent(q *lab.Q, d *Daemon, stream *Stream, id string) proc.Process {
	q.Helper()
	before := len(FilterTopics(stream.Events(), "/tasks/start"))
	d.StartTask(id)
	pid := d.TaskPID(id)
	proc.WaitFor(q, proc.Runs(pid, "sleep"))
	proc.WaitFor(q, EventSeen(stream, "/tasks/start", before+1))
	return proc.Snapshot(q, pid)
}

// FilterTopics lists the topics of those events that are of one of the topics, in order.
func FilterTopics(events []Event, of ...string) []string {
	return slices.DeleteFunc(Topics(events), func(t string) bool { return !slices.Contains(of, t) })
}

// EventSeen is a poll check: the stream has told of a topic n times.
func EventSeen(stream *Stream, topic string, n int) poll.Check {
	return func(poll.LogT) poll.Result {
		if got := len(FilterTopics(stream.Events(), topic)); got < n {
			return poll.Continue("%d events %s, not yet %d, among %v", got, topic, n, Topics(stream.Events()))
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
func OnlyTaskTopics(all []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(t string) bool { return !strings.HasPrefix(t, "/tasks/") })
}
