//go:build linux

package failure

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	eventsapi "github.com/containerd/containerd/api/events"
	"gotest.tools/v3/poll"

	"cdblab/helpers/proc"
)

// Events returns the events of the task and its processes that were received, in order, except those of their
// beginning: "exit init 137", "exit exec 143", "delete 137", with the exit status; for any other event, its topic.
func (v *Victim) Events() []string {
	var out []string
	for _, stream := range v.streams {
		for _, e := range stream.Events() {
			body, _ := json.Marshal(e.Body)
			switch b := e.Body.(type) {
			case *eventsapi.TaskCreate, *eventsapi.TaskStart, *eventsapi.TaskExecAdded, *eventsapi.TaskExecStarted:
			case *eventsapi.TaskExit:
				if b.ContainerID == v.ID {
					out = append(out, fmt.Sprintf("exit %s %d", strings.Replace(b.ID, v.ID, Init, 1), b.ExitStatus))
				}
			case *eventsapi.TaskDelete:
				if b.ContainerID == v.ID {
					out = append(out, fmt.Sprintf("delete %d", b.ExitStatus))
				}
			default:
				if strings.HasPrefix(e.Topic, "/tasks/") && strings.Contains(string(body), v.ID) {
					out = append(out, e.Topic)
				}
			}
		}
	}
	return append(out, v.Missed...)
}

// RememberEvents notes how many events were received before the death: the table marks them with "(before)". A shim may
// publish an event some time after what the event reports.
func (v *Victim) RememberEvents() {
	v.q.Helper()
	v.eventsBefore = len(v.Events())
}

// WaitForEvent waits until [Victim.Events] has one that begins with prefix: "exit init 7", "delete ".
func (v *Victim) WaitForEvent(prefix string) { v.q.Helper(); v.WaitForEventAfter(0, prefix) }

// WaitForEventAfter is [Victim.WaitForEvent] for an event that follows the first n.
func (v *Victim) WaitForEventAfter(n int, prefix string) {
	v.q.Helper()
	proc.WaitFor(v.q, func(poll.LogT) poll.Result {
		got := v.Events()
		got = got[min(n, len(got)):]
		if !slices.ContainsFunc(got, func(e string) bool { return strings.HasPrefix(e, prefix) }) {
			return poll.Continue("events of %s: %q, and none that begins with %q yet", v.ID, got, prefix)
		}
		return poll.Success()
	})
}

// ExpectedExits returns the exit events that the task's shim has to publish, as [Victim.Events] writes them: one for
// each process that a client finds stopped now.
func (v *Victim) ExpectedExits() []string {
	var out []string
	task, exec := v.Statuses()
	if status, ok := strings.CutPrefix(exec, "STOPPED "); ok {
		out = append(out, "exit exec "+status)
	}
	if status, ok := strings.CutPrefix(task, "STOPPED "); ok {
		out = append(out, "exit init "+status)
	}
	return out
}
