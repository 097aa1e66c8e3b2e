//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"strings"
	"testing"
	"time"

	eventsapi "github.com/containerd/containerd/api/events"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/poll"

	"cdblab/helpers/check"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// No. An event is told to whoever listens at that moment, and then it is gone: containerd writes none down.
//
// Who comes later has to ask what is, and cannot ask what was: the task's state, its pid, its exit status and the time
// of its end, as long as the task is not deleted. So a client subscribes first, then asks, and then listens. A
// subscription ends with its daemon, with an error; who subscribes anew at the next daemon hears nothing of before.
//
// Hint: start a second `ctr events` a moment after the first.
// Spec: https://github.com/containerd/containerd/blob/main/core/events/exchange/exchange.go, https://github.com/containerd/containerd/blob/main/api/services/events/v1/events.proto
func TestEvents_AreEventsReplayed(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Are events replayed?")
	d := ctrd.Start(q)
	ref := d.PullImage()
	ended, lasting := q.ID(ctrd.ContainerID), q.ID(ctrd.ContainerID+"-2")
	d.CreateContainer(ref, ended, "sleep", "300")
	d.CreateContainer(ref, lasting, "sleep", "300")

	q.Step("who listens early hears the start")
	early := d.Listen()
	first, second := d.StartTaskAndWaitForEvent(early, ended), d.StartTaskAndWaitForEvent(early, lasting)
	starts := []string{"/tasks/create", "/tasks/start", "/tasks/create", "/tasks/start"}
	assert.DeepEqual(q, ctrd.Topics(early.TakeEvents()), starts)

	q.Step("who comes later hears nothing of it")
	late := d.Listen()
	assert.DeepEqual(q, late.FromClient(), []string(nil))
	assert.DeepEqual(q, late.FromCtr(), []string(nil))
	q.Fact("the early one heard", ctrd.Topics(early.Events()))
	q.Fact("the late one heard", ctrd.Topics(late.Events()))

	q.Step("from then on both hear the same")
	d.Ctr("tasks", "kill", "-s", "SIGKILL", ended)
	proc.WaitFor(q, proc.Dead(first.Identity))
	early.WaitFor("/tasks/exit")
	seen := time.Now()
	assert.DeepEqual(q, ctrd.Topics(early.TakeEvents()), []string{"/tasks/exit"})
	assert.DeepEqual(q, ctrd.Topics(late.TakeEvents()), []string{"/tasks/exit"})
	assert.Check(q, cmp.DeepEqual(late.FromClient(), early.FromClient()[len(starts):]))
	assert.Check(q, cmp.DeepEqual(late.FromCtr(), early.FromCtr()[len(starts):]))
	q.Fact("of the end both heard", ctrd.Topics(late.Events()))

	q.Step("of the past one has to ask: what is still known is the state")
	proc.WaitFor(q, d.TaskStopped(ended))
	assert.Check(q, cmp.DeepEqual(check.TableRow(q, d.Ctr("tasks", "ls").Stdout, ended), []string{ended, fmt.Sprint(first.PID), "STOPPED"}))
	status := d.TaskStatus(ended)
	assert.Check(q, cmp.Equal(status.ExitStatus, uint32(128+9)))
	check.InOrder(q, "its beginning", first.Start.At(q), "its end", status.ExitTime)
	check.InOrder(q, "its end", status.ExitTime, "seen to be dead", seen)
	q.Fact("asked for, after its end", []any{status.Status, status.ExitStatus})

	q.Step("the daemon dies: both subscriptions end, with an error")
	d.Kill()
	for _, s := range []*ctrd.Stream{early, late} {
		fromClient, fromCtr := s.WaitClosed()
		assert.Check(q, fromClient != nil && fromCtr != nil, "the client was told %v, ctr events %v", fromClient, fromCtr)
		q.Fact("ctr events", fromCtr)
	}

	q.Step("the daemon is back: nothing is told again, and the old subscriptions stay ended")
	d.Start()
	again := d.Listen()
	assert.Check(q, proc.Snapshot(q, second.PID).Same(second.Identity), "the lasting task did not last")
	assert.Check(q, cmp.DeepEqual(check.TableRow(q, d.Ctr("tasks", "ls").Stdout, lasting), []string{lasting, fmt.Sprint(second.PID), "RUNNING"}))
	assert.Check(q, cmp.Len(ctrd.FilterTopics(again.Events(), "/tasks/create", "/tasks/start"), 0))
	q.Fact("heard of a task that runs", ctrd.FilterTopics(again.Events(), "/tasks/create", "/tasks/start"))
	q.Fact("asked for", "RUNNING, the same pid")
	// What a daemon does at its start with a task that ended before is another question; but it is no secret.
	q.Fact("the ended one, after the restart", listed(q, d, ended))

	q.Control("the new subscription is none the worse for it: it hears the next event")
	d.Ctr("tasks", "kill", "-s", "SIGKILL", lasting)
	proc.WaitFor(q, proc.Dead(second.Identity))
	proc.WaitFor(q, toldExit(again, lasting))
	assert.Check(q, cmp.Len(ctrd.Topics(early.Events()), len(starts)+1), "the old subscription has heard more")

	q.Answer("No: told once, to who listens then. Of the past one asks for the state; a subscription ends with its daemon.")
}

// toldExit is a poll check: the stream has told of the end of a container's task.
func toldExit(stream *ctrd.Stream, id string) poll.Check {
	return func(poll.LogT) poll.Result {
		for _, e := range stream.Events() {
			if exit, ok := e.Body.(*eventsapi.TaskExit); ok && exit.ContainerID == id && exit.ID == id {
				return poll.Success()
			}
		}
		return poll.Continue("no exit of %s among %v", id, ctrd.Topics(stream.Events()))
	}
}

// listed is what containerd has in its list of a task.
func listed(q *lab.Q, d *ctrd.Daemon, id string) string {
	q.Helper()
	for line := range strings.SplitSeq(d.Ctr("tasks", "ls").Stdout, "\n") {
		if f := strings.Fields(line); len(f) == 3 && f[0] == id {
			return f[2]
		}
	}
	return "not in the list"
}
