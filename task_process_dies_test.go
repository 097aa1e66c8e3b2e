//go:build linux && vmlab

package cdblab

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"
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

// When the process of a task dies, its parent, the shim, takes the exit status and keeps it. The task is then stopped, and everything
// except its processes stays until a client deletes the task. When an exec dies, the task runs on.
//
// The task's own process is pid 1 of its pid namespace. When it dies, the kernel kills all others there with it. Shim, bundle, mount and
// cgroup stay, and so does the exit status, for any client that asks, however late. The kernel reports an exit status or a signal to
// the parent. For a signal, the shim makes the status 128 plus the signal's number. A client that waits, or listens to events, receives
// it at once.
//
// Hint: kill -KILL the pid that `ctr tasks ls` shows, and ask `ctr tasks ls` again.
// Spec: https://github.com/containerd/containerd/blob/main/api/services/tasks/v1/tasks.proto
// Kernel: https://man7.org/linux/man-pages/man7/pid_namespaces.7.html, "The namespace init process"
func TestTask_WhatHappensWhenItsProcessDies(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What happens to the task when its process dies?")
	defer q.Recover()
	d := ctrd.Shared(q)
	ref := d.PullImage()
	stream := d.Listen()

	q.Step("start four tasks, each with an exec: two of them have a handler for TERM, which ends them with 7")
	signals := []unix.Signal{unix.SIGKILL, unix.SIGTERM}
	var ofInit, ofExec []*failure.Victim
	for _, signal := range signals {
		death := failure.Death{Killed: failure.Init, Signal: signal, When: failure.Running}
		ofInit = append(ofInit, failure.NewVictim(q, d, ref, stream, death))
	}
	for _, signal := range signals {
		death := failure.Death{Killed: failure.Exec, Signal: signal, When: failure.Running}
		ofExec = append(ofExec, failure.NewVictim(q, d, ref, stream, death, "sleep", "3000"))
	}
	victims := slices.Concat(ofInit, ofExec)
	proc.WaitFor(q, stream.Received("/tasks/exec-started", len(victims))) // a shim publishes them after it has answered
	stream.TakeEvents()
	ofInit[0].RecordParents("before")

	q.Control("send TERM to a pid 1 that has no handler for it: the kernel drops it, and no event is published")
	withoutHandler := ofExec[0]
	pid1 := withoutHandler.Init.PID
	assert.Check(q, !proc.Bits(q, pid1, "SigCgt").Signal(unix.SIGTERM), "sleep has a handler for TERM")
	q.LogCommand("kill -TERM %d   # the program of %s", pid1, withoutHandler.ID)
	assert.NilError(q, proc.Signal(withoutHandler.Init.Identity, unix.SIGTERM))
	assert.Check(q, !proc.Bits(q, pid1, "ShdPnd").Signal(unix.SIGTERM), "TERM is pending: it was not dropped")
	assert.Check(q, withoutHandler.Init.Alive(), "process %d is dead after a TERM for which it has no handler", pid1)
	task, _ := withoutHandler.Statuses()
	assert.Check(q, cmp.Equal(task, "RUNNING"))
	assert.Check(q, cmp.Len(stream.TakeEvents(), 0), "events")
	q.Fact("task after TERM to a pid 1 without a handler: status", task)

	q.Step("kill each victim by its pid: the client's Wait returns, and an event is published")
	for _, victim := range victims {
		victim.Kill()
	}
	for _, victim := range victims {
		victim.WaitUntilReported()
		proc.WaitFor(q, victim.ExecWait.Returned())
		victim.WaitForEvent("exit exec " + victim.ExecWait.Result())
		if victim.Killed == failure.Init {
			proc.WaitFor(q, victim.TaskWait.Returned())
			victim.WaitForEvent("exit init " + victim.TaskWait.Result())
		}
	}
	stream.TakeEvents()

	q.Step("look for the exit status: the shim has taken it from the kernel, and saved it in the bundle if it saves any")
	for _, victim := range ofInit {
		shim := proc.Snapshot(q, victim.Shim.PID)
		assert.Check(q, shim.Same(victim.Shim.Identity), "%s: another process has the pid of the shim", victim)
		assert.Check(q, !file.Exists(fmt.Sprintf("/proc/%d", victim.Init.PID)),
			"the shim has not collected the exit status of its child %d, a zombie", victim.Init.PID)
		victim.AssertSavedExit(victim.TaskWait.Result())
	}

	q.Step("list what remains: everything except the processes")
	observed := failure.Tabulate(q, d, "death-of-the-process.golden", victims)
	status := map[string]string{"init KILL": "137", "init TERM": "7", "exec KILL": "137", "exec TERM": "143"}
	for _, victim := range victims {
		seen := observed[victim]
		want := status[victim.Killed+" "+victim.SignalName()]
		assert.Check(q, cmp.Equal(seen["shim"], "alive"), victim)
		for _, thing := range []string{"bundle", "rootfs mount", "shim's socket", "cgroup", "runtime's state", "container"} {
			assert.Check(q, cmp.Equal(seen[thing], "there"), "%s: the %s", victim, thing)
		}
		assert.Check(q, cmp.Equal(seen["exec"], "dead"), "%s: the exec", victim)
		if victim.Killed == failure.Init {
			assert.Check(q, cmp.Equal(seen["init"], "dead"), victim)
			assert.Check(q, cmp.Equal(seen["new client: task"], "STOPPED "+want), victim)
			assert.Check(q, cmp.Equal(seen["new client: exec"], "STOPPED 137"), "%s: killed with its pid 1", victim)
			assert.Check(q, cmp.Equal(seen["old Wait: task"], want), victim)
			assert.Check(q, cmp.Equal(seen["event 1"], "exit exec 137"), "%s: pid 1 is the last of its namespace", victim)
			assert.Check(q, cmp.Equal(seen["event 2"], "exit init "+want), victim)
			assert.Check(q, cmp.Equal(seen["another exec"], "refused"), victim)
			continue
		}
		assert.Check(q, cmp.Equal(seen["init"], "alive"), victim)
		assert.Check(q, cmp.Equal(seen["new client: task"], "RUNNING"), victim)
		assert.Check(q, cmp.Equal(seen["new client: exec"], "STOPPED "+want), victim)
		assert.Check(q, cmp.Equal(seen["old Wait: exec"], want), victim)
		assert.Check(q, cmp.Equal(seen["old Wait: task"], "waiting"), victim)
		assert.Check(q, cmp.Equal(seen["event 1"], "exit exec "+want), victim)
		assert.Check(q, cmp.Equal(seen["event 2"], "-"), victim)
		assert.Check(q, cmp.Equal(seen["another exec"], "works"), victim)
		// The task has been ended meanwhile, for a new one: only now does the old client's Wait return.
		proc.WaitFor(q, victim.TaskWait.Returned())
		assert.Check(q, cmp.Equal(victim.TaskWait.Result(), "137"), victim)
	}
	q.Answer("When a task's process dies, which is pid 1 of a pid namespace, the kernel kills all others with it. The task is " +
		"stopped then, and the shim keeps the exit status until it is deleted. When an exec dies, the task runs on.")
}

// containerd's restart monitor restarts a task if the record of its container has the label containerd.io/restart.status=running. The label
// containerd.io/restart.policy decides after which exit statuses the monitor restarts the task.
//
// The monitor is a plugin of the daemon; the kubelet does not use it. Every 10 s by default, it looks at all containers that have the first
// label. If a container has no running task (since 2.0: neither a running nor a paused one), the monitor deletes the ended task,
// increases the label restart.count, and starts a new task of the same container. The task has a new shim and a new process, but the same
// snapshot. A container without a task counts as one whose task has ended with 0: `always` and `unless-stopped` start a task, also after
// a reboot, and `on-failure` does not.
//
// A kill counts as an end, so `ctr tasks kill` stops such a container only until the monitor looks. The label
// restart.explicitly-stopped=true keeps it stopped. When the daemon starts, it sets this label to false if the policy is `always`, but
// not if it is `unless-stopped`. Before containerd 2.4, only the policy `unless-stopped` obeys this label. While containerd is down, no
// task is restarted.
//
// Hint: `ctr containers label`, then kill the task, and look at its pid in `ctr tasks ls`.
// Spec: https://pkg.go.dev/github.com/containerd/containerd/v2/core/runtime/restart
func TestTask_WhoRestartsATaskThatEnded(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Who restarts a task that ended?")
	defer q.Recover()
	monitor := "io.containerd.monitor.container.v1.restart"
	if !ctrd.Knows(q, "containerd", "io.containerd.monitor.container.v1") { // containerd 1.7
		monitor = "io.containerd.internal.v1.restart"
	}
	ctx := context.Background()
	d := ctrd.Start(q, ctrd.WithConfig(fmt.Sprintf("[plugins.%q]\n  interval = \"100ms\"", monitor)))
	m := &monitoredTasks{q: q, d: d, ref: d.PullImage()}
	rows := restartRows(q)
	q.Cleanup(m.disableRestarts) // before the daemon's cleanup deletes the tasks

	q.Step("start a task for each policy, and then label its container")
	for i, r := range rows {
		r.id = q.ID(fmt.Sprintf("%s-%d", ctrd.ContainerID, i+1))
		m.start(r)
	}
	sentinel := &restartRow{id: q.ID("cdb-sentinel"), labels: "status=running policy=always"}
	m.start(sentinel)
	m.sentinel, m.sentinelNow = sentinel.id, sentinel.first

	q.Step("end all tasks: the policy decides which containers have a new task, with another process and shim and the same snapshot")
	for _, r := range rows {
		m.signal(r.id, unix.SIGUSR1)
		proc.WaitFor(q, proc.Dead(r.first.Identity))
		if !r.restarted {
			proc.WaitFor(q, d.TaskStopped(r.id))
		}
	}
	m.waitForMonitor()
	onFailure := rows[6]
	m.repeatLostRestart(onFailure)
	unlabelled, always := rows[0], rows[2]
	for _, r := range rows[1:] {
		if r.restarted {
			m.assertRestarted(r)
		}
		q.Fact("policy "+r.name+": task", m.statusAfterEnd(r))
	}

	q.Control("a container without labels: its task has ended at the same time, and the monitor starts no other one")
	q.Fact("container without labels: task", m.statusAfterEnd(unlabelled))

	q.Step("remove the label from the container of the policy always, whose task runs")
	labelled := m.waitForTask(always.id, always.first)
	d.Ctr("containers", "label", always.id, restartLabels+"status=")

	q.Step("create labelled containers, and start no task: the policies always and unless-stopped start one, and on-failure does not")
	policies := []string{"always", "unless-stopped", "on-failure"}
	for _, policy := range policies {
		labels := map[string]string{restartLabels + "status": "running", restartLabels + "policy": policy}
		d.CreateContainerByClient(ctrd.ClientOptions{Labels: labels}, m.ref, q.ID("cdb-new-"+policy), countsRunsAndExits(0)...)
	}
	m.waitForMonitor()
	for _, policy := range policies {
		id, want := q.ID("cdb-new-"+policy), policy != "on-failure"
		if want {
			m.waitForTask(id, proc.Process{})
		}
		container, err := d.Client().LoadContainer(ctx, id)
		assert.NilError(q, err)
		_, err = container.Task(ctx, nil)
		assert.Check(q, err == nil || errdefs.IsNotFound(err), "find the task of policy %s: %v", policy, err)
		assert.Check(q, cmp.Equal(err == nil, want), "a container that had no task has one, policy %s", policy)
		q.Fact("container that had no task, policy "+policy+": the monitor starts one", err == nil)
	}

	q.Step("end the task whose container has lost its label, kill containerd and a task, and start containerd: the monitor restarts the task")
	m.signal(always.id, unix.SIGKILL)
	proc.WaitFor(q, proc.Dead(labelled.Identity))
	d.Kill()
	q.KillProcess(m.sentinelNow)
	proc.WaitFor(q, proc.Dead(m.sentinelNow.Identity))
	d.Start()
	m.sentinelNow = m.waitForTask(sentinel.id, m.sentinelNow)
	m.waitForMonitor()
	q.Fact("task that was killed while containerd was down: restarted", m.sentinelNow.Alive())

	q.Step("look at the tasks that were explicitly stopped: that of the policy always runs, and that of unless-stopped does not")
	alwaysStopped, unlessStopped := rows[3], rows[4]
	m.waitForTask(alwaysStopped.id, alwaysStopped.first)
	listed := d.Ctr("tasks", "ls").Stdout
	isRunning := func(r *restartRow) bool { return listsAsRunning(listed, r.id) }
	assert.Check(q, isRunning(alwaysStopped), "the task of the policy %s is not running after a restart of containerd", alwaysStopped.name)
	assert.Check(q, !isRunning(unlessStopped), "the task of the policy %s is running after a restart of containerd", unlessStopped.name)
	q.Fact("policy always, explicitly stopped: running after a restart of containerd", isRunning(alwaysStopped))
	q.Fact("policy unless-stopped, explicitly stopped: running after a restart of containerd", isRunning(unlessStopped))

	q.Control("the container that has lost its label, with the policy always: no new task runs")
	assert.Check(q, !isRunning(always), "the task of the policy always is running, and its container has no label status")
	q.Fact("policy always, without the label status: running after its end", isRunning(always))

	q.Answer("containerd's restart monitor restarts a task, if its container has the label containerd.io/restart.status=running and its " +
		"policy agrees. The container and its snapshot stay the same, and get a new task. While containerd is down, no task is restarted.")
}

// listsAsRunning reports whether the output of `ctr tasks ls` has a task that runs, with this id.
func listsAsRunning(listed, id string) bool {
	return slices.ContainsFunc(strings.Split(listed, "\n"), func(line string) bool {
		f := strings.Fields(line)
		return len(f) == 3 && f[0] == id && f[2] == "RUNNING"
	})
}

// restartLabels is the prefix of the labels that the restart monitor reads.
const restartLabels = "containerd.io/restart."

// restartRow is a container with the labels of a policy. Its task ends, and the monitor restarts it or does not.
type restartRow struct {
	name, labels string // the labels without the prefix
	exit         int    // status with which the program ends
	restarted    bool   // whether the monitor has to start a new task after that
	id           string
	first        proc.Process // of the task that the question has started
	started      int          // how often the question has started a task of it
}

// restartRows returns the rows in the order in which their tasks are started. The question looks at some of them by their index.
func restartRows(q *lab.Q) []*restartRow {
	return []*restartRow{
		{name: "no label", exit: 7},
		{name: "no", labels: "status=running policy=no", exit: 7},
		{name: "always", labels: "status=running policy=always", restarted: true},
		{
			name: "always, explicitly stopped", labels: "status=running policy=always explicitly-stopped=true", exit: 7,
			restarted: !ctrd.Knows(q, "containerd", "failed to reset explicitly-stopped label"), // since containerd 2.4
		},
		{name: "unless-stopped, explicitly stopped", labels: "status=running policy=unless-stopped explicitly-stopped=true", exit: 7},
		{name: "on-failure, after 0", labels: "status=running policy=on-failure"},
		{name: "on-failure, after 7", labels: "status=running policy=on-failure", exit: 7, restarted: true},
		{name: "on-failure:1, after its one restart", labels: "status=running policy=on-failure:1 count=1", exit: 7},
	}
}

// countsRunsAndExits returns a program that counts its runs in the file /runs, and ends with a status at SIGUSR1.
func countsRunsAndExits(status int) []string {
	return []string{"sh", "-c", fmt.Sprintf(`echo run >> /runs; trap "exit %d" USR1; sleep 3600 & while :; do wait; done`, status)}
}

// monitoredTasks starts and ends tasks of a daemon that has a restart monitor.
type monitoredTasks struct {
	q           *lab.Q
	d           *ctrd.Daemon
	ref         string
	sentinel    string       // container of the policy always, by which waitForMonitor sees that the monitor is at work
	sentinelNow proc.Process // the process of its task
}

// disableRestarts removes the label of all containers. The new daemon, which finds no label, restarts no task.
func (m *monitoredTasks) disableRestarts() {
	q, d, ctx := m.q, m.d, context.Background()
	if d.PID() != 0 {
		assert.Check(q, d.Stop())
	}
	d.Start() // which connects: the question's client is closed by now
	containers, err := d.Client().Containers(ctx)
	assert.Check(q, err)
	for _, c := range containers {
		_, err := c.SetLabels(ctx, map[string]string{restartLabels + "status": ""})
		assert.Check(q, err)
	}
	assert.Check(q, d.Stop())
	d.Start()
}

// start creates the container of a row, starts its task, and labels the container.
func (m *monitoredTasks) start(r *restartRow) {
	m.q.Helper()
	container := m.d.CreateContainerByClient(ctrd.ClientOptions{}, m.ref, r.id, countsRunsAndExits(r.exit)...)
	m.startTask(r, container)
	if labels := strings.Fields(r.labels); len(labels) > 0 { // only now: the monitor would have started the task itself
		for i := range labels {
			labels[i] = restartLabels + labels[i]
		}
		m.d.Ctr(append([]string{"containers", "label", r.id}, labels...)...)
	}
}

func (m *monitoredTasks) startTask(r *restartRow, container containerd.Container) {
	q, ctx := m.q, context.Background()
	q.Helper()
	q.LogCommand("# Go client: NewTask and Start, container %s", r.id)
	task, err := container.NewTask(ctx, cio.NullIO)
	assert.NilError(q, err)
	assert.NilError(q, task.Start(ctx))
	r.first = m.waitForTask(r.id, r.first)
	r.started++
}

// waitForTask waits until the container has a task whose process is not the process before, and whose program is ready.
func (m *monitoredTasks) waitForTask(id string, before proc.Process) (now proc.Process) {
	ctx := context.Background()
	m.q.Helper()
	proc.WaitFor(m.q, func(t poll.LogT) poll.Result {
		container, err := m.d.Client().LoadContainer(ctx, id)
		if err != nil {
			return poll.Error(err)
		}
		task, err := container.Task(ctx, nil)
		if err != nil {
			return poll.Continue("container %s has no task: %v", id, err)
		}
		p, err := proc.Read(proc.PID(task.Pid()))
		if err != nil || p.Same(before.Identity) || !proc.Catches(p.PID, "sh", unix.SIGUSR1)(t).Done() {
			return poll.Continue("the task of %s has process %d (%v), want a process that is ready, after %d", id, task.Pid(), err, before.PID)
		}
		now = p
		return poll.Success()
	})
	return now
}

func (m *monitoredTasks) signal(id string, s syscall.Signal) {
	m.q.Helper()
	m.q.LogCommand("# Go client: Kill with %d, container %s", s, id)
	assert.NilError(m.q, m.d.Task(id).Kill(context.Background(), s))
}

// waitForMonitor returns when the monitor has looked at all containers after this moment. It ends a task of the policy always, and waits
// until it runs again. It does so twice, because the monitor may have been at work already when it found the first end.
func (m *monitoredTasks) waitForMonitor() {
	m.q.Helper()
	for range 2 {
		m.signal(m.sentinel, unix.SIGKILL)
		m.sentinelNow = m.waitForTask(m.sentinel, m.sentinelNow)
	}
}

// repeatLostRestart ends a task of the policy on-failure again, until the monitor has restarted it. The monitor deletes a task and makes
// another at once. If the old shim is still ending, that fails. It tries again, except for the policy on-failure: without a task there is
// no exit status.
func (m *monitoredTasks) repeatLostRestart(onFailure *restartRow) {
	q, ctx := m.q, context.Background()
	for tries := 1; tries < 10; tries++ {
		container, err := m.d.Client().LoadContainer(ctx, onFailure.id)
		assert.NilError(q, err)
		if _, err := container.Task(ctx, nil); !errdefs.IsNotFound(err) {
			break
		}
		m.startTask(onFailure, container)
		m.signal(onFailure.id, unix.SIGUSR1)
		proc.WaitFor(q, proc.Dead(onFailure.first.Identity))
		m.waitForMonitor()
	}
}

// statusAfterEnd asserts that the task of a row has the status that it has to have after the end of the first one, and returns it.
func (m *monitoredTasks) statusAfterEnd(r *restartRow) containerd.ProcessStatus {
	m.q.Helper()
	status := m.d.TaskStatus(r.id)
	want := map[bool]containerd.ProcessStatus{true: containerd.Running, false: containerd.Stopped}[r.restarted]
	assert.Check(m.q, cmp.Equal(status.Status, want), "the task of policy %s", r.name)
	if !r.restarted {
		assert.Check(m.q, cmp.Equal(status.ExitStatus, uint32(r.exit)), "exit status of the task of policy %s", r.name)
	}
	return status.Status
}

// assertRestarted asserts that the container has a new task, with another process and shim and the same snapshot.
func (m *monitoredTasks) assertRestarted(r *restartRow) {
	q := m.q
	again := m.waitForTask(r.id, r.first)
	assert.Check(q, again.Parent != r.first.Parent, "policy %s: the new task has the shim of the old one", r.name)
	proc.WaitFor(q, file.HasContent(fmt.Sprintf("/proc/%d/root/runs", again.PID), strings.Repeat("run\n", r.started)+"run"))
	record, err := m.d.Client().ContainerService().Get(context.Background(), r.id)
	assert.NilError(q, err)
	count, err := strconv.Atoi(record.Labels[restartLabels+"count"]) // of attempts
	assert.Check(q, err == nil && count >= 1, "restarts that the label counts, policy %s: %q", r.name, record.Labels[restartLabels+"count"])
}
