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

// That there was one, and of which container: /tasks/oom, beside an exit with status 137.
//
// 137 is 128 and 9, SIGKILL, whoever sent it. The exit alone does not tell the kernel's OOM killer from a `kill -9`; the
// oom event does, and so does the cgroup's counter, as long as there is the cgroup. The shim watches that counter, and
// tells: of the container, but not of which process was killed, or how much memory it had.
//
// Hint: memory.events on v2, memory.oom_control on v1; what does `ctr events` show before the exit?
// Spec: https://github.com/containerd/containerd/blob/main/api/events/task.proto
// Kernel: https://docs.kernel.org/admin-guide/cgroup-v2.html#memory, memory.events; https://docs.kernel.org/admin-guide/cgroup-v1/memory.html#oom-control
func TestEvents_WhatDoesAnOOMTell(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does an OOM tell?")
	if !cgroup.Of(q, q.Cgroup).Has("memory") {
		q.Skip("this kernel has no memory controller in a hierarchy of this mode: look with CGROUP=v2")
	}
	if swaps := strings.Count(file.Read(q, "/proc/swaps"), "\n"); swaps > 0 {
		q.Skip("this machine swaps, and ctr cannot limit swap: who goes over the limit is swapped out, not killed. Look after swapoff -a")
	}
	d := ctrd.Shared(q)
	ref := d.PullImage()
	stream := d.Listen()
	kills := func(g cgroup.Group) uint64 {
		if g.V2 {
			return g.Stat("memory", "memory.events", "oom_kill")
		}
		return g.Stat("memory", "memory.oom_control", "oom_kill")
	}
	// The same program in the same limit, and SIGUSR1 makes it take twice as much: dd fills its buffer before it writes it.
	limited := func(id string) (proc.Process, cgroup.Group) {
		d.CreateContainerWith([]string{"--memory-limit", fmt.Sprint(32 * (1 << 20))}, ref, id, "sh", "-c",
			`trap "exec dd if=/dev/zero of=/dev/null bs=64M count=1" USR1; sleep 300 & while :; do wait; done`)

		d.StartTask(id)
		pid := d.TaskPID(id)
		proc.WaitFor(q, proc.Runs(pid, "sh"))
		proc.WaitFor(q, proc.Catches(pid, unix.SIGUSR1))
		g := cgroup.Of(q, "/"+d.Namespace+"/"+id)
		assert.Check(q, cmp.Equal(kills(g), uint64(0)))
		return proc.Snapshot(q, pid), g
	}
	exits := func() []ctrd.Event {
		return slices.DeleteFunc(stream.Events(), func(e ctrd.Event) bool { return e.Topic != "/tasks/exit" })
	}

	q.Step("32 MiB, and a program that takes 64: the kernel counts, containerd tells")
	over := q.ID(ctrd.ContainerID)
	p, g := limited(over)
	d.Ctr("tasks", "kill", "-s", "SIGUSR1", over)
	proc.WaitFor(q, proc.Dead(p.Identity))
	proc.WaitFor(q, stream.Received("/tasks/exit", 1))
	assert.Assert(q, cmp.Equal(kills(g), uint64(1)), "processes that the OOM killer has ended in this cgroup")
	proc.WaitFor(q, stream.Received("/tasks/oom", 1))
	events := stream.TakeEvents()
	oom := slices.IndexFunc(events, func(e ctrd.Event) bool { return e.Topic == "/tasks/oom" })
	assert.Check(q, cmp.Equal(events[oom].Body.(*eventsapi.TaskOOM).ContainerID, over))
	exit := exits()[0].Body.(*eventsapi.TaskExit)
	assert.Check(q, cmp.DeepEqual([]uint32{exit.Pid, exit.ExitStatus}, []uint32{uint32(p.PID), 128 + 9}))
	q.Fact("oom_kill", kills(g))
	q.Fact("exit status", exit.ExitStatus)
	q.Fact("/tasks/oom", "told")
	// On v2 the shim asks the counter once more before it tells the exit. On v1 the kernel's notice and the child's death
	// reach it by two ways, and both shim and daemon listen.
	first := "/tasks/oom"
	if oom > slices.IndexFunc(events, func(e ctrd.Event) bool { return e.Topic == "/tasks/exit" }) {
		first = "/tasks/exit"
	}
	if g.V2 && q.Pinned() {
		assert.Check(q, cmp.DeepEqual(ctrd.TaskTopics(ctrd.Topics(events)), []string{"/tasks/create", "/tasks/start", "/tasks/oom", "/tasks/exit"}))
	}
	q.Fact("told first", lab.Chance(first))
	q.Fact("told so many times", lab.Chance(fmt.Sprint(len(ctrd.FilterTopics(events, "/tasks/oom")))))

	q.Control("SIGKILL gives 137 as well, and there is no oom, told or counted")
	killed := q.ID(ctrd.ContainerID + "-2")
	p, g = limited(killed)
	d.Ctr("tasks", "kill", "-s", "SIGKILL", killed)
	proc.WaitFor(q, proc.Dead(p.Identity))
	proc.WaitFor(q, stream.Received("/tasks/exit", 2))
	exit = exits()[1].Body.(*eventsapi.TaskExit)
	assert.Check(q, cmp.DeepEqual([]string{exit.ContainerID, exit.ID}, []string{killed, killed}))
	assert.Check(q, cmp.Equal(exit.ExitStatus, uint32(128+9)))
	assert.Check(q, cmp.Equal(kills(g), uint64(0)))
	events = slices.DeleteFunc(stream.TakeEvents(), func(e ctrd.Event) bool {
		oom, ok := e.Body.(*eventsapi.TaskOOM)
		return ok && oom.ContainerID != killed // v1's second notice of the first one may come late
	})
	told := ctrd.TaskTopics(ctrd.Topics(events))
	assert.Check(q, cmp.DeepEqual(told, []string{"/tasks/create", "/tasks/start", "/tasks/exit"}))
	q.Fact("after SIGKILL: exit status", exit.ExitStatus)
	q.Fact("after SIGKILL: oom_kill", kills(g))
	q.Fact("after SIGKILL: events", told)

	q.Answer("That memory was the reason, which the exit's 137 does not: SIGKILL gives the same, whoever sends it.")
}
