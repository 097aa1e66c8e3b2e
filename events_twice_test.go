//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	eventsapi "github.com/containerd/containerd/api/events"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/poll"

	"cdblab/helpers/ctrd"
	"cdblab/helpers/lab"
	"cdblab/helpers/pipe"
	"cdblab/helpers/proc"
)

// containerd may publish an event of a shim twice. If containerd does not answer the shim within five seconds, the shim sends the event
// again. Both copies have the same time and the same content.
//
// The shim cannot know whether containerd has not received the event, or only answers late. A busy machine is enough to make the answer
// late. The shim sends the event again up to five times, after one second, after two, and so on. After that it drops the event, so an
// event may also be lost. The second copy may arrive after newer events. So a client that counts exits, or restarts something at each
// exit, has to recognise a copy by its time, topic and id.
//
// When a shim dies after its task has ended, containerd itself publishes the exit again. That event has another time of publishing, but the
// saved status and time of the end. The shims of containerd 2.3.4 and before save nothing: with them both may be different. See
// TestTask_WhatHappensWhenTheShimDies.
//
// Hint: kill a task while containerd is stopped (SIGSTOP), continue containerd after six seconds, and watch `ctr events`.
// Spec: https://github.com/containerd/containerd/blob/main/pkg/shim/publisher.go
func TestEvents_CanAnEventComeTwice(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Can an event come twice?")
	defer q.Recover()
	d := ctrd.Start(q)
	ref, id := d.PullImage(), q.ID(ctrd.ContainerID)
	d.CreateContainer(ref, id, "sleep", "3600")
	stream := d.Listen("event.container_id==" + id)
	init := d.StartTaskAndWaitForEvent(stream, id)
	// exits returns the exit events of a process of the task, by its id.
	exits := func(process string) (found []ctrd.Event) {
		for _, event := range slices.Concat(stream.Events(), stream.Again()) {
			if exit, ok := event.Body.(*eventsapi.TaskExit); ok && exit.ID == process {
				found = append(found, event)
			}
		}
		return found
	}
	received := func(process string, want int) poll.Check {
		return func(poll.LogT) poll.Result {
			if got := exits(process); len(got) < want {
				return poll.Continue("received %d exits of %s, want %d", len(got), process, want)
			}
			return poll.Success()
		}
	}
	const failed = "post event" // the shim's message when containerd has not answered

	q.Control("let an exec end while containerd answers: one exit is received")
	d.Ctr("tasks", "exec", "--fifo-dir", d.FifoDir, "--exec-id", "first", id, "true")
	proc.WaitFor(q, received("first", 1)) // a copy would come a second later or more: recordCopies looks for it at the end

	q.Step("stop containerd, and kill the task: the shim sends the exit event, and logs after five seconds that containerd has not answered")
	daemon := d.PID()
	q.TB.Cleanup(func() { _ = unix.Kill(int(daemon), unix.SIGCONT) })
	q.LogCommand("kill -STOP %d   # containerd", daemon)
	assert.NilError(q, unix.Kill(int(daemon), unix.SIGSTOP))
	proc.WaitFor(q, proc.IsInState(daemon, "T"))
	// The shim's log is a FIFO, from which containerd reads after SIGCONT. Until then it has what the shim writes.
	log := pipe.OpenReader(q, filepath.Join(d.Bundle(id), "log"))
	q.KillProcess(init)
	proc.WaitFor(q, pipe.HasText(log, failed))
	assert.NilError(q, log.Close())
	assert.Check(q, cmp.Len(exits(id), 0), "exits of the task, while containerd is stopped")

	q.Step("continue containerd: it publishes the event that waited in its socket, and publishes it again when the shim sends it again")
	q.LogCommand("kill -CONT %d   # containerd", daemon)
	assert.NilError(q, unix.Kill(int(daemon), unix.SIGCONT))
	var both []ctrd.Event
	proc.WaitFor(q, func(poll.LogT) poll.Result { // a further copy may arrive at one listener first
		printed := 0
		for _, line := range slices.Concat(stream.FromCtr(), stream.AgainFromCtr()) {
			if strings.Contains(line, "/tasks/exit") && !strings.Contains(line, `"first"`) {
				printed++
			}
		}
		if both = exits(id); len(both) < 2 || printed != len(both) {
			return poll.Continue("exits of the task: the Go client has received %d, want 2 or more; ctr events has printed %d", len(both), printed)
		}
		return poll.Success()
	})
	for _, again := range both[1:] {
		assert.Check(q, again.Timestamp.Equal(both[0].Timestamp), "times of the same event: %v and %v", both[0].Timestamp, again.Timestamp)
		assert.Check(q, cmp.Equal(again.String(), both[0].String()), "contents of the same event")
	}
	var failures []ctrd.LogLine
	proc.WaitFor(q, func(poll.LogT) poll.Result { // the shim logs that of the exit last, seconds after it has given the event its time
		failures = d.LogLines(failed)
		if n := len(failures); n == 0 || !failures[n-1].Time(q).After(both[0].Timestamp) {
			return poll.Continue("containerd's log has no message %q of the shim after %v, but %v", failed, both[0].Timestamp, failures)
		}
		return poll.Success()
	})
	recordCopies(q, stream, id, failures)
	q.Fact("while containerd answers: times that the exit of an exec was received", lab.Chance(fmt.Sprint(len(exits("first")))))
	q.Fact("shim's log: error of the event", failures[len(failures)-1]["error"])
	q.Fact("exit of the task: times received", lab.Chance(fmt.Sprint(len(both))))
	q.Fact("exit of the task: more than one copy", len(both) > 1)
	q.Fact("exit of the task: the copies have the same time", both[1].Timestamp.Equal(both[0].Timestamp))

	q.Answer("A shim that gets no answer from containerd within five seconds sends the event again, with the same time. So clients may " +
		"receive an event twice.")
}

// recordCopies asserts that no event was received twice, except the task's exit. failures are the shim's messages about events that
// containerd has not answered in time. Of them, only that of the exit is intended. Where a busy machine has caused more, other events may
// have been received twice as well.
func recordCopies(q *lab.Q, stream *ctrd.Stream, id string, failures []ctrd.LogLine) {
	q.Helper()
	again := slices.DeleteFunc(stream.Again(), func(e ctrd.Event) bool {
		exit, ok := e.Body.(*eventsapi.TaskExit)
		return ok && exit.ID == id
	})
	if len(failures) == 1 {
		assert.Check(q, cmp.DeepEqual(ctrd.Topics(again), []string{}), "events received again, which containerd had answered in time")
	}
	q.Fact("events that containerd answered in time: received again", lab.Chance(fmt.Sprint(len(again))))
}
