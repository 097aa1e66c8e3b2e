//go:build linux && vmlab

package cdblab

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	stats1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	stats2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	eventsapi "github.com/containerd/containerd/api/events"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/poll"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// When the OOM killer ends a task's own process, containerd publishes /tasks/oom with the container's id, beside the exit with status 137.
//
// 137 is 128 and 9, SIGKILL, whatever sent it. The exit alone does not distinguish the kernel's OOM killer from a
// `kill -9`; the oom event does, and so does the cgroup's counter, as long as the cgroup exists. On v2 the shim watches that
// counter. On v1 the kernel notifies both the shim and the daemon by an eventfd, so the event may come twice. It names the container, but
// not the process that was killed, or its memory.
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
	// Each container has the same program and the same limit. SIGUSR1 makes the program take twice as much as the limit:
	// dd fills its buffer before it writes.
	startLimited := func(id string) (proc.Process, cgroup.Group) {
		d.CreateContainerWith([]string{"--memory-limit", fmt.Sprint(32 * (1 << 20))}, ref, id, "sh", "-c",
			`trap "exec dd if=/dev/zero of=/dev/null bs=64M count=1" USR1; sleep 3600 & while :; do wait; done`)
		d.StartTask(id)
		proc.WaitFor(q, receivedStart(stream, id)) // the shim publishes an OOM kill beside its other events, and sooner if they wait
		pid := d.TaskPID(id)
		proc.WaitFor(q, proc.Catches(pid, "sh", unix.SIGUSR1))
		g := cgroup.Of(q, "/"+d.Namespace+"/"+id)
		assert.Check(q, cmp.Equal(oomKillsIn(g), uint64(0)))
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
	assert.Assert(q, cmp.Equal(oomKillsIn(g), uint64(1)), "processes that the OOM killer has ended in this cgroup")
	proc.WaitFor(q, stream.Received("/tasks/oom", 1))
	events := stream.TakeEvents()
	oom := slices.IndexFunc(events, func(e ctrd.Event) bool { return e.Topic == "/tasks/oom" })
	named := events[oom].Body.(*eventsapi.TaskOOM).ContainerID
	assert.Check(q, cmp.Equal(named, over), "the container that the oom event names")
	exit := exits()[0].Body.(*eventsapi.TaskExit)
	assert.Check(q, cmp.DeepEqual([]uint32{exit.Pid, exit.ExitStatus}, []uint32{uint32(p.PID), 128 + 9}))
	q.Fact("oom_kill", oomKillsIn(g))
	q.Fact("exit status", exit.ExitStatus)
	q.Fact("/tasks/oom: the container that it names", named)
	// On v2 the shim reads the counter once more before it publishes the exit. On v1 the kernel's notification and the
	// child's death reach the shim in two ways, and both the shim and the daemon listen for the notification.
	first := "/tasks/oom"
	if oom > slices.IndexFunc(events, func(e ctrd.Event) bool { return e.Topic == "/tasks/exit" }) {
		first = "/tasks/exit"
	}
	if g.V2 && ctrd.Knows(q, "containerd-shim-runc-v2", "failed to stop oom event watcher") { // since containerd 2.3.0
		topics := taskTopicsOf(stream, over)
		assert.Check(q, cmp.DeepEqual(topics, []string{"/tasks/create", "/tasks/start", "/tasks/oom", "/tasks/exit"}),
			"events of %s, as published", over)
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
	assert.Check(q, cmp.Equal(oomKillsIn(g), uint64(0)))
	events = slices.DeleteFunc(stream.TakeEvents(), func(e ctrd.Event) bool {
		oom, ok := e.Body.(*eventsapi.TaskOOM)
		return ok && oom.ContainerID != killed // on v1 the second notification of the first OOM may come late
	})
	topics := ctrd.TaskTopics(ctrd.Topics(ctrd.InOrder(events)))
	assert.Check(q, cmp.DeepEqual(topics, []string{"/tasks/create", "/tasks/start", "/tasks/exit"}))
	q.Fact("after SIGKILL: exit status", exit.ExitStatus)
	q.Fact("after SIGKILL: oom_kill", oomKillsIn(g))
	q.Fact("after SIGKILL: events", topics)

	q.Answer("The oom event shows that the OOM killer has killed a process in this container. An exit status 137 alone does not show that: " +
		"any SIGKILL gives it, whatever sends it.")
}

// The kernel kills only the child, and the task runs on. containerd publishes the same oom event as for the task's own process, but
// no exit event.
//
// The OOM killer chooses the process of the cgroup that uses most memory. Only the parent of this process receives its exit status. The
// shim learns only that the OOM killer has killed in this cgroup. So the oom event does not show which process died, nor whether the task
// has ended. The kernel's log names the process. A client that missed the event can read the counter in the task's metrics, as long as
// the task exists.
//
// With memory.oom.group=1, on v2, the kernel kills all processes of the cgroup, so the task ends as well. Neither ctr nor runc sets it. The
// kubelet does, since Kubernetes 1.28. Since 1.32 its option singleProcessOOMKill undoes that. On v1 there is no such file.
//
// Hint: memory.events on v2, memory.oom_control on v1; `ctr tasks ls` after the oom event; memory.oom.group.
// Spec: https://github.com/containerd/containerd/blob/main/api/events/task.proto
// Kernel: https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files, memory.oom.group
func TestEvents_WhatIfOnlyAChildRunsOutOfMemory(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What if only a child runs out of memory?")
	defer q.Recover()
	if !cgroup.Of(q, q.Cgroup).Has("memory") {
		q.Skip("this kernel has no memory controller in a hierarchy of this mode: run the question with CGROUP=v2")
	}
	if swaps := strings.Count(file.Read(q, "/proc/swaps"), "\n"); swaps > 0 {
		q.Skip("this machine swaps, and the limit does not limit swap: a process over the limit is swapped out, not killed. " +
			"Run the question after swapoff -a")
	}
	d := ctrd.Shared(q)
	ref := d.PullImage()
	stream := d.Listen()
	const MiB = 1 << 20
	// SIGUSR1 makes the program start a child that takes 64 MiB, and then write down the child's exit status.
	start := func(id string, limit uint64, more ...oci.SpecOpts) (proc.Process, cgroup.Group) {
		d.CreateContainerByClient(ctrd.ClientOptions{Spec: append(more, oci.WithMemoryLimit(limit))}, ref, id, "sh", "-c",
			`trap "dd if=/dev/zero of=/dev/null bs=64M count=1; echo child: \$? > /status" USR1; sleep 3600 & while :; do wait; done`)
		d.StartTask(id)
		proc.WaitFor(q, receivedStart(stream, id))
		pid := d.TaskPID(id)
		proc.WaitFor(q, proc.Catches(pid, "sh", unix.SIGUSR1))
		g := cgroup.Of(q, "/"+d.Namespace+"/"+id)
		assert.Check(q, cmp.Equal(oomKillsIn(g), uint64(0)), "OOM kills of %s at its start", id)
		return proc.Snapshot(q, pid), g
	}

	q.Step("let a child take 64 MiB under a limit of 32: the kernel kills it, and its parent, the task's process, runs on")
	id := q.ID(ctrd.ContainerID)
	p, g := start(id, 32*MiB)
	status := fmt.Sprintf("/proc/%d/root/status", p.PID)
	d.Ctr("tasks", "kill", "-s", "SIGUSR1", id)
	proc.WaitFor(q, file.HasContent(status, fmt.Sprint("child: ", 128+9)))
	assert.Check(q, cmp.Equal(oomKillsIn(g), uint64(1)), "processes that the OOM killer has ended in the cgroup of %s", id)
	proc.WaitFor(q, stream.Received("/tasks/oom", 1))
	q.Fact("OOM of a child: exit status that the parent received", file.Read(q, status))
	q.Fact("OOM of a child: oom_kill of the cgroup", oomKillsIn(g))

	q.Step("look at the task: it is running, in the same process, although containerd has published an oom event of it")
	stream.TakeEvents()
	published := taskTopicsOf(stream, id)
	toOOM := []string{"/tasks/create", "/tasks/start", "/tasks/oom"}
	assert.Check(q, cmp.DeepEqual(published, toOOM), "events of %s", id)
	assert.Check(q, proc.Snapshot(q, p.PID).Same(p.Identity), "the task's process is another one")
	assert.Check(q, cmp.Equal(d.TaskStatus(id).Status, containerd.Running))
	recordExecAfterOOM(q, d, stream, id, toOOM)
	q.Fact("OOM of a child: status of the task", d.TaskStatus(id).Status)
	q.Fact("task after the OOM of a child: events", published)

	q.Step("ask containerd for the metrics of the task: they have the cgroup's counter")
	reported := oomKillsInMetrics(q, d, id)
	assert.Check(q, cmp.Equal(reported, oomKillsIn(g)), "oom_kill in the metrics, and in the cgroup")
	q.Fact("OOM of a child: oom_kill in the metrics", reported)

	q.Control("the same child with a limit of 128 MiB: it ends by itself, and no OOM is published or counted")
	enough := q.ID(ctrd.ContainerID + "-2")
	p, g = start(enough, 128*MiB)
	d.Ctr("tasks", "kill", "-s", "SIGUSR1", enough)
	proc.WaitFor(q, file.HasContent(fmt.Sprintf("/proc/%d/root/status", p.PID), "child: 0"))
	assert.Check(q, cmp.Equal(oomKillsIn(g), uint64(0)))
	d.Ctr("tasks", "kill", "-s", "SIGKILL", enough)
	proc.WaitFor(q, stream.ReceivedExit(enough)) // an event of the shim before it would have been received by then
	published = taskTopicsOf(stream, enough)
	assert.Check(q, cmp.DeepEqual(published, []string{"/tasks/create", "/tasks/start", "/tasks/exit"}), "events of %s", enough)
	q.Fact("enough memory: oom_kill", oomKillsIn(g))
	q.Fact("enough memory, killed at the end: events", published)

	if !g.V2 {
		_, err := g.Try("memory", "memory.oom.group")
		assert.Check(q, os.IsNotExist(err), "memory.oom.group on v1: %v", err)
		q.Fact("memory.oom.group on v1: exists", err == nil)
	} else {
		q.Step("set memory.oom.group, and let a child take too much: all processes are killed, and the task ends")
		assert.Check(q, cmp.Equal(g.Read("memory", "memory.oom.group"), "0"), "memory.oom.group by default")
		group := q.ID(ctrd.ContainerID + "-3")
		p, g = start(group, 32*MiB, withOOMGroup)
		assert.Check(q, cmp.Equal(g.Read("memory", "memory.oom.group"), "1"))
		proc.WaitFor(q, g.HasProcesses(2))
		sleeper := proc.Snapshot(q, proc.FirstExcept(p.PID, g.Procs()))
		d.Ctr("tasks", "kill", "-s", "SIGUSR1", group)
		proc.WaitFor(q, stream.ReceivedExit(group))
		proc.WaitFor(q, proc.Dead(sleeper.Identity))
		assert.Check(q, oomKillsIn(g) > 1, "processes that the OOM killer has ended: %d, want more than the child", oomKillsIn(g))
		assert.Check(q, cmp.Equal(d.TaskStatus(group).ExitStatus, uint32(128+9)))
		proc.WaitFor(q, func(poll.LogT) poll.Result {
			if topics := taskTopicsOf(stream, group); !slices.Contains(topics, "/tasks/oom") {
				return poll.Continue("received no oom event of %s, but %v", group, topics)
			}
			return poll.Success()
		})
		proc.WaitFor(q, g.HasProcesses(0))
		q.Fact("memory.oom.group: exit status of the task", d.TaskStatus(group).ExitStatus)
		q.Fact("memory.oom.group: processes left", len(g.Procs()))
	}

	q.Answer("If only a child runs out of memory, the kernel kills only the child, and the task runs on. containerd publishes an oom event, " +
		"as for the task's own process, but no exit event. With memory.oom.group, on v2, all processes are killed, and the task ends.")
}

// withOOMGroup sets memory.oom.group in the configuration of a container.
func withOOMGroup(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
	if s.Linux.Resources == nil {
		s.Linux.Resources = &specs.LinuxResources{}
	}
	s.Linux.Resources.Unified = map[string]string{"memory.oom.group": "1"}
	return nil
}

// recordExecAfterOOM asserts that a task can execute a program, and that its events are then those before and those of the exec. An oom
// event may overtake what is in the shim's queue. An exit of the task would be in the queue before that of the exec.
func recordExecAfterOOM(q *lab.Q, d *ctrd.Daemon, stream *ctrd.Stream, id string, before []string) {
	q.Helper()
	still := d.Ctr("tasks", "exec", "--fifo-dir", d.FifoDir, "--exec-id", "still", id, "echo", "still here")
	assert.Check(q, cmp.Equal(strings.TrimSpace(still.Stdout), "still here"))
	proc.WaitFor(q, stream.Received("/tasks/exit", 1))
	stream.TakeEvents()
	published := taskTopicsOf(stream, id)
	ofExec := []string{"/tasks/exec-added", "/tasks/exec-started", "/tasks/exit of still"}
	assert.Check(q, cmp.DeepEqual(published, slices.Concat(before, ofExec)), "events of %s, after an exec", id)
	q.Fact("task after the OOM of a child, and an exec: events", published)
}

// receivedStart returns a check that succeeds when a stream has the start of a task.
func receivedStart(stream *ctrd.Stream, id string) poll.Check {
	return func(poll.LogT) poll.Result {
		if topics := taskTopicsOf(stream, id); !slices.Contains(topics, "/tasks/start") {
			return poll.Continue("received no start of %s, but %v", id, topics)
		}
		return poll.Success()
	}
}

// taskTopicsOf returns the topics of a task's events in the order in which they were published. To the topic of an exec's exit it adds the
// exec's id. Of several oom events it returns the first, because on v1 one may come twice.
func taskTopicsOf(stream *ctrd.Stream, id string) []string {
	topics := []string{}
	for _, e := range ctrd.InOrder(stream.Events()) {
		of, _ := e.Field([]string{"event", "container_id"})
		if of != id || !ctrd.IsTaskTopic(e.Topic) || e.Topic == "/tasks/oom" && slices.Contains(topics, e.Topic) {
			continue
		}
		topic := e.Topic
		if exit, ok := e.Body.(*eventsapi.TaskExit); ok && exit.ID != id {
			topic += " of " + exit.ID
		}
		topics = append(topics, topic)
	}
	return topics
}

// oomKillsIn returns how many processes of a cgroup the OOM killer has ended.
func oomKillsIn(g cgroup.Group) uint64 {
	if g.V2 {
		return g.Stat("memory", "memory.events", "oom_kill")
	}
	return g.Stat("memory", "memory.oom_control", "oom_kill")
}

// oomKillsInMetrics returns the same number as containerd reports it in the metrics of a task.
func oomKillsInMetrics(q *lab.Q, d *ctrd.Daemon, id string) uint64 {
	q.Helper()
	body := metrics(q, d, id)
	switch m := body.(type) {
	case *stats1.Metrics:
		return m.GetMemoryOomControl().GetOomKill()
	case *stats2.Metrics:
		return m.GetMemoryEvents().GetOomKill()
	}
	q.Fatalf("the metrics of %s are of type %T, want those of cgroup v1 or v2", id, body)
	return 0
}
