//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/check"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/retry"
)

// Events are not replayed. The clients that listen at that moment receive an event, and then it is gone: containerd stores none.
//
// A client that comes later can ask for the present, not for the past: the task's state, its pid, its exit status and
// the time of its end, as long as the task is not deleted. So a client subscribes first, then asks, and then listens. A
// subscription ends with its daemon, with an error. A new subscription at the next daemon receives no event that the earlier daemon has
// published. An event that a shim could not deliver meanwhile is published late, with its old time:
// TestTask_WhatIfTheTaskEndsWhileContainerdIsDown.
//
// Hint: start a second `ctr events` a moment after the first.
// Spec: https://github.com/containerd/containerd/blob/main/core/events/exchange/exchange.go, https://github.com/containerd/containerd/blob/main/api/services/events/v1/events.proto
func TestEvents_AreEventsReplayed(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Are events replayed?")
	defer q.Recover()
	clock := check.StartClock(q)
	// At this level its log has a line for each event, whether any client listens or not.
	d := ctrd.Start(q, ctrd.WithConfig("[debug]\n  level = \"trace\""))
	ref := d.PullImage()
	ended, lasting := q.ID(ctrd.ContainerID), q.ID(ctrd.ContainerID+"-2")
	d.CreateContainer(ref, ended, "sleep", "3600")
	d.CreateContainer(ref, lasting, "sleep", "3600")

	q.Step("listen, then start two tasks: this early listener receives the starts")
	early := d.Listen()
	first, second := d.StartTaskAndWaitForEvent(early, ended), d.StartTaskAndWaitForEvent(early, lasting)
	starts := []string{"/tasks/create", "/tasks/start", "/tasks/create", "/tasks/start"}
	assert.DeepEqual(q, ctrd.Topics(ctrd.InOrder(early.TakeEvents())), starts)

	q.Step("listen once more: this late listener receives none of that")
	late := d.Listen()
	old := sentBefore{q, d, early.FromClient()}
	assert.DeepEqual(q, old.removeFrom(late.FromClient()), []string{})
	assert.DeepEqual(q, old.removeFrom(late.FromCtr()), []string{})
	q.Fact("received by the early listener", ctrd.Topics(ctrd.InOrder(early.Events())))
	q.Fact("received by the late listener", old.removeFrom(late.FromClient()))

	q.Step("kill a task: both listeners receive its exit")
	d.Ctr("tasks", "kill", "-s", "SIGKILL", ended)
	proc.WaitFor(q, proc.Dead(first.Identity))
	early.WaitFor("/tasks/exit")
	received := time.Now()
	assert.DeepEqual(q, ctrd.Topics(early.TakeEvents()), []string{"/tasks/exit"})
	late.TakeEvents()
	assert.Check(q, cmp.DeepEqual(old.removeFrom(late.FromClient()), early.FromClient()[len(starts):]))
	assert.Check(q, cmp.DeepEqual(old.removeFrom(late.FromCtr()), early.FromCtr()[len(starts):]))
	q.Fact("end of the task: received by both", ctrd.Topics(early.Events())[len(starts):])
	q.Fact("received by the late listener: copies of earlier events", lab.Chance(fmt.Sprint(len(late.Events())-1)))

	q.Step("ask for the task: containerd still knows its state, its exit status and the time of its end")
	proc.WaitFor(q, d.TaskStopped(ended))
	assert.Check(q, cmp.DeepEqual(check.TableRow(q, d.Ctr("tasks", "ls").Stdout, ended), []string{ended, fmt.Sprint(first.PID), "STOPPED"}))
	status := d.TaskStatus(ended)
	assert.Check(q, cmp.Equal(status.ExitStatus, uint32(128+9)))
	clock.InOrder(q, "start of the task", first.Start.At(q), "end of the task", status.ExitTime)
	clock.InOrder(q, "end of the task", status.ExitTime, "exit received", received)
	q.Fact("status, asked for after the end", []any{status.Status, status.ExitStatus})

	q.Step("kill the daemon: both subscriptions end, with an error")
	d.Kill()
	for _, listener := range []struct {
		name   string
		stream *ctrd.Stream
	}{{"early", early}, {"late", late}} {
		client, ctr := listener.stream.WaitClosed()
		assert.Check(q, client != nil && ctr != nil, "error of the client: %v, of ctr events: %v", client, ctr)
		q.Fact("ctr events, "+listener.name+" listener: error", ctr)
	}

	q.Step("start the daemon again: no event is published again, and the old subscriptions stay ended")
	logBefore := len(d.Log())
	d.Start()
	restarted := d.Listen()
	assert.Check(q, proc.Snapshot(q, second.PID).Same(second.Identity), "the lasting task has ended")
	row := check.TableRow(q, d.Ctr("tasks", "ls").Stdout, lasting)
	assert.Check(q, cmp.DeepEqual(row, []string{lasting, fmt.Sprint(second.PID), "RUNNING"}))
	startsAgain := slices.DeleteFunc(old.removeFrom(restarted.FromClient()), func(line string) bool {
		return !strings.Contains(line, " /tasks/create ") && !strings.Contains(line, " /tasks/start ")
	})
	assert.Check(q, cmp.Len(startsAgain, 0))
	q.Fact("received about the task that runs", startsAgain)
	// A daemon could publish them again before any client listens. Only its log shows that.
	log := d.Log()[logBefore:]
	topics := slices.Concat(ctrd.LoggedTopics(log, ctrd.Published), ctrd.LoggedTopics(log, ctrd.Forwarded))
	assert.Check(q, cmp.Contains(topics, "/namespaces/update"), "events in the log, which has at least that of the client's marker")
	for _, topic := range []string{"/tasks/create", "/tasks/start"} {
		assert.Check(q, !slices.Contains(topics, topic) || old.sentAgain(), "containerd has published %s again, by its log: %v", topic, topics)
	}
	q.Fact("pid and status of the task that runs, asked for", []any{second.PID, row[2]})
	// What a daemon does at its start with a task that ended before is another question, so nothing is asserted about it.
	q.Fact("the ended task, after the restart", listedStatus(q, d, ended))
	q.Cleanup(func() { d.RemoveFIFOs(ended) }) // if the daemon has deleted it, no client does

	q.Control("kill the task that runs: the new subscription receives the event")
	d.Ctr("tasks", "kill", "-s", "SIGKILL", lasting)
	proc.WaitFor(q, proc.Dead(second.Identity))
	proc.WaitFor(q, restarted.ReceivedExit(lasting))
	assert.Check(q, cmp.Len(ctrd.Topics(early.Events()), len(starts)+1), "the old subscription has received more events")

	q.Answer("No, an event is sent once, to the clients that listen at that moment. A later client can ask for the state. A " +
		"subscription ends with its daemon.")
}

// sentBefore are the events that the early listener received before the late one listened.
type sentBefore struct {
	q      *lab.Q
	d      *ctrd.Daemon
	events []string // as ctr events prints them
}

// removeFrom returns a listener's events, without those that a shim has sent again. A shim does that where a busy machine makes containerd
// answer too late, and a listener that has come meanwhile receives the copy.
func (s sentBefore) removeFrom(events []string) []string {
	isOld := func(event string) bool { return slices.Contains(s.events, event) }
	events = append([]string{}, events...)
	if !slices.ContainsFunc(events, isOld) || !s.sentAgain() {
		return events
	}
	return slices.DeleteFunc(events, isOld)
}

// sentAgain reports whether a shim has logged that containerd has not answered in time, so that it sends an event again.
func (s sentBefore) sentAgain() bool {
	s.q.Helper()
	return retry.Until(proc.Patience, func() bool { return len(s.d.LogLines("post event")) > 0 }) // it comes to the log through a FIFO
}

// listedStatus returns the status of a task in the list of `ctr tasks ls`.
func listedStatus(q *lab.Q, d *ctrd.Daemon, id string) string {
	q.Helper()
	for line := range strings.SplitSeq(d.Ctr("tasks", "ls").Stdout, "\n") {
		if f := strings.Fields(line); len(f) == 3 && f[0] == id {
			return f[2]
		}
	}
	return "not in the list"
}
