//go:build linux && vmlab

package cdblab

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/check"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// The shim calls runc, each time for a moment: to create, start, exec, list processes (`runc ps`), pause, resume, kill and delete. No
// runc runs while the task runs. The shim itself signals execs, reads metrics and sets the terminal's size.
//
// To the shim runc is a program with a command line, the same that a reader types. runc finds what it did before in its state
// directory, one for each containerd namespace, and so does a runc that is called by hand. The runtime option BinaryName (ctr's
// --runc-binary) names a program that takes its place. Such a program must understand these commands. containerd needs `ps` at each of
// its starts as well: it asks each shim for the processes of its task. The commands update, checkpoint, restore and features are needed
// only by clients that use them.
//
// Hint: put a script in runc's place that writes down its arguments, and then executes runc.
// Spec: https://github.com/opencontainers/runtime-tools/blob/master/docs/command-line-interface.md
func TestTask_WhereIsRuncInAllThis(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Where is runc in all this?")
	defer q.Recover()
	recorder := runc.WriteRecorder(q)
	d := ctrd.Shared(q)
	id, plain := q.ID(ctrd.ContainerID), q.ID(ctrd.ContainerID+"-plain")
	ref := d.PullImage()

	q.Step("create a container whose runtime is a script: it writes down its pid, its parent's and its arguments, and then executes runc")
	if strings.Contains(d.Ctr("containers", "create", "--help").Stdout, "--runc-binary") {
		d.CreateContainerWith([]string{"--runc-binary", recorder.Path}, ref, id, "sleep", "3600")
	} else {
		d.CreateContainerByClient(ctrd.ClientOptions{BinaryName: recorder.Path}, ref, id, "sleep", "3600")
	}
	assert.Check(q, cmp.Len(recorder.Calls(q), 0), "calls of runc without a task")
	// expectCall calls act, and asserts that the shim calls runc once for it, with this command.
	expectCall := func(command string, act func()) {
		q.Helper()
		before := len(recorder.Calls(q))
		act()
		calls := recorder.Calls(q)[before:]
		assert.Assert(q, cmp.DeepEqual(runc.Commands(calls), []string{command}), "commands with which the shim called runc")
		q.Fact(command, calls[0])
	}

	q.Step("start a task: the shim calls runc create, then runc start")
	d.StartTask(id)
	pid := d.TaskPID(id)
	proc.WaitFor(q, proc.Runs(pid, "sleep"))
	shims := d.Shims()
	assert.Assert(q, cmp.Len(shims, 1), "shims of the task")
	root := filepath.Join(d.RuncRoot, d.Namespace)
	calls := recorder.Calls(q)
	assert.Assert(q, cmp.DeepEqual(runc.Commands(calls), []string{"create", "start"}))
	create := calls[0]
	assert.Check(q, cmp.Equal(create.Option("--root"), root))
	assert.Check(q, cmp.Equal(create.Option("--bundle"), d.Bundle(id)))
	assert.Check(q, cmp.Equal(create.Option("--pid-file"), filepath.Join(d.Bundle(id), "init.pid")))
	assert.Check(q, cmp.Equal(create.Args[len(create.Args)-1], id))
	q.Fact("create", create)
	q.Fact("start", calls[1])

	q.Step("exec, ps, pause and resume: each is one call of runc")
	expectCall("exec", func() { d.Ctr("tasks", "exec", "--fifo-dir", d.FifoDir, "--exec-id", "second", id, "true") })
	expectCall("ps", func() { d.Ctr("tasks", "ps", id) })
	expectCall("pause", func() { d.Ctr("tasks", "pause", id) })
	expectCall("resume", func() { d.Ctr("tasks", "resume", id) })

	q.Step("look at the callers: the shim made each of these calls, and no runc is left while the task runs")
	for _, c := range recorder.Calls(q) {
		assert.Check(q, cmp.Equal(c.Parent, shims[0]), "the caller of runc %s", c.Command())
		assert.Check(q, !proc.Alive(c.PID), "runc %s still runs", c.Command())
	}
	running := proc.Find(q, func(_ proc.PID, _ string, args []string) bool {
		return slices.Contains(args, id) && slices.ContainsFunc(args[:1], func(a string) bool { return filepath.Base(a) == "runc" })
	})
	assert.Check(q, cmp.Len(running, 0), "runc processes of the container")
	q.Fact("caller of runc", recorder.Calls(q)[0].Parent)
	q.Fact("runc processes now", len(running))

	q.Step("call runc by hand, with the same --root: it reports what the kernel shows of the task")
	task := proc.Snapshot(q, pid)
	byHand := q.Must("runc", "--root", root, "state", id).Stdout
	recordRuncState(q, byHand, file.Read(q, filepath.Join(root, id, "state.json")), task, d.Bundle(id))
	q.Fact("runc's --root", root)

	q.Control("start a task of the plain runtime: the script is not called at all")
	before := len(recorder.Calls(q))
	d.CreateContainer(ref, plain, "sleep", "3600")
	d.StartTask(plain)
	proc.WaitFor(q, proc.Runs(d.TaskPID(plain), "sleep"))
	assert.Check(q, cmp.Equal(len(recorder.Calls(q)), before), "calls of the wrapper after a task of the plain runtime")
	q.Fact("calls of the wrapper for the plain runtime", len(recorder.Calls(q))-before)

	q.TearDown("kill and delete the task: these are calls of runc, too", func() {
		expectCall("kill", func() { d.Ctr("tasks", "kill", "-s", "SIGKILL", id) })
		proc.WaitFor(q, proc.Dead(task.Identity))
		proc.WaitFor(q, d.TaskStopped(id))
		before := len(recorder.Calls(q))
		d.DeleteTask(id)
		calls := recorder.Calls(q)[before:]
		assert.Assert(q, len(calls) > 0, "tasks delete called no runc")
		assert.Check(q, cmp.Equal(calls[0].Command(), "delete"))
		assert.Check(q, cmp.Equal(calls[0].Parent, shims[0]), "the caller of runc delete")
		assert.Check(q, !file.Exists(filepath.Join(root, id)), "runc's state directory after delete")
		q.Fact("delete", calls[0])
		q.Fact("commands in order", runc.Commands(recorder.Calls(q)[:before+1]))

		q.Step("wait until the shim has ended: containerd starts a cleanup in any case, and this call of runc is not the shim's")
		proc.WaitFor(q, d.HasShims(1))
		recordShimCleanup(q, recorder.Calls(q)[before+1:], shims[0])
	})

	q.Answer("The shim calls runc as a command: create, start, exec, ps, pause, resume, kill and delete. While the task runs, " +
		"no runc does.")
}

// recordRuncState asserts that what runc prints as the state, and what it has stored in state.json, is what the kernel shows of the task.
func recordRuncState(q *lab.Q, printed, stateJSON string, task proc.Process, bundle string) {
	var state specs.State
	check.DecodeJSON(q, printed, &state)
	assert.Check(q, cmp.Equal(state.Status, specs.StateRunning))
	assert.Check(q, cmp.Equal(proc.PID(state.Pid), task.PID))
	assert.Check(q, cmp.Equal(state.Bundle, bundle))
	var stored struct {
		Pid   int        `json:"init_process_pid"`
		Start proc.Ticks `json:"init_process_start"`
	}
	check.DecodeJSON(q, stateJSON, &stored)
	assert.Check(q, cmp.Equal(proc.PID(stored.Pid), task.PID))
	assert.Check(q, cmp.Equal(stored.Start, task.Start))
	q.Fact("runc state: status and pid", []any{state.Status, proc.PID(state.Pid)})
}

// recordShimCleanup asserts that there is one call of runc after the shim's last one, that it deletes with --force, and that the shim
// did not make it. containerd runs the cleanup before it removes the bundle, which names the runtime, and answers the delete only after
// both.
func recordShimCleanup(q *lab.Q, calls []runc.Call, shim proc.PID) {
	assert.Assert(q, cmp.DeepEqual(runc.Commands(calls), []string{"delete"}), "commands with which the cleanup called runc")
	assert.Check(q, cmp.Contains(calls[0].Args, "--force"))
	assert.Check(q, calls[0].Parent != shim, "the shim deletes twice")
	q.Fact("delete by the cleanup", calls[0])
}
