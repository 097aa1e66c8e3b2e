//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/ctrd"
	"cdblab/helpers/failure"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// A running task survives, all of it: shim, program, execs, socket, mount, cgroup. A stopped task does not.
//
// The shim is no child of containerd and listens on a socket of its own, so a containerd that dies, by whatever signal,
// takes nothing with it. Where systemd runs it, that needs KillMode=process in the unit: by default, systemd ends all processes
// of the unit's cgroup, and the shims are there too. containerd's own unit also has Delegate=yes, so that systemd leaves alone
// what is below the unit's cgroup. The tasks' cgroups are elsewhere by default. And it has OOMScoreAdjust=-999: shims, and tasks that
// name no score, have -998.
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
