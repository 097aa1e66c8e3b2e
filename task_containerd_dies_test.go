//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/pelletier/go-toml/v2"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/poll"

	"cdblab/helpers/check"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/failure"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/retry"
)

// A running task survives, all of it: shim, program, execs, socket, mount, cgroup. A stopped task does not.
//
// The kernel does not end a process because the process that started it has ended. And the shim has all that the task needs: its
// streams, its exit status and a socket. So a containerd that dies, by whatever signal, takes nothing with it. Where systemd runs
// containerd, that needs KillMode=process in the unit: by default, systemd ends all processes of the unit's cgroup, and the shims are
// there too. containerd's own unit also has Delegate=yes, so that systemd leaves alone what is below the unit's cgroup. The tasks'
// cgroups are elsewhere by default. And it has OOMScoreAdjust=-999: shims, and tasks that name no score, have -998.
// See https://github.com/containerd/containerd/blob/main/docs/ops.md#systemd
//
// The next containerd reads the bundles below its state directory, finds in each how its shim is reached, and asks it. Clients are
// on the other side: a Wait and a subscription to events end with an error, and a client that wants to know how the task ends
// has to wait anew.
//
// A stopped task is no running one: as it comes back, containerd takes a shim without processes for a leftover, and
// deletes the task, without publishing an event. So its exit status is lost to every client that has not asked before.
//
// Hint: systemctl restart containerd, and look at the shims' pids before and after.
// Spec: https://github.com/containerd/containerd/blob/main/docs/runtime-v2.md#containerd-runtime-communication
func TestTask_WhatSurvivesWhenContainerdDies(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What survives when containerd dies?")
	defer q.Recover()
	// At this level its log has a line for each event, whether any client listens or not.
	d := ctrd.Start(q, ctrd.WithConfig("[debug]\n  level = \"trace\""))
	ref := d.PullImage()
	var victims []*failure.Victim
	for _, signal := range []unix.Signal{unix.SIGKILL, unix.SIGTERM} {
		name := unix.SignalName(signal)
		q.Step("%s: start a task with an exec, and another task that ends with 7", name)
		stream := d.Listen()
		death := failure.Death{Killed: failure.Containerd, Signal: signal, When: failure.Running}
		running := failure.NewVictim(q, d, ref, stream, death)
		death.When = failure.Stopped
		stopped := failure.NewVictim(q, d, ref, stream, death)
		stream.TakeEvents()
		running.RecordParents("before")
		addressFile := file.VersionOf(q, ctrd.ShimAddressFile(running.Bundle))

		q.Step("%s: end containerd with this signal", name)
		running.RememberEvents()
		stopped.RememberEvents()
		if signal == unix.SIGKILL {
			d.Kill()
		} else {
			assert.NilError(q, d.Stop())
		}
		q.Control("look at the clients: a Wait and a subscription go through containerd, do not survive, and end with an error")
		proc.WaitFor(q, running.TaskWait.Returned())
		proc.WaitFor(q, running.ExecWait.Returned())
		proc.WaitFor(q, stream.Closed())
		assert.Check(q, running.TaskWait.Err() != nil,
			"the old client's Wait returned %s, and the task runs", running.TaskWait.Result())
		q.Fact(running.String()+": error of the old Wait", lab.Chance(fmt.Sprint(running.TaskWait.Err())))
		q.Fact(running.String()+": error of the old subscription", lab.Chance(fmt.Sprint(stream.Err())))

		q.Step("%s: start containerd again: it finds the same shim, program and exec, by all that the kernel shows of them", name)
		logBefore := len(d.Log())
		d.Start()
		streamAfter := d.Listen()
		for _, victim := range []*failure.Victim{running, stopped} {
			victim.Reconnect(streamAfter)
			victim.WaitUntilReported()
		}
		streamAfter.TakeEvents()
		// containerd deletes the stopped task before any client can listen, so only its log shows whether it publishes an event.
		topics := ctrd.LoggedTopics(d.Log()[logBefore:], ctrd.Published)
		assert.Check(q, cmp.Contains(topics, "/namespaces/update"), "events in the log, which has at least that of the client's marker")
		assert.Check(q, cmp.DeepEqual(ctrd.TaskTopics(topics), []string{}), "events of tasks that containerd itself has published")
		q.Fact(name+": events of tasks that containerd itself has published since its start", ctrd.TaskTopics(topics))
		survived := []string{}
		for _, before := range []proc.Process{running.Shim, running.Init, *running.Exec} {
			assert.Assert(q, before.Alive(), "process %d (%s) has not survived the death of containerd", before.PID, before.Comm)
			now, then := proc.Snapshot(q, before.PID).Identity, before.Identity
			if before.PID == running.Shim.PID {
				now.Mounts, then.Mounts = nil, nil // the host's, which change with every container
			}
			assert.Check(q, cmp.DeepEqual(now, then))
			survived = append(survived, before.Comm)
		}
		assert.Check(q, proc.Listens(q, proc.Snapshot(q, running.Shim.PID), running.Socket),
			"the shim does not listen on its old socket %s any more", running.Socket)
		assert.Check(q, cmp.DeepEqual(file.VersionOf(q, ctrd.ShimAddressFile(running.Bundle)), addressFile),
			"the file with the shim's address")
		q.Fact(running.String()+": processes that are the same as before", survived)
		q.Fact(running.String()+": file with the shim's address, the same as before", filepath.Base(ctrd.ShimAddressFile(running.Bundle)))
		victims = append(victims, running, stopped)
	}

	q.Step("list what remains; then end what still runs: a new client's Wait gets the real status")
	observed := failure.Tabulate(q, d, "death-of-containerd.golden", victims)
	for _, victim := range victims {
		seen := observed[victim]
		if victim.When == failure.Running {
			for _, process := range []string{"init", "exec", "shim"} {
				assert.Check(q, cmp.Equal(seen[process], "alive"), "%s: the %s", victim, process)
			}
			for _, thing := range []string{"bundle", "rootfs mount", "shim's socket", "cgroup", "runtime's state", "container"} {
				assert.Check(q, cmp.Equal(seen[thing], "there"), "%s: the %s", victim, thing)
			}
			assert.Check(q, cmp.Equal(seen["new client: task"], "RUNNING"), victim)
			assert.Check(q, cmp.Equal(seen["new client: exec"], "RUNNING"), victim)
			assert.Check(q, cmp.Equal(seen["another exec"], "works"), victim)
			assert.Check(q, cmp.Equal(seen["event 1"], "-"), "%s: an event, and nothing had happened to the task", victim)
			continue
		}
		assert.Check(q, cmp.Equal(seen["old Wait: task"], "7"), "%s: Wait of a client that had asked before", victim)
		assert.Check(q, cmp.Equal(seen["container"], "there"), victim)
		assert.Check(q, cmp.Equal(seen["new client: task"], "no task"), "%s: the exit status can still be asked for", victim)
		assert.Check(q, cmp.Equal(seen["event 2"], "-"), "%s: an event of the task's deletion was received", victim)
		assert.Check(q, cmp.Equal(seen["shim"], "dead"), victim)
		assert.Check(q, cmp.Equal(seen["bundle"], "gone"), victim)
	}
	q.Answer("All that runs survives: shim, program, execs, socket, mount and cgroup. A client that waited has to ask again, " +
		"and a task that had stopped is deleted without an event.")
}

// A shim that does not answer for 5 seconds when containerd starts counts as dead: containerd kills its task, and publishes no event. With
// a longer timeout containerd waits for the shim, and the task survives. Until then containerd does not answer.
//
// At its start containerd asks each shim whose bundle it finds for the pid of the task. If there is no answer within
// io.containerd.timeout.shim.load, it runs the shim's program once more, as `shim delete`, and that runs `runc delete --force`. Then it
// removes the bundle. Nothing was wrong with the task: its shim may have been stopped, or may not have got the processor for so long, as
// on a machine that swaps. The shim itself lives on without a task, and its socket stays. While containerd runs, such a shim costs only
// an answer: a task whose shim does not tell its state within io.containerd.timeout.task.state, 2 seconds, is not listed. Before 2.3,
// containerd lists it with the status UNKNOWN.
//
// The lab's other daemons have 2 minutes, because questions are asked on slow machines, too.
//
// Hint: kill -STOP a shim, then restart containerd. `containerd config dump` shows the timeouts.
// Spec: https://github.com/containerd/containerd/blob/main/docs/man/containerd-config.toml.5.md#format
// Kernel: https://man7.org/linux/man-pages/man7/signal.7.html, SIGSTOP and SIGCONT
func TestTask_WhatIfAShimDoesNotAnswerWhenContainerdStarts(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What if a shim does not answer when containerd starts?")
	defer q.Recover()
	// At this level its log has a line for each event, whether any client listens or not.
	d := ctrd.Start(q, ctrd.WithConfig("[debug]\n  level = \"trace\""))
	d.EndShimsIfFailed()
	ref := d.PullImage()
	waits, impatient := q.ID(ctrd.ContainerID+"-waits"), q.ID(ctrd.ContainerID+"-impatient")
	const defaultTimeout = 5 * time.Second

	q.Control("with a timeout of 2 minutes: stop the shim for longer than 5 seconds while containerd starts. The task survives")
	d.CreateContainer(ref, waits, "sleep", "3600")
	task := d.StartTaskAndWait(waits)
	shim := proc.Snapshot(q, task.Parent)
	socket := d.ShimSocket(waits)
	q.Fact("containerd's timeouts, in the lab", timeoutsOf(q))
	d.Kill()
	stopShim(q, shim)
	continued := lab.Go(func() error { return continueAfter(shim, socket, defaultTimeout+time.Second) })
	d.Start() // it answers when it has loaded the shim
	assert.NilError(q, <-continued)
	assert.Check(q, d.StartupTime > defaultTimeout, "containerd answers after %v, before the shim goes on", d.StartupTime)
	assert.Check(q, task.Alive(), "the task's process has ended")
	assert.Check(q, cmp.Equal(d.TaskStatus(waits).Status, containerd.Running))
	assert.Check(q, cmp.Equal(d.TaskPID(waits), task.PID))
	q.Fact("2 minutes: containerd answers later than after 5 s", d.StartupTime > defaultTimeout)
	q.Fact("2 minutes: status of the task", d.TaskStatus(waits).Status)
	q.Fact("2 minutes: the task's process is alive", task.Alive())
	d.KillAndDeleteTask(waits)

	q.Step("start containerd with its default timeouts for answers, and stop the shim of a task: the task is not listed as running")
	useDefaultTimeouts(q)
	assert.NilError(q, d.Stop())
	d.Start()
	timeouts := timeoutsOf(q)
	assert.Check(q, cmp.Equal(timeouts["io.containerd.timeout.shim.load"], defaultTimeout.String()), "default of the timeout shim.load")
	q.Fact("containerd's timeouts, those for answers by default", timeouts)
	d.CreateContainer(ref, impatient, "sleep", "3600")
	task = d.StartTaskAndWait(impatient)
	shim = proc.Snapshot(q, task.Parent)
	socket = d.ShimSocket(impatient)
	q.Cleanup(func() { _ = os.Remove(socket) }) // a shim that was killed leaves it, and the lab has to remove it
	stopShim(q, shim)
	table := d.Ctr("tasks", "ls").Stdout
	assert.Check(q, task.Alive(), "the task's process has ended")
	unknown := strings.Contains(table, "UNKNOWN") && q.UnderTest("containerd").Precedes("2.3.0")
	assert.Check(q, !strings.Contains(table, impatient) || unknown, "a task whose shim is stopped is listed:\n%s", table)
	q.Fact("the shim is stopped: tasks that ctr tasks ls lists", strings.Count(table, impatient))

	q.Step("start containerd again while the shim is stopped: it kills the task's process and removes the bundle. The shim is the same")
	logBefore := len(d.Log())
	d.Kill()
	d.Start()
	proc.WaitFor(q, proc.Dead(task.Identity))
	proc.WaitFor(q, func(poll.LogT) poll.Result {
		if file.Exists(d.Bundle(impatient)) {
			return poll.Continue("the bundle %s still exists", d.Bundle(impatient))
		}
		return poll.Success()
	})
	assert.Check(q, shim.Alive(), "the shim has ended")
	assert.Check(q, cmp.Equal(proc.Stat(q, shim.PID).State, "T"), "state of the shim")
	check.NoCgroup(q, "/"+d.Namespace+"/"+impatient)
	d.Listen() // its marker is an event, too
	published := ctrd.LoggedTopics(d.Log()[logBefore:], ctrd.Published)
	assert.Check(q, cmp.Contains(published, "/namespaces/update"), "events in the log, which has at least that of the client's marker")
	topics := ctrd.TaskTopics(published)
	assert.Check(q, cmp.Len(topics, 0), "events of tasks that containerd has published")
	q.Fact("by default: the task's process is alive", task.Alive())
	q.Fact("by default: the bundle exists", file.Exists(d.Bundle(impatient)))
	q.Fact("by default: state of the shim", proc.Stat(q, shim.PID).State)
	q.Fact("by default: events of the task", topics)
	listed := strings.Fields(d.Ctr("tasks", "ls", "-q").Stdout)
	assert.Check(q, !slices.Contains(listed, impatient), "the task is still listed")
	assert.Check(q, cmp.Contains(strings.Fields(d.Ctr("containers", "ls", "-q").Stdout), impatient), "the container is gone")
	q.Fact("by default: tasks, containers", [][]string{listed, strings.Fields(d.Ctr("containers", "ls", "-q").Stdout)})

	q.Step("let the shim go on: it reaps the process that was killed, and listens on its socket, which no containerd uses")
	sendSignal(q, shim, unix.SIGCONT)
	proc.WaitFor(q, proc.Reaped(task.Identity))
	assert.Check(q, proc.Listens(q, proc.Snapshot(q, shim.PID), socket), "the shim does not listen on %s", socket)
	q.Fact("the shim goes on: listens on its socket", proc.Listens(q, proc.Snapshot(q, shim.PID), socket))

	q.TearDown("kill the shim, which no containerd knows any more", func() {
		q.KillProcess(shim)
		d.RemoveFIFOs(impatient) // of ctr, which removes them when the task is deleted
	})
	q.Answer("With the default timeouts, containerd takes a shim that does not answer for 5 seconds for dead: it kills the task without an " +
		"event, and the shim lives on. With a longer timeout containerd waits, and the task survives.")
}

// stopShim stops a shim, and waits until it has stopped.
func stopShim(q *lab.Q, shim proc.Process) {
	q.Helper()
	q.TB.Cleanup(func() { _ = proc.End(shim.Identity, unix.SIGCONT) })
	sendSignal(q, shim, unix.SIGSTOP)
	proc.WaitFor(q, proc.IsInState(shim.PID, "T"))
}

// continueAfter lets a stopped shim go on when a containerd has waited for an answer for this long.
func continueAfter(shim proc.Process, socket string, pause time.Duration) error {
	defer func() { _ = proc.End(shim.Identity, unix.SIGCONT) }()
	var asked time.Time
	done := retry.Until(proc.Patience, func() bool {
		if asked.IsZero() && proc.HasCaller(socket) {
			asked = time.Now()
		}
		return !asked.IsZero() && time.Since(asked) > pause
	})
	if !done {
		return fmt.Errorf("no containerd has connected to the shim's socket %s for %v", socket, pause)
	}
	return nil
}

// timeoutsOf returns the timeouts in the configuration of the question's containerd.
func timeoutsOf(q *lab.Q) map[string]string {
	q.Helper()
	var c struct{ Timeouts map[string]string }
	dump := q.Must("containerd", "--config", "containerd/config.toml", "config", "dump").Stdout
	assert.NilError(q, toml.Unmarshal([]byte(dump), &c))
	return c.Timeouts
}

// answerTimeouts are the timeouts for an answer of a shim. That of `shim delete`, which works, stays at the lab's 2 minutes: on a slow machine
// runc may need longer than the default.
var answerTimeouts = regexp.MustCompile(`(?m)^ *"io\.containerd\.timeout\.(shim\.load|task\.state)" .*\n`)

// useDefaultTimeouts removes the timeouts for answers from the configuration of the question's containerd.
func useDefaultTimeouts(q *lab.Q) {
	q.Helper()
	name := filepath.Join(q.Dir, "containerd/config.toml")
	config := file.Read(q, name)
	assert.Assert(q, cmp.Len(answerTimeouts.FindAllString(config, -1), 2), "timeouts for answers in:\n%s", config)
	assert.NilError(q, os.WriteFile(name, []byte(answerTimeouts.ReplaceAllString(config, "")), 0o644))
	q.LogCommand(`sed -i '/shim.load/d; /task.state/d' containerd/config.toml`)
}
