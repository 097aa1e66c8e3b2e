//go:build linux && vmlab

package cdblab

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"

	eventsapi "github.com/containerd/containerd/api/events"
	containerd "github.com/containerd/containerd/v2/client"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/check"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// A failure before there is a task is reported to the caller alone, and no event is published. If the task's process dies between create
// and start, the command fails, and the exit is published as well. A failure of the task's own program after that is published as an exit,
// and the caller gets no error. A failure of an exec is reported to the caller. Only the first event of the exec, exec-added, is published.
//
// A program that is missing fails create, so `tasks start` fails and names it, and there are no leftovers. A program
// that the kernel cannot execute shows only at start, in the container's process: the command succeeds, and an exit
// follows, as with a program that ends by itself. Such a task keeps shim, bundle, mount and cgroup until it is deleted.
// An exec that fails is added, and then never started.
//
// A task whose process is gone before the shim could look for its cgroup has no metrics. Its shim serves it until it is deleted. Since
// containerd 2.2 no task that is restored from a checkpoint has metrics: the shim looks for the cgroup only after create. Older shims look
// after restore as well.
//
// Hint: the exit code of `ctr tasks start`, against `ctr events`; what is below the bundle's directory?
// Spec: https://github.com/containerd/containerd/blob/main/api/events/task.proto
// Kernel: https://man7.org/linux/man-pages/man2/execve.2.html, ENOENT, ENOEXEC
func TestEvents_WhatDoesAFailureTell(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does a failure tell?")
	defer q.Recover()
	d := ctrd.Shared(q)
	d.EndShimsIfFailed()
	id := q.ID(ctrd.ContainerID)
	ref := d.PullImage()
	// The program is a file of the host's, so that it can be repaired between two starts of the same container.
	programs := q.Mkdir("programs")
	program := filepath.Join(programs, "program")
	d.CreateContainerWith([]string{"--mount", "type=bind,src=" + programs + ",dst=/programs,options=rbind:ro"}, ref, id, "/programs/program")
	stream := d.Listen()

	q.Step("start a task whose program is missing: the command fails and names it, no event is published, and there are no leftovers")
	assert.DeepEqual(q, d.TaskLeftovers(id), []string{})
	r := d.TryCtr("tasks", "start", "-d", "--fifo-dir", d.FifoDir, id)
	assert.Check(q, r.Code != 0, "a task of a missing program starts:\n%s", r)
	assert.Check(q, cmp.Contains(r.Stderr, "/programs/program"))
	proc.WaitFor(q, d.NoTaskLeftovers(id))
	assert.Check(q, cmp.DeepEqual(ctrd.Topics(stream.TakeEvents()), []string{}))
	q.Fact("missing: exit code of tasks start", r.Code)
	q.Fact("missing: message", runc.LastLogMessage(r))
	q.Fact("missing: events", ctrd.Topics(stream.Events()))
	q.Fact("missing: leftovers", d.TaskLeftovers(id))

	q.Step("start a task whose process dies before the runtime's create returns: the command fails, and the exit is published")
	// The runtime kills what it has created, and returns as if all were well, once the shim has taken the exit status.
	killer := q.WriteWrapper("killer", `"$RUNC" "$@"; code=$?
case " $* " in *" create "*) for a; do case $a in */init.pid) pid=$(cat "$a");; esac; done
kill -KILL "$pid"; while kill -0 "$pid" 2>/dev/null; do sleep 0.02; done;; esac
exit $code`)
	early := q.ID("cdb-early")
	d.CreateContainerByClient(ctrd.ClientOptions{BinaryName: killer}, ref, early, "sleep", "3600")
	r = d.TryCtr("tasks", "start", "-d", "--fifo-dir", d.FifoDir, early)
	assert.Check(q, r.Code != 0, "a task whose process is dead starts:\n%s", r)
	proc.WaitFor(q, stream.ReceivedExit(early))
	proc.WaitFor(q, stream.Received("/tasks/create", 1))
	ofEarly := withoutDeleteEvent(stream.TakeEvents())
	wanted := []string{"/tasks/create", "/tasks/exit"}
	assert.Assert(q, cmp.DeepEqual(ctrd.Topics(ofEarly), wanted), "events of a process that dies during create")
	proc.WaitFor(q, d.TaskStopped(early))
	status := d.TaskStatus(early).ExitStatus
	assert.Check(q, cmp.Equal(status, uint32(128+9)), "exit status of a process that dies during create, from the Go client")
	assert.Check(q, cmp.Equal(ofEarly[1].Body.(*eventsapi.TaskExit).ExitStatus, status), "exit status in the event, and from the Go client")
	q.Fact("dies during create: events", ctrd.Topics(ofEarly))
	q.Fact("dies during create: exit status", status)
	q.Fact("dies during create: message", runc.LastLogMessage(r))
	d.DeleteTask(early)
	proc.WaitFor(q, d.NoTaskLeftovers(early))
	q.Run("dies-during-restore", func(q *lab.Q) {
		d := d.InSubtest(q)
		liveOnAfterRestore(q, d, stream, ref, dieDuringRestore(q, d, stream, ref))
	})
	exited := len(ctrd.FilterTopics(stream.Events(), "/tasks/exit"))

	for _, row := range failingPrograms {
		q.Step("start a program that %s: the command succeeds, and the exit is published", row.name)
		assert.NilError(q, os.WriteFile(program, []byte(row.content), 0o755))
		startFailing(q, d, stream, id, row)
	}

	q.Control("repair the program: the same container starts, and runs")
	assert.NilError(q, os.WriteFile(program, []byte("#!/bin/sh\nexec sleep 3600\n"), 0o755))
	task := d.StartTaskAndWaitForEvent(stream, id)
	assert.DeepEqual(q, ctrd.Topics(withoutDeleteEvent(stream.TakeEvents())), []string{"/tasks/create", "/tasks/start"})
	q.Fact("repaired: the task's command line", task.Args)

	q.Step("exec a missing program: the command fails and names it, and the only event is that it was added")
	exec := []string{"tasks", "exec", "--fifo-dir", d.FifoDir, "--exec-id"}
	r = d.TryCtr(append(exec, "missing", id, "/programs/missing")...)
	assert.Check(q, r.Code != 0, "an exec of a missing program starts:\n%s", r)
	assert.Check(q, cmp.Contains(r.Stderr, "/programs/missing"))
	q.Fact("exec: exit code, missing program", r.Code)
	q.Fact("exec: message, missing program", runc.LastLogMessage(r))
	assert.Check(q, cmp.DeepEqual(proc.Children(q, task.Parent), []proc.PID{task.PID}), "children of the shim")
	assert.Check(q, proc.Snapshot(q, task.PID).Same(task.Identity), "the task has ended")

	q.Control("exec a program that exists: it is added, started and ended")
	r = d.TryCtr(append(exec, "there", id, "false")...)
	assert.Check(q, cmp.Equal(r.Code, 1), "%s", r)
	proc.WaitFor(q, stream.Received("/tasks/exec-added", 2))
	proc.WaitFor(q, stream.Received("/tasks/exec-started", 1))
	// The shim publishes its events in order: once the last one of the second exec is received, there is no more of the first.
	proc.WaitFor(q, stream.Received("/tasks/exit", exited+3))
	byExec := topicsByExec(withoutDeleteEvent(stream.TakeEvents()))
	assert.Check(q, cmp.DeepEqual(byExec, map[string][]string{
		"missing": {"/tasks/exec-added"},
		"there":   {"/tasks/exec-added", "/tasks/exec-started", "/tasks/exit"},
	}))
	q.Fact("exec: events, missing program", byExec["missing"])
	q.Fact("exec: events, program there", byExec["there"])

	q.Answer("A failure before there is a task is an error of the command, and publishes no event. If the task's process dies " +
		"between create and start, the command fails, and the exit is published as well. After that, a failure of the program is only " +
		"an exit, and a failed exec is an error of the command; only its exec-added is published.")
}

// restoring is the script of a runtime that runs the program instead of restoring it, because CRIU may be missing.
const restoring = `case " $* " in *" restore "*) ;; *) exec "$RUNC" "$@";; esac
for a; do case $before in --root) root=$a;; --bundle) bundle=$a;; --pid-file) file=$a;; esac; before=$a; done
"$RUNC" --root "$root" run --detach --bundle "$bundle" --pid-file "$file" "$before" || exit
`

// dieDuringRestore starts a task by restoring it. The process of the task has ended, and is gone, when the runtime returns. So a shim that
// looks for the cgroup of a restored task, as those before containerd 2.2 do, finds none. It returns the error of the task's metrics.
func dieDuringRestore(q *lab.Q, d *ctrd.Daemon, stream *ctrd.Stream, ref string) (noMetrics string) {
	q.Step("start a task whose process dies before the runtime's restore returns: the shim has no cgroup of it, and lives on")
	// The runtime kills the program, and returns when the shim has taken the exit status.
	killer := q.WriteWrapper("restorer-kills", restoring+
		`pid=$(cat "$file"); kill -KILL "$pid"; while kill -0 "$pid" 2>/dev/null; do sleep 0.02; done`)
	id := q.ID("cdb-restored")
	d.CreateContainerByClient(ctrd.ClientOptions{BinaryName: killer}, ref, id, "sleep", "3600")
	task := d.CreateTaskToRestore(id, killer)
	shims := d.Shims()
	assert.Assert(q, cmp.Len(shims, 1), "shims of the task")
	shim := proc.Snapshot(q, shims[0])
	err := task.Start(context.Background())
	assert.Assert(q, shim.Alive(), "the shim has died at the start of a task whose process was gone when restore returned; error of start: %v",
		err)
	assert.Check(q, err, "start of a task whose process was gone when restore returned")
	proc.WaitFor(q, d.TaskStopped(id))
	status := d.TaskStatus(id).ExitStatus
	assert.Check(q, cmp.Equal(status, uint32(128+9)), "exit status of a process that dies during restore")
	proc.WaitFor(q, stream.ReceivedExit(id))
	proc.WaitFor(q, receivedStart(stream, id))
	topics := ctrd.Topics(withoutDeleteEvent(stream.TakeEvents()))
	assert.Check(q, cmp.DeepEqual(topics, []string{"/tasks/create", "/tasks/start", "/tasks/exit"}),
		"events of a process that dies during restore")
	q.Fact("dies during restore: events", topics)
	q.Fact("dies during restore: exit status", status)

	q.Step("ask for the metrics of this task: the shim has no cgroup of it, so this is an error, and the shim lives on")
	metrics := d.TryCtr("tasks", "metrics", id)
	assert.Check(q, metrics.Code != 0, "metrics of a task without a cgroup:\n%s", metrics)
	assert.Check(q, cmp.Equal(d.TaskStatus(id).Status, containerd.Stopped), "status of the task after the metrics")
	assert.Check(q, shim.Alive(), "the shim has died, which was asked for the metrics of a task without a cgroup")
	q.Fact("dies during restore: error of the metrics", ctrd.CtrError(metrics))
	q.Fact("dies during restore: the shim lives after the metrics", shim.Alive())
	d.DeleteTask(id)
	proc.WaitFor(q, d.NoTaskLeftovers(id))
	stream.TakeEvents()
	return ctrd.CtrError(metrics)
}

// liveOnAfterRestore restores a task that lives on, and creates the same one. Only where the shim looks for the cgroup after restore as
// well, the restored one has metrics. Elsewhere the error of its metrics is noMetrics, as if it had died.
func liveOnAfterRestore(q *lab.Q, d *ctrd.Daemon, stream *ctrd.Stream, ref, noMetrics string) {
	restorer := q.WriteWrapper("restorer", restoring)
	id := q.ID("cdb-lives-on")
	d.CreateContainerByClient(ctrd.ClientOptions{BinaryName: restorer}, ref, id, "sleep", "3600")
	// pidsInMetrics returns the number of processes in the metrics of the task, or ctr's error.
	pidsInMetrics := func(started string) any {
		pid := d.TaskPID(id)
		proc.WaitFor(q, proc.Runs(pid, "sleep"))
		check.OnlyProcessInCgroup(q, proc.Snapshot(q, pid).Identity, "/"+d.Namespace+"/"+id)
		r := d.TryCtr("tasks", "metrics", id)
		if r.Code != 0 {
			assert.Check(q, cmp.Equal(ctrd.CtrError(r), noMetrics), "metrics of a task that was %s, and of one whose process is gone", started)
			return ctrd.CtrError(r)
		}
		pids := parseMetricsTable(q, r.Stdout)["pids"]
		assert.Check(q, cmp.Equal(pids, uint64(1)), "processes in the metrics of a task that was %s, and in its cgroup", started)
		return pids
	}
	end := func() {
		exits := len(ctrd.FilterTopics(stream.Events(), "/tasks/exit"))
		d.Ctr("tasks", "kill", "-s", "SIGKILL", id)
		// The shim tells that the task has stopped before it publishes the exit. A delete in between may take the event with it.
		proc.WaitFor(q, stream.Received("/tasks/exit", exits+1))
		d.DeleteTask(id)
		proc.WaitFor(q, d.NoTaskLeftovers(id))
	}

	q.Control("restore a task that lives on: it has metrics if the shim looks for the cgroup after restore")
	assert.NilError(q, d.CreateTaskToRestore(id, restorer).Start(context.Background()))
	q.Fact("lives on after restore: processes in the metrics", pidsInMetrics("restored"))
	end()

	q.Control("create this task, instead of restoring it: it has metrics")
	d.StartTask(id)
	created := pidsInMetrics("created")
	assert.Check(q, cmp.Equal(created, any(uint64(1))), "processes in the metrics of a task that was created")
	q.Fact("created: processes in the metrics", created)
	end()
	stream.TakeEvents()
}

// failingProgram is a program that is there, so that the command succeeds, and that fails after that.
type failingProgram struct {
	name, content string
	status        uint32 // 0: the runtime chooses it
}

var failingPrograms = []failingProgram{
	{"is of no executable format", "no magic number", 0},
	{"ends with 3 at once", "#!/bin/sh\nexit 3\n", 3},
}

// startFailing starts the task, whose program fails, and deletes it.
func startFailing(q *lab.Q, d *ctrd.Daemon, stream *ctrd.Stream, id string, program failingProgram) {
	before := stream.Events()
	r := d.TryCtr("tasks", "start", "-d", "--fifo-dir", d.FifoDir, id)
	assert.Check(q, cmp.Equal(r.Code, 0), "%s", r)
	for _, topic := range []string{"/tasks/create", "/tasks/start", "/tasks/exit"} {
		proc.WaitFor(q, stream.Received(topic, len(ctrd.FilterTopics(before, topic))+1))
	}
	events := withoutDeleteEvent(stream.TakeEvents())
	assert.DeepEqual(q, ctrd.Topics(events), []string{"/tasks/create", "/tasks/start", "/tasks/exit"})
	exit := events[2].Body.(*eventsapi.TaskExit)
	assert.Check(q, cmp.Equal(exit.Pid, events[0].Body.(*eventsapi.TaskCreate).Pid))
	assert.Check(q, exit.ExitStatus != 0, "exit status 0 of a program that cannot be executed, or that ends with another status")
	if program.status != 0 {
		assert.Check(q, cmp.Equal(exit.ExitStatus, program.status))
	}
	proc.WaitFor(q, d.TaskStopped(id))
	assert.Check(q, cmp.Equal(d.TaskStatus(id).ExitStatus, exit.ExitStatus), "exit status: from the Go client, and in the event")
	assert.Check(q, !proc.Alive(proc.PID(exit.Pid)), "process %d is alive", exit.Pid)
	leftovers := d.TaskLeftovers(id)
	assert.Check(q, cmp.DeepEqual(leftovers, []string{"bundle", "cgroup", "mount", "shim"}))
	q.Fact(program.name+": events", ctrd.Topics(events))
	q.Fact(program.name+": exit status", exit.ExitStatus)
	q.Fact(program.name+": leftovers", leftovers)
	d.DeleteTask(id)
	proc.WaitFor(q, d.NoTaskLeftovers(id))
	q.Fact(program.name+": leftovers after delete", d.TaskLeftovers(id))
	stream.TakeEvents()
}

// topicsByExec returns the topics of the events of each exec, in order.
func topicsByExec(events []ctrd.Event) map[string][]string {
	byExec := map[string][]string{}
	for _, e := range events {
		switch body := e.Body.(type) {
		case *eventsapi.TaskExecAdded:
			byExec[body.ExecID] = append(byExec[body.ExecID], e.Topic)
		case *eventsapi.TaskExecStarted:
			byExec[body.ExecID] = append(byExec[body.ExecID], e.Topic)
		case *eventsapi.TaskExit:
			byExec[body.ID] = append(byExec[body.ID], e.Topic)
		}
	}
	return byExec
}

// withoutDeleteEvent returns the events about tasks in the order in which they were published, without the delete event, which may come
// late, or not at all.
func withoutDeleteEvent(events []ctrd.Event) []ctrd.Event {
	return slices.DeleteFunc(ctrd.InOrder(events), func(e ctrd.Event) bool { return !ctrd.IsTaskTopic(e.Topic) || e.Topic == "/tasks/delete" })
}
