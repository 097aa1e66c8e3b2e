//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/poll"

	"cdblab/helpers/ctrd"
	"cdblab/helpers/failure"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// A task that ends while containerd is down is gone when containerd comes back: no task, no exit status, no event.
//
// While containerd is down the shim does what it always does: it takes the exit status and keeps it, and for 15 s it
// tries to publish the exit. But containerd, as it comes back, asks each shim for its processes, and takes a shim that has
// none for a leftover: the task is deleted before any client can ask how it ended, and the shim ends with its unpublished
// events. Where the task itself lives on and only an exec has died, its exit status is not lost: any client can ask for it. Its exit is
// published late, to the clients that listen by then, unless containerd comes back more than 15 s after it.
//
// A shim that dies meanwhile leaves its processes behind, and they run on as orphans. It is containerd's return that
// kills them, and since it knows of no task yet, it publishes no event.
//
// Hint: stop containerd, kill the program or its shim, look with ps and into the bundle, before containerd is started.
// Spec: https://github.com/containerd/containerd/blob/main/docs/runtime-v2.md#events
func TestTask_WhatIfTheTaskEndsWhileContainerdIsDown(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What if the task ends while containerd is down?")
	defer q.Recover()
	// At this level its log has a line for each event that a shim publishes, whether any client listens or not.
	d := ctrd.Start(q, ctrd.WithConfig("[debug]\n  level = \"trace\""))
	ref := d.PullImage()
	stream := d.Listen()

	q.Step("start six tasks, each with an exec")
	var victims []*failure.Victim
	for _, killed := range []string{failure.Init, failure.Shim, failure.Exec} {
		for _, signal := range []unix.Signal{unix.SIGKILL, unix.SIGTERM} {
			death := failure.Death{Killed: killed, Signal: signal, When: failure.Down}
			victims = append(victims, failure.NewVictim(q, d, ref, stream, death))
		}
	}
	ofInit, ofShim, ofExec := victims[:2], victims[2:4], victims[4:]
	stream.TakeEvents()
	ofShim[0].RecordParents("before")

	q.Step("kill containerd, and then one process of each task: shims keep the exit statuses")
	d.Kill()
	died := time.Now()
	for _, victim := range victims {
		proc.WaitFor(q, victim.TaskWait.Returned())
		proc.WaitFor(q, victim.ExecWait.Returned())
		victim.Kill()
	}
	for _, victim := range ofInit {
		proc.WaitFor(q, proc.Dead(victim.Exec.Identity))
		assert.Check(q, victim.Shim.Alive(), "%s: the shim is dead", victim)
		q.Fact(victim.String()+": alive while it is down", victim.Living())
		victim.AssertSavedExit(map[unix.Signal]string{unix.SIGKILL: "137", unix.SIGTERM: "7"}[victim.Signal])
	}

	q.Step("look at the tasks without a shim: init and exec run on, and the process that adopts orphans is their parent")
	adopter := proc.OrphanReaper(q)
	for _, victim := range ofShim {
		assertOrphaned(q, victim, adopter)
	}
	ofShim[0].RecordParents("while containerd is down", failure.Init, failure.Exec)
	q.Fact("while it is down, without a shim: parent of init and exec", adopter)
	logBefore := len(d.Log())

	q.Step("start containerd again: a client listens as soon as it answers")
	d.Start()
	// For so long a shim tries to publish an event, beginning with the exit, which is later than died.
	const retryPeriod = (1 + 2 + 3 + 4 + 5) * time.Second
	gaveUp := time.Since(died) > retryPeriod
	streamAfter := d.Listen()
	for _, victim := range victims {
		victim.Reconnect(streamAfter)
		victim.WaitUntilReported()
	}

	q.Step("wait for the late events: a shim tries to publish them until containerd receives them")
	expected, expectedCount := expectedExits(victims)
	assert.Check(q, cmp.Equal(expectedCount, len(ofExec)), "processes that a client finds stopped, and execs that have died")
	if !gaveUp {
		proc.WaitFor(q, hasForwardedExits(d, logBefore, expectedCount))
	}
	streamAfter.TakeEvents()
	// The log does not name the container. But if it has as many exits as execs have died, each of them was published.
	// A shim that has no answer for five seconds publishes an exit again, so there may be more.
	published := countForwardedExits(d.Log()[logBefore:])
	all := published >= len(ofExec)
	assert.Check(q, all || gaveUp, "shims have published %d exits; %d execs have died", published, len(ofExec))
	shown := map[*failure.Victim]bool{} // victims whose exits are known to have been published
	for _, victim := range victims {
		shown[victim] = recordLateExits(q, victim, expected[victim], all)
	}

	q.Step("list what remains: of tasks whose init or shim has died, only the container, and containerd has published no event of them")
	// containerd deletes them before any client can listen, so only its log shows what it has published. The exits above are from shims.
	topics := ctrd.LoggedTopics(d.Log()[logBefore:], ctrd.Published)
	assert.Check(q, cmp.Contains(topics, "/namespaces/update"), "events in the log, which has at least that of the client's marker")
	assert.Check(q, cmp.DeepEqual(ctrd.TaskTopics(topics), []string{}), "events of tasks that containerd itself has published")
	q.Fact("events of tasks that containerd itself has published since its start", ctrd.TaskTopics(topics))
	observed := failure.Tabulate(q, d, "death-while-containerd-is-down.golden", victims)
	for _, victim := range ofShim {
		assertLostWithShim(q, victim, observed[victim])
	}
	for _, victim := range ofInit {
		assertLostWithInit(q, victim, observed[victim])
	}
	for _, victim := range slices.Concat(ofInit, ofShim) {
		seen := observed[victim]
		assert.Check(q, cmp.Equal(seen["event 1"], "-"), "%s: an event of a task that is lost", victim)
		assert.Check(q, cmp.Equal(seen["container"], "there"), victim)
	}

	q.Control("look at the tasks of which only an exec has died: containerd keeps the task, and knows of the exec's end")
	for _, victim := range ofExec {
		assertKept(q, victim, observed[victim], shown[victim])
	}
	q.Fact("calls of Wait that ended with an error", countFailedWaits(q, victims))

	q.Answer("If a task ends while containerd is down, containerd deletes it when it comes back, and the exit status is lost without an " +
		"event. The end of an exec is not lost, because the shim of a task that runs keeps it.")
}

// assertOrphaned asserts that init and exec of a task whose shim is dead run on, and that the task keeps its bundle and cgroup.
func assertOrphaned(q *lab.Q, victim *failure.Victim, adopter proc.PID) {
	for _, before := range []proc.Process{victim.Init, *victim.Exec} {
		now := proc.Snapshot(q, before.PID)
		assert.Check(q, now.Same(before.Identity), "%s: another process has the pid %d", victim, before.PID)
		assert.Check(q, cmp.Equal(now.Parent, adopter), "%s: parent of process %d", victim, before.PID)
	}
	assert.Check(q, file.Exists(victim.Bundle) && victim.HasCgroup(), "%s: bundle or cgroup is gone", victim)
	assert.Check(q, cmp.Equal(file.Exists(victim.Socket), victim.Signal == unix.SIGKILL), "%s: the socket's file is there", victim)
	q.Fact(victim.String()+": alive while it is down", victim.Living())
}

// expectedExits returns the exits that the shims of the victims have to publish, and how many these are.
func expectedExits(victims []*failure.Victim) (expected map[*failure.Victim][]string, count int) {
	expected = map[*failure.Victim][]string{}
	for _, victim := range victims {
		expected[victim] = victim.ExpectedExits()
		count += len(expected[victim])
	}
	return expected, count
}

// hasForwardedExits returns a check that succeeds when shims have published so many exits, by containerd's log from an offset on.
func hasForwardedExits(d *ctrd.Daemon, offset, want int) poll.Check {
	return func(poll.LogT) poll.Result {
		if n := countForwardedExits(d.Log()[offset:]); n < want {
			return poll.Continue("containerd's log has %d exits that shims have published, of %d", n, want)
		}
		return poll.Success()
	}
}

// countForwardedExits counts the exits that shims have published, by containerd's log.
func countForwardedExits(log string) int {
	n := 0
	for _, topic := range ctrd.LoggedTopics(log, ctrd.Forwarded) {
		if topic == "/tasks/exit" {
			n++
		}
	}
	return n
}

// recordLateExits records for each expected exit whether it was published, and whether the client has received it. all says that
// containerd's log has all exits. recordLateExits reports whether the victim's exits are known to have been published.
func recordLateExits(q *lab.Q, victim *failure.Victim, expected []string, all bool) (shown bool) {
	received := victim.Events()
	for _, event := range expected {
		fact := victim.String() + ", " + event
		shown = slices.Contains(received, event) || all
		switch {
		case slices.Contains(received, event):
			q.Fact(fact, lab.Chance("published late"))
			continue
		case shown:
			q.Fact(fact, lab.Chance("published before a client listened"))
		default:
			q.Fact(fact, lab.Chance("given up: containerd was down for too long"))
		}
		// When a client subscribes, and for how long containerd was down, is not what the table is about: it has the event
		// although this client has not received it. Whether it was published is asserted apart.
		victim.Missed = append(victim.Missed, event)
	}
	return shown
}

// assertLostWithShim asserts that nothing remains of a task whose shim died while containerd was down.
func assertLostWithShim(q *lab.Q, victim *failure.Victim, seen failure.Observation) {
	for _, process := range []string{"init", "exec"} {
		assert.Check(q, cmp.Equal(seen[process], "dead"), "%s: the orphaned %s is killed when containerd comes back", victim, process)
	}
	for _, thing := range []string{"bundle", "rootfs mount", "cgroup", "runtime's state"} {
		assert.Check(q, cmp.Equal(seen[thing], "gone"), "%s: the %s", victim, thing)
	}
	assert.Check(q, cmp.Equal(seen["new client: task"], "no task"), victim)
}

// assertLostWithInit asserts that the task is gone whose init died while containerd was down, and its shim and bundle with it.
func assertLostWithInit(q *lab.Q, victim *failure.Victim, seen failure.Observation) {
	assert.Check(q, cmp.Equal(seen["exec"], "dead"), "%s: the exec died with pid 1", victim)
	assert.Check(q, cmp.Equal(seen["new client: task"], "no task"), "%s: the exit status can still be asked for", victim)
	assert.Check(q, cmp.Equal(seen["shim"], "dead"), "%s: the shim, whose task is deleted", victim)
	assert.Check(q, cmp.Equal(seen["bundle"], "gone"), victim)
}

// assertKept asserts that a task runs on of which only the exec has died. shown reports whether the exit of the exec is known to have been
// published.
func assertKept(q *lab.Q, victim *failure.Victim, seen failure.Observation, shown bool) {
	want := fmt.Sprint(128 + int(victim.Signal))
	assert.Check(q, cmp.Equal(seen["new client: task"], "RUNNING"), victim)
	assert.Check(q, cmp.Equal(seen["new client: exec"], "STOPPED "+want), victim)
	if shown {
		assert.Check(q, cmp.Equal(seen["event 1"], "exit exec "+want), victim)
	}
	assert.Check(q, cmp.Equal(seen["another exec"], "works"), victim)
	assert.Check(q, !victim.Shim.Alive(), "%s: its shim is alive, after the task was deleted for a new one", victim)
}

// countFailedWaits counts the calls of Wait that ended with an error, by the client that was there before. It asserts that all did.
func countFailedWaits(q *lab.Q, victims []*failure.Victim) int {
	failed := 0
	for _, victim := range victims {
		for _, wait := range []*failure.PendingWait{victim.TaskWait, victim.ExecWait} {
			assert.Check(q, wait.Err() != nil, "%s: Wait of the client that was there before returned %s, and no error", victim, wait.Result())
			if wait.Err() != nil {
				failed++
			}
		}
	}
	return failed
}
