//go:build linux && vmlab

package cdblab

import (
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

// Yes. If containerd does not answer the shim within five seconds, the shim sends the event again, although containerd may have it. Both
// have the same time and the same content.
//
// The shim cannot know whether the event or the answer is late. It tries again after a second, and five times in all, so that an event is
// seldom lost. A busy machine is enough for that. The second one may come after events that were published later. So a client that counts
// exits, or restarts something at each, has to know an event by its time, its topic and its id.
//
// Hint: kill a task while containerd is stopped (SIGSTOP), continue it after six seconds, and watch `ctr events`.
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
	const failed = "post event" // the shim's message, when containerd has not taken an event

	q.Control("let an exec end while containerd answers: one exit is received")
	d.Ctr("tasks", "exec", "--fifo-dir", d.FifoDir, "--exec-id", "first", id, "true")
	proc.WaitFor(q, received("first", 1))
	if len(d.LogLines(failed)) == 0 { // on a busy machine it may not answer in time by itself
		assert.Check(q, cmp.Len(exits("first"), 1), "exits of an exec, while containerd answers")
	}

	q.Step("stop containerd, and kill the task: the shim reports the exit, and complains after five seconds that containerd has not answered")
	daemon := d.PID()
	q.TB.Cleanup(func() { _ = unix.Kill(int(daemon), unix.SIGCONT) })
	before := len(d.LogLines(failed))
	q.LogCommand("kill -STOP %d   # containerd", daemon)
	assert.NilError(q, unix.Kill(int(daemon), unix.SIGSTOP))
	proc.WaitFor(q, proc.IsInState(daemon, "T"))
	log := pipe.OpenReader(q, filepath.Join(d.Bundle(id), "log")) // containerd reads it as well, when it goes on
	q.KillProcess(init)
	proc.WaitFor(q, func(poll.LogT) poll.Result {
		if pipe.Buffered(log) <= 0 {
			return poll.Continue("the shim has written nothing into its log, %s", log.Name())
		}
		return poll.Success()
	})
	assert.NilError(q, log.Close())
	assert.Check(q, cmp.Len(exits(id), 0), "exits of the task, while containerd is stopped")

	q.Step("continue containerd: it publishes the event that it had got, and once more what the shim sends again")
	q.LogCommand("kill -CONT %d   # containerd", daemon)
	assert.NilError(q, unix.Kill(int(daemon), unix.SIGCONT))
	proc.WaitFor(q, received(id, 2))
	stream.TakeEvents() // both listeners have received all by now
	both := exits(id)
	assert.Assert(q, len(both) >= 2)
	for _, again := range both[1:] {
		assert.Check(q, again.Timestamp.Equal(both[0].Timestamp), "times of the same event: %v and %v", both[0].Timestamp, again.Timestamp)
		assert.Check(q, cmp.Equal(again.String(), both[0].String()), "contents of the same event")
	}
	printed := 0
	for _, line := range slices.Concat(stream.FromCtr(), stream.AgainFromCtr()) {
		if strings.Contains(line, "/tasks/exit") && !strings.Contains(line, `"first"`) {
			printed++
		}
	}
	assert.Check(q, cmp.Equal(printed, len(both)), "exits of the task that ctr events prints")
	proc.WaitFor(q, func(poll.LogT) poll.Result {
		if got := len(d.LogLines(failed)); got <= before {
			return poll.Continue("containerd's log has %d messages %q of the shim, and had %d", got, failed, before)
		}
		return poll.Success()
	})
	complaint, _ := d.FindLogLine(failed, failed)
	q.Fact("the shim's message", complaint["error"])
	q.Fact("the exit of the task is received more than once", len(both) > 1)
	q.Fact("both have the same time", both[1].Timestamp.Equal(both[0].Timestamp))

	q.Answer("Yes: a shim that gets no answer from containerd within five seconds sends the event again, with the same time.")
}
