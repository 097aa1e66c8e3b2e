//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	eventsapi "github.com/containerd/containerd/api/events"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// An out-of-memory kill (OOM) publishes one event more, /tasks/oom with the container's id, beside an exit with status 137.
//
// 137 is 128 and 9, SIGKILL, whatever sent it. The exit alone does not distinguish the kernel's OOM killer from a
// `kill -9`; the oom event does, and so does the cgroup's counter, as long as the cgroup exists. The shim watches that
// counter and publishes the event. It names the container, but not the process that was killed, or its memory.
//
// Hint: memory.events on v2, memory.oom_control on v1; what does `ctr events` show before the exit?
// Spec: https://github.com/containerd/containerd/blob/main/api/events/task.proto
// Kernel: https://docs.kernel.org/admin-guide/cgroup-v2.html#memory, memory.events; https://docs.kernel.org/admin-guide/cgroup-v1/memory.html#oom-control
func TestEvents_WhatDoesAnOOMTell(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does an OOM tell?")
	defer q.Recover()
	if !cgroup.Of(q, q.Cgroup).Has("memory") {
		q.Skip("this kernel has no memory controller in a hierarchy of this mode: run the question with CGROUP=v2")
	}
	if swaps := strings.Count(file.Read(q, "/proc/swaps"), "\n"); swaps > 0 {
		q.Skip("this machine swaps, and ctr cannot limit swap: a process over the limit is swapped out, not killed. " +
			"Run the question after swapoff -a")
	}
	d := ctrd.Shared(q)
	ref := d.PullImage()
	stream := d.Listen()
	oomKills := func(g cgroup.Group) uint64 {
		if g.V2 {
			return g.Stat("memory", "memory.events", "oom_kill")
		}
		return g.Stat("memory", "memory.oom_control", "oom_kill")
	}
	// Each container has the same program and the same limit. SIGUSR1 makes the program take twice as much as the limit:
	// dd fills its buffer before it writes.
	startLimited := func(id string) (proc.Process, cgroup.Group) {
		d.CreateContainerWith([]string{"--memory-limit", fmt.Sprint(32 * (1 << 20))}, ref, id, "sh", "-c",
			`trap "exec dd if=/dev/zero of=/dev/null bs=64M count=1" USR1; sleep 3600 & while :; do wait; done`)
		d.StartTask(id)
		pid := d.TaskPID(id)
		proc.WaitFor(q, proc.Catches(pid, "sh", unix.SIGUSR1))
		g := cgroup.Of(q, "/"+d.Namespace+"/"+id)
		assert.Check(q, cmp.Equal(oomKills(g), uint64(0)))
		return proc.Snapshot(q, pid), g
	}
	exits := func() []ctrd.Event {
		return slices.DeleteFunc(stream.Events(), func(e ctrd.Event) bool { return e.Topic != "/tasks/exit" })
	}

	q.Step("let a program take 64 MiB under a limit of 32: the kernel counts an OOM kill, and containerd publishes an event")
	over := q.ID(ctrd.ContainerID)
	p, g := startLimited(over)
	d.Ctr("tasks", "kill", "-s", "SIGUSR1", over)
	proc.WaitFor(q, proc.Dead(p.Identity))
	proc.WaitFor(q, stream.Received("/tasks/exit", 1))
	assert.Assert(q, cmp.Equal(oomKills(g), uint64(1)), "processes that the OOM killer has ended in this cgroup")
	proc.WaitFor(q, stream.Received("/tasks/oom", 1))
	events := stream.TakeEvents()
	oom := slices.IndexFunc(events, func(e ctrd.Event) bool { return e.Topic == "/tasks/oom" })
	named := events[oom].Body.(*eventsapi.TaskOOM).ContainerID
	assert.Check(q, cmp.Equal(named, over), "the container that the oom event names")
	exit := exits()[0].Body.(*eventsapi.TaskExit)
	assert.Check(q, cmp.DeepEqual([]uint32{exit.Pid, exit.ExitStatus}, []uint32{uint32(p.PID), 128 + 9}))
	q.Fact("oom_kill", oomKills(g))
	q.Fact("exit status", exit.ExitStatus)
	q.Fact("/tasks/oom: the container that it names", named)
	// On v2 the shim reads the counter once more before it publishes the exit. On v1 the kernel's notification and the
	// child's death reach the shim in two ways, and both the shim and the daemon listen for the notification.
	first := "/tasks/oom"
	if oom > slices.IndexFunc(events, func(e ctrd.Event) bool { return e.Topic == "/tasks/exit" }) {
		first = "/tasks/exit"
	}
	if g.V2 && ctrd.Knows(q, "containerd-shim-runc-v2", "failed to stop oom event watcher") { // since containerd 2.3.0
		topics := ctrd.TaskTopics(ctrd.Topics(events))
		assert.Check(q, cmp.DeepEqual(topics, []string{"/tasks/create", "/tasks/start", "/tasks/oom", "/tasks/exit"}))
	}
	q.Fact("received first", lab.Chance(first))
	q.Fact("/tasks/oom: number received", lab.Chance(fmt.Sprint(len(ctrd.FilterTopics(events, "/tasks/oom")))))

	q.Control("kill the same program with SIGKILL: it gives 137 as well, but no OOM is published or counted")
	killed := q.ID(ctrd.ContainerID + "-2")
	p, g = startLimited(killed)
	d.Ctr("tasks", "kill", "-s", "SIGKILL", killed)
	proc.WaitFor(q, proc.Dead(p.Identity))
	proc.WaitFor(q, stream.Received("/tasks/exit", 2))
	exit = exits()[1].Body.(*eventsapi.TaskExit)
	assert.Check(q, cmp.DeepEqual([]string{exit.ContainerID, exit.ID}, []string{killed, killed}))
	assert.Check(q, cmp.Equal(exit.ExitStatus, uint32(128+9)))
	assert.Check(q, cmp.Equal(oomKills(g), uint64(0)))
	events = slices.DeleteFunc(stream.TakeEvents(), func(e ctrd.Event) bool {
		oom, ok := e.Body.(*eventsapi.TaskOOM)
		return ok && oom.ContainerID != killed // on v1 the second notification of the first OOM may come late
	})
	topics := ctrd.TaskTopics(ctrd.Topics(events))
	assert.Check(q, cmp.DeepEqual(topics, []string{"/tasks/create", "/tasks/start", "/tasks/exit"}))
	q.Fact("after SIGKILL: exit status", exit.ExitStatus)
	q.Fact("after SIGKILL: oom_kill", oomKills(g))
	q.Fact("after SIGKILL: events", topics)

	q.Answer("The oom event tells that memory was the reason, and in which container. The exit status 137 does not show that: " +
		"any SIGKILL gives it, whatever sends it.")
}
