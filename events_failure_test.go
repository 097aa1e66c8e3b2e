//go:build linux && vmlab

package cdblab

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	eventsapi "github.com/containerd/containerd/api/events"
	"github.com/moby/sys/mountinfo"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/poll"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// It depends on how far it came. What fails before there is a task is told to the caller alone, and by no event; what
// fails after is told as an exit, and by no error.
//
// A program that is missing fails create, so `tasks start` fails and names it, and nothing is left. One that the kernel
// will not execute is found out only at start, in the container's process: the command succeeds, and an exit follows, as
// with a program that ends by itself. Such a task keeps shim, bundle, mount and cgroup until it is deleted. An exec that
// fails is added, and then never started.
//
// Hint: the exit code of `ctr tasks start`, against `ctr events`; what is below the bundle's directory?
// Spec: https://github.com/containerd/containerd/blob/main/api/events/task.proto
// Kernel: https://man7.org/linux/man-pages/man2/execve.2.html, ENOENT, ENOEXEC
func TestEvents_WhatDoesAFailureTell(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does a failure tell?")
	d := ctrd.Shared(q)
	id := q.ID(ctrd.ContainerID)
	ref := d.PullImage()
	// The program is a file of the host's, so that it can be mended between two starts of the same container.
	programs := q.Mkdir("programs")
	program := filepath.Join(programs, "program")
	d.CreateContainerWith([]string{"--mount", "type=bind,src=" + programs + ",dst=/programs,options=rbind:ro"}, ref, id, "/programs/program")
	stream, trace := d.Listen(), traceOf(q, d, id)
	start := func() lab.Result { return d.TryCtr("tasks", "start", "-d", "--fifo-dir", d.FifoDir, id) }

	q.Step("the program is missing: the command fails and names it; no event, and nothing is left")
	assert.DeepEqual(q, trace.left(), []string{})
	r := start()
	assert.Check(q, r.Code != 0, "a task of a missing program starts:\n%s", r)
	assert.Check(q, cmp.Contains(r.Stderr, "/programs/program"))
	proc.WaitFor(q, trace.gone)
	assert.Check(q, cmp.DeepEqual(ctrd.Topics(stream.TakeEvents()), []string{}))
	q.Fact("missing: exit code of tasks start", r.Code)
	q.Fact("missing: it says", runc.LastLogMessage(r))
	q.Fact("missing: events", ctrd.Topics(stream.Events()))
	q.Fact("missing: left", trace.left())

	for _, row := range []struct {
		what, is string
		status   uint32 // 0: the runtime's own
	}{
		{"of no executable format", "no magic number", 0},
		{"ends with 3 at once", "#!/bin/sh\nexit 3\n", 3},
	} {
		q.Step("the program %s: the command succeeds, and the exit is told", row.what)
		assert.NilError(q, os.WriteFile(program, []byte(row.is), 0o755))
		n := len(ctrd.FilterTopics(stream.Events(), "/tasks/exit"))
		r = start()
		assert.Check(q, cmp.Equal(r.Code, 0), "%s", r)
		proc.WaitFor(q, stream.Received("/tasks/exit", n+1))
		events := ofTask(stream.TakeEvents())
		assert.DeepEqual(q, ctrd.Topics(events), []string{"/tasks/create", "/tasks/start", "/tasks/exit"})
		exit := events[2].Body.(*eventsapi.TaskExit)
		assert.Check(q, cmp.Equal(exit.Pid, events[0].Body.(*eventsapi.TaskCreate).Pid))
		assert.Check(q, exit.ExitStatus != 0, "a program that cannot be executed ends well")
		if row.status != 0 {
			assert.Check(q, cmp.Equal(exit.ExitStatus, row.status))
		}
		proc.WaitFor(q, d.TaskStopped(id))
		assert.Check(q, cmp.Equal(d.TaskStatus(id).ExitStatus, exit.ExitStatus), "the client and the event")
		assert.Check(q, !proc.Alive(proc.PID(exit.Pid)), "process %d is alive", exit.Pid)
		left := trace.left()
		assert.Check(q, cmp.DeepEqual(left, []string{"bundle", "cgroup", "mount", "shim"}))
		q.Fact(row.what+": events", ctrd.Topics(events))
		q.Fact(row.what+": exit status", exit.ExitStatus)
		q.Fact(row.what+": left", left)
		d.DeleteTask(id)
		proc.WaitFor(q, trace.gone)
		q.Fact(row.what+": left, once deleted", trace.left())
		stream.TakeEvents()
	}

	q.Control("the program is mended: the same container starts, and runs")
	assert.NilError(q, os.WriteFile(program, []byte("#!/bin/sh\nexec sleep 300\n"), 0o755))
	task := d.StartTaskAndWaitForEvent(stream, id)
	assert.DeepEqual(q, ctrd.Topics(ofTask(stream.TakeEvents())), []string{"/tasks/create", "/tasks/start"})
	q.Fact("mended", task.Args)

	q.Step("an exec of a missing program: the command fails and names it; added, and no more is told")
	exec := []string{"tasks", "exec", "--fifo-dir", d.FifoDir, "--exec-id"}
	r = d.TryCtr(append(exec, "missing", id, "/programs/missing")...)
	assert.Check(q, r.Code != 0, "an exec of a missing program starts:\n%s", r)
	assert.Check(q, cmp.Contains(r.Stderr, "/programs/missing"))
	q.Fact("exec: exit code, missing program", r.Code)
	q.Fact("exec: it says", runc.LastLogMessage(r))
	assert.Check(q, cmp.DeepEqual(proc.Children(q, task.Parent), []proc.PID{task.PID}), "children of the shim")
	assert.Check(q, proc.Snapshot(q, task.PID).Same(task.Identity), "the task has ended")

	q.Control("an exec of a program that is there: added, started, ended")
	r = d.TryCtr(append(exec, "there", id, "false")...)
	assert.Check(q, cmp.Equal(r.Code, 1), "%s", r)
	proc.WaitFor(q, stream.Received("/tasks/exec-started", 1))
	proc.WaitFor(q, stream.Received("/tasks/exit", 3))
	// The shim's events come in order: with those of the second exec, all of the first are there.
	byExec := map[string][]string{}
	for _, e := range ofTask(stream.TakeEvents()) {
		switch body := e.Body.(type) {
		case *eventsapi.TaskExecAdded:
			byExec[body.ExecID] = append(byExec[body.ExecID], e.Topic)
		case *eventsapi.TaskExecStarted:
			byExec[body.ExecID] = append(byExec[body.ExecID], e.Topic)
		case *eventsapi.TaskExit:
			byExec[body.ID] = append(byExec[body.ID], e.Topic)
		}
	}
	assert.Check(q, cmp.DeepEqual(byExec, map[string][]string{
		"missing": {"/tasks/exec-added"},
		"there":   {"/tasks/exec-added", "/tasks/exec-started", "/tasks/exit"},
	}))
	q.Fact("exec: events, missing program", byExec["missing"])
	q.Fact("exec: events, program there", byExec["there"])

	q.Answer("Before there is a task: an error, and no event. After: no error, but an exit. Of a failed exec, that it was added.")
}

// trace is what a task leaves on the host: its shim, and what the kernel and the file system have.
type trace struct {
	d      *ctrd.Daemon
	bundle string
	dirs   []string // of its cgroup
}

func traceOf(q *lab.Q, d *ctrd.Daemon, id string) trace {
	q.Helper()
	return trace{d, d.Bundle(id), cgroup.Of(q, "/"+d.Namespace+"/"+id).Dirs()}
}

// left lists what there is of it.
func (t trace) left() []string {
	out := []string{}
	if file.Exists(t.bundle) {
		out = append(out, "bundle")
	}
	if slices.ContainsFunc(t.dirs, file.Exists) {
		out = append(out, "cgroup")
	}
	if mounted, err := mountinfo.Mounted(filepath.Join(t.bundle, "rootfs")); mounted || err != nil && !os.IsNotExist(err) {
		out = append(out, "mount")
	}
	if len(t.d.Shims()) > 0 {
		out = append(out, "shim")
	}
	return out
}

// gone is a poll check: there is nothing of the task any more. A shim ends a moment after its last task.
func (t trace) gone(poll.LogT) poll.Result {
	if left := t.left(); len(left) > 0 {
		return poll.Continue("of the task there is still: %v", left)
	}
	return poll.Success()
}

// ofTask keeps the events of a task but for its delete, which may come late, or not at all.
func ofTask(all []ctrd.Event) []ctrd.Event {
	return slices.DeleteFunc(all, func(e ctrd.Event) bool {
		return len(ctrd.TaskTopics([]string{e.Topic})) == 0 || e.Topic == "/tasks/delete"
	})
}
