//go:build linux && vmlab

package cdblab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	eventsapi "github.com/containerd/containerd/api/events"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/poll"

	"cdblab/helpers/ctrd"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// Each exec has three events in this order: exec-added, exec-started and exit. The exit has the status of this exec, however many execs end
// at once. The task's exit is the last exit.
//
// The kernel merges signals: if many children end at once, the shim receives one SIGCHLD. So the shim calls wait(2) until no ended child
// remains. It also has to know which pid belongs to which exec, even if the program ends before `runc exec` has reported the pid. If the
// shim loses an exit, a client waits for ever: for instance a liveness probe, for a dead process.
//
// An event may be received twice, and late: see TestEvents_CanAnEventComeTwice. Both copies have the same time. By its time, a client can
// recognise a copy, and sort events. When a shim dies after its task has ended, containerd itself publishes the exit again. That event has
// another time of publishing, but the saved status and time of the end. The shims of containerd 2.3.4 and before save nothing: with them
// both may be different. See TestTask_WhatHappensWhenTheShimDies.
//
// Hint: stop the shim with SIGSTOP, kill some execs, and look at SigPnd and ShdPnd in /proc/SHIM/status; then SIGCONT.
// Spec: https://github.com/containerd/containerd/blob/main/docs/runtime-v2.md#events
// Kernel: https://man7.org/linux/man-pages/man7/signal.7.html, "Queueing and delivery semantics for standard signals"
func TestEvents_WhatHappensWhenManyExecsEndAtOnce(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What happens when many execs end at once?")
	defer q.Recover()
	short, long := execsAtOnce(q), 10
	d := ctrd.Shared(q)
	d.EndShimsIfFailed()
	id := q.ID(ctrd.ContainerID)
	d.CreateContainer(d.PullImage(), id, "sleep", "3600")
	stream := d.Listen("event.container_id==" + id)
	init := d.StartTaskAndWaitForEvent(stream, id)
	shim := proc.Snapshot(q, init.Parent)
	e := &execs{q: q, stream: stream, task: d.Task(id), spec: *d.Spec(id).Process}

	q.Step("start %d execs at once, whose programs end as soon as they begin: each client receives the status of its own exec", short)
	programs, want := map[string][]string{}, map[string]uint32{}
	for n := range uint32(short) {
		name := fmt.Sprintf("short-%02d", n+1)
		programs[name], want[name] = []string{"sh", "-c", fmt.Sprint("exit ", n+1)}, n+1
	}
	assert.Check(q, cmp.DeepEqual(statuses(q, e.startAll(programs)), want), "exit statuses that the clients received")
	proc.WaitFor(q, e.haveEvents("/tasks/exit", short))
	histories, exits := e.histories("short-")
	for name, history := range histories {
		assert.Check(q, cmp.DeepEqual(history, []string{"exec-added", "exec-started", "exit"}), "events of %s, in order", name)
	}
	assert.Check(q, cmp.DeepEqual(exits, want), "exit statuses in the events")
	q.Fact("short execs: events of the first", histories["short-01"])
	q.Fact("short execs: execs without an exit", short-len(exits)) // how many execs there are depends on the machine's memory

	q.Step("look at the shim: it has waited for all children that have ended, so none of them is a zombie")
	proc.WaitFor(q, onlyChild(q, shim.PID, init.PID))
	children := proc.Children(q, shim.PID)
	assert.Check(q, cmp.DeepEqual(children, []proc.PID{init.PID}), "children of the shim, after all execs have ended")
	q.Fact("short execs: children of the shim afterwards, except the task's process", len(children)-1)

	q.Step("start %d execs that sleep, stop the shim, and kill half of them: they are zombies, and one SIGCHLD is pending for all", long)
	programs, want = map[string][]string{}, map[string]uint32{}
	for n := range long {
		programs[fmt.Sprintf("long-%02d", n)] = []string{"sleep", "3601"}
	}
	waits := e.startAll(programs)
	proc.WaitFor(q, e.haveEvents("/tasks/exec-started", short+long))
	running := e.running(programs)
	assert.Assert(q, cmp.Len(running, long), "execs that have started")
	q.TB.Cleanup(func() { _ = proc.Signal(shim.Identity, unix.SIGCONT) })
	sendSignal(q, shim, unix.SIGSTOP)
	proc.WaitFor(q, proc.IsInState(shim.PID, "T"))
	const firstSignal = 40 // real-time signals: each ends a program that has no handler, with a status of its own
	names := slices.Sorted(maps.Keys(running))
	killed, left := names[:long/2], names[long/2:]
	for n, name := range killed {
		want[name] = uint32(128 + firstSignal + n)
		sendSignal(q, running[name], unix.Signal(firstSignal+n))
	}
	for _, name := range killed {
		proc.WaitFor(q, proc.Dead(running[name].Identity))
	}
	pending := proc.Bits(q, shim.PID, "ShdPnd") // one bit for each signal, so it cannot count
	assert.Check(q, pending.Signal(unix.SIGCHLD), "signals that are pending for the stopped shim: %s", pending)
	zombies := countZombies(q, shim.PID)
	assert.Check(q, cmp.Equal(zombies, long/2), "zombies below the stopped shim")
	q.Fact("shim stopped: zombies", zombies)
	q.Fact("shim stopped: SIGCHLD is pending", pending.Signal(unix.SIGCHLD))

	q.Control("continue the shim: it publishes each exit once, with the status of that exec; the others and the task go on")
	sendSignal(q, shim, unix.SIGCONT)
	ended := map[string]<-chan containerd.ExitStatus{}
	for _, name := range killed {
		ended[name] = waits[name]
		proc.WaitFor(q, proc.Reaped(running[name].Identity))
	}
	assert.Check(q, cmp.DeepEqual(statuses(q, ended), want), "exit statuses that the clients received, after the shim went on")
	proc.WaitFor(q, e.haveEvents("/tasks/exit", short+long/2))
	_, exits = e.histories("long-")
	assert.Check(q, cmp.DeepEqual(exits, want), "exit statuses in the events, after the shim went on")
	for _, name := range left {
		assert.Check(q, proc.Alive(running[name].PID), "%s has ended with the others", name)
	}
	assert.Check(q, cmp.Equal(d.TaskStatus(id).Status, containerd.Running), "status of the task")
	q.Fact("shim continued: exit statuses", exits)
	q.Fact("shim continued: status of the task", d.TaskStatus(id).Status)

	q.TearDown("kill the task's process: the kernel ends the other execs with it, and the exit of the task is published last", func() {
		q.KillProcess(init)
		proc.WaitFor(q, e.haveEvents("/tasks/exit", short+long+1))
		recordLastExits(q, e.exits()[short+long/2:], id, left)
		proc.WaitFor(q, d.TaskStopped(id))
		proc.WaitFor(q, proc.HasNoChildren(shim.PID))
		q.Fact("events: copies received", lab.Chance(fmt.Sprint(len(stream.Again()))))
	})

	q.Answer("Each exec has exec-added, exec-started and one exit with its own status, in this order. No exit is lost, no zombie stays, " +
		"and when the task ends as well, its exit is the last one.")
}

// execsAtOnce returns how many execs this machine can start at once.
func execsAtOnce(q *lab.Q) int {
	var machine unix.Sysinfo_t
	assert.NilError(q, unix.Sysinfo(&machine))
	// runc before 1.2 copies itself into memory for each exec, 13 MB: 30 at once are too many for the lab's VM, which has 1024 MiB.
	needed := uint64(768 << 20)
	if runc.IsRunc(q) && q.UnderTest("runc").Precedes("1.2.0-rc.1") {
		needed = 1 << 30
	}
	if uint64(machine.Totalram)*uint64(machine.Unit) < needed {
		return 10
	}
	return 30
}

// recordLastExits asserts that the execs that were left and their task have ended by KILL, and that the exit of the task is the last one.
func recordLastExits(q *lab.Q, order []string, id string, left []string) {
	last := order[len(order)-1]
	slices.Sort(order)
	all := []string{id + " 137"}
	for _, name := range left {
		all = append(all, name+" 137")
	}
	assert.Check(q, cmp.DeepEqual(order, all), "exits after the death of the task's process")
	assert.Check(q, cmp.Equal(last, id+" 137"), "the last exit")
	q.Fact("task killed: exits", order)
	q.Fact("task killed: the last exit", last)
}

// execs starts execs in a task, as a program does.
type execs struct {
	q      *lab.Q
	stream *ctrd.Stream
	task   containerd.Task
	spec   specs.Process
}

// startAll starts a program in an exec for each name, all at once, and returns what receives their exit statuses.
func (e *execs) startAll(programs map[string][]string) map[string]<-chan containerd.ExitStatus {
	q := e.q
	q.Helper()
	q.LogCommand("# Go client: %d times task.Exec(ctx, id, …, cio.NullIO), Wait and Start, at once", len(programs))
	ctx := context.Background()
	var (
		mu    sync.Mutex
		wg    sync.WaitGroup
		errs  []error
		waits = map[string]<-chan containerd.ExitStatus{}
	)
	for name, args := range programs {
		wg.Go(func() {
			spec := e.spec
			spec.Args = args
			var wait <-chan containerd.ExitStatus
			err := lab.Catch(func() error {
				process, err := e.task.Exec(ctx, name, &spec, cio.NullIO)
				if err == nil {
					wait, err = process.Wait(ctx)
				}
				if err == nil {
					err = process.Start(ctx)
				}
				return err
			})
			mu.Lock()
			defer mu.Unlock()
			if waits[name] = wait; err != nil {
				errs = append(errs, fmt.Errorf("exec %s: %w", name, err))
			}
		})
	}
	wg.Wait()
	assert.NilError(q, errors.Join(errs...))
	return waits
}

// statuses receives the exit status of each exec.
func statuses(q *lab.Q, waits map[string]<-chan containerd.ExitStatus) map[string]uint32 {
	q.Helper()
	timeout := time.After(proc.Patience)
	got := map[string]uint32{}
	for name, wait := range waits {
		select {
		case status := <-wait:
			assert.NilError(q, status.Error(), "wait for exec %s", name)
			got[name] = status.ExitCode()
		case <-timeout:
			q.Errorf("the client has received no exit of exec %s within %v; of these it has: %v", name, proc.Patience, got)
			return got
		}
	}
	return got
}

// events returns the events so far in the order in which the shim has published them.
func (e *execs) events() []ctrd.Event { return ctrd.InOrder(e.stream.Events()) }

// haveEvents returns a check that succeeds when there are so many events of a topic.
func (e *execs) haveEvents(topic string, want int) poll.Check {
	return func(poll.LogT) poll.Result {
		if got := len(ctrd.FilterTopics(e.events(), topic)); got < want {
			return poll.Continue("received %d events %s, want %d", got, topic, want)
		}
		return poll.Success()
	}
}

// running returns the process of each of these programs whose exec has started.
func (e *execs) running(programs map[string][]string) map[string]proc.Process {
	q := e.q
	q.Helper()
	running := map[string]proc.Process{}
	for _, event := range e.events() {
		if started, ok := event.Body.(*eventsapi.TaskExecStarted); ok && programs[started.ExecID] != nil {
			proc.WaitFor(q, proc.Runs(proc.PID(started.Pid), "sleep"))
			running[started.ExecID] = proc.Snapshot(q, proc.PID(started.Pid))
		}
	}
	return running
}

// exits returns the id and the status of each exit, in order.
func (e *execs) exits() []string {
	order := []string{}
	for _, event := range e.events() {
		if exit, ok := event.Body.(*eventsapi.TaskExit); ok {
			order = append(order, fmt.Sprint(exit.ID, " ", exit.ExitStatus))
		}
	}
	return order
}

// histories returns the kinds of the events of each exec whose name has this prefix, in order, and the exit status of each. The pid is the
// same in each event of an exec.
func (e *execs) histories(prefix string) (histories map[string][]string, exits map[string]uint32) {
	histories, exits = map[string][]string{}, map[string]uint32{}
	pids := map[string]uint32{}
	for _, event := range e.events() {
		switch body := event.Body.(type) {
		case *eventsapi.TaskExecAdded:
			histories[body.ExecID] = append(histories[body.ExecID], "exec-added")
		case *eventsapi.TaskExecStarted:
			pids[body.ExecID] = body.Pid
			histories[body.ExecID] = append(histories[body.ExecID], "exec-started")
		case *eventsapi.TaskExit:
			exits[body.ID] = body.ExitStatus
			kind := "exit"
			if pids[body.ID] != body.Pid {
				kind = fmt.Sprintf("exit of pid %d instead of %d", body.Pid, pids[body.ID])
			}
			histories[body.ID] = append(histories[body.ID], kind)
		}
	}
	isOther := func(name string) bool { return !strings.HasPrefix(name, prefix) }
	maps.DeleteFunc(histories, func(name string, _ []string) bool { return isOther(name) })
	maps.DeleteFunc(exits, func(name string, _ uint32) bool { return isOther(name) })
	return histories, exits
}

// sendSignal sends a signal to a process, without containerd and the runtime.
func sendSignal(q *lab.Q, p proc.Process, s unix.Signal) {
	q.Helper()
	q.LogCommand("kill -%d %d", int(s), p.PID)
	assert.NilError(q, proc.Signal(p.Identity, s))
}

// onlyChild returns a check that succeeds when a process has this child and no other one, not even one that has ended.
func onlyChild(q *lab.Q, parent, child proc.PID) poll.Check {
	return func(poll.LogT) poll.Result {
		states := proc.ChildStates(q, parent)
		if _, ok := states[child]; !ok || len(states) != 1 {
			return poll.Continue("children of the shim, with their states: %v, want only %d", states, child)
		}
		return poll.Success()
	}
}

// countZombies returns the number of children that have ended, and for which the process has not waited.
func countZombies(q *lab.Q, parent proc.PID) int {
	q.Helper()
	count := 0
	for _, state := range proc.ChildStates(q, parent) {
		if state == "Z" {
			count++
		}
	}
	return count
}
