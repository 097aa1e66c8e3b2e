//go:build linux && vmlab

package cdblab

import (
	"encoding/json"
	"os"
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
)

// Behind the shim, and only for moments: a new runc for each thing that is done to the container, and none while it runs.
//
// To the shim runc is a program with a command line, the same that a reader types: create, start, exec, pause, resume, kill,
// delete. It finds what it did before in its state directory, one for each containerd namespace, and so does a runc that is
// called by hand. To stand in its place a program need only understand these few commands; the runtime option BinaryName
// (ctr's --runc-binary) names it.
//
// Hint: put a script in runc's place that writes down its arguments, and hands on.
// Spec: https://github.com/opencontainers/runtime-tools/blob/master/docs/command-line-interface.md
func TestTask_WhereIsRuncInAllThis(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Where is runc in all this?")
	w := wrapRunc(q)
	d := ctrd.Shared(q)
	id, plain := q.ID(ctrd.ContainerID), q.ID(ctrd.ContainerID+"-plain")
	ref := d.PullImage()

	q.Step("a container whose runtime writes down each of its calls: its own pid, its parent's, and the arguments")
	if strings.Contains(d.Ctr("containers", "create", "--help").Stdout, "--runc-binary") {
		d.CreateContainerWith([]string{"--runc-binary", w.path}, ref, id, "sleep", "300")
	} else {
		d.CreateContainerByClient(ctrd.ClientOptions{BinaryName: w.path}, ref, id, "sleep", "300")
	}
	assert.Check(q, cmp.Len(w.calls(q), 0), "calls of runc without a task")

	q.Step("tasks start: create, then start")
	d.StartTask(id)
	pid := d.TaskPID(id)
	proc.WaitFor(q, proc.Runs(pid, "sleep"))
	shims := d.Shims()
	assert.Assert(q, cmp.Len(shims, 1), "shims of the task")
	root := filepath.Join(d.RuncRoot, d.Namespace)
	calls := w.calls(q)
	assert.Assert(q, cmp.DeepEqual(runcCalls(calls), []string{"create", "start"}))
	create := calls[0].args
	assert.Check(q, cmp.Equal(after(create, "--root"), root))
	assert.Check(q, cmp.Equal(after(create, "--bundle"), d.Bundle(id)))
	assert.Check(q, cmp.Equal(after(create, "--pid-file"), filepath.Join(d.Bundle(id), "init.pid")))
	assert.Check(q, cmp.Equal(create[len(create)-1], id))
	q.Fact("create", calls[0])
	q.Fact("start", calls[1])

	q.Step("each thing that is done to the container is one call")
	w.expects(q, "exec", func() { d.Ctr("tasks", "exec", "--fifo-dir", d.FifoDir, "--exec-id", "second", id, "true") })
	w.expects(q, "pause", func() { d.Ctr("tasks", "pause", id) })
	w.expects(q, "resume", func() { d.Ctr("tasks", "resume", id) })

	q.Step("the shim made each of these calls, and none of them is left while the task runs")
	for _, c := range w.calls(q) {
		assert.Check(q, cmp.Equal(c.parent, shims[0]), "who called runc %s", c.operation())
		assert.Check(q, !proc.Alive(c.pid), "runc %s still runs", c.operation())
	}
	running := proc.Find(q, func(_ proc.PID, _ string, args []string) bool {
		return slices.Contains(args, id) && slices.ContainsFunc(args[:1], func(a string) bool { return filepath.Base(a) == "runc" })
	})
	assert.Check(q, cmp.Len(running, 0), "runc processes of the container")
	q.Fact("who called", w.calls(q)[0].parent)
	q.Fact("runc processes now", len(running))

	q.Step("by hand, with the same --root: runc knows the task, as the kernel does")
	r := q.Must("runc", "--root", root, "state", id)
	var state specs.State
	assert.NilError(q, json.Unmarshal([]byte(r.Stdout), &state), "%s", r)
	assert.Check(q, cmp.Equal(state.Status, specs.StateRunning))
	assert.Check(q, cmp.Equal(state.Pid, pid))
	assert.Check(q, cmp.Equal(state.Bundle, d.Bundle(id)))
	var stored struct {
		Pid   int        `json:"init_process_pid"`
		Start proc.Ticks `json:"init_process_start"`
	}
	assert.NilError(q, json.Unmarshal([]byte(file.Read(q, filepath.Join(root, id, "state.json"))), &stored))
	task := proc.Snapshot(q, pid)
	assert.Check(q, cmp.Equal(proc.PID(stored.Pid), task.PID))
	assert.Check(q, cmp.Equal(stored.Start, task.Start))
	q.Fact("runc state", []string{string(state.Status), "pid as the kernel's"})
	q.Fact("runc's --root", root)

	q.Control("a task of the plain runtime: not a single call of the wrapper")
	before := len(w.calls(q))
	d.CreateContainer(ref, plain, "sleep", "300")
	d.StartTask(plain)
	proc.WaitFor(q, proc.Runs(d.TaskPID(plain), "sleep"))
	assert.Check(q, cmp.Equal(len(w.calls(q)), before), "calls of the wrapper after a task that is not its")
	q.Fact("calls for the plain one", len(w.calls(q))-before)

	q.TearDown("the end: kill and delete are runc's, too", func() {
		w.expects(q, "kill", func() { d.Ctr("tasks", "kill", "-s", "SIGKILL", id) })
		proc.WaitFor(q, proc.Dead(task.Identity))
		proc.WaitFor(q, d.TaskStopped(id))
		before := len(w.calls(q))
		d.DeleteTask(id)
		made := w.calls(q)[before:]
		assert.Assert(q, len(made) > 0, "tasks delete called no runc")
		assert.Check(q, cmp.Equal(made[0].operation(), "delete"))
		assert.Check(q, cmp.Equal(made[0].parent, shims[0]), "who called runc delete")
		assert.Check(q, !file.Exists(filepath.Join(root, id)), "runc's state directory after delete")
		q.Fact("delete", made[0])
		q.Fact("in order", runcCalls(w.calls(q)[:before+1]))

		q.Step("containerd sees a shim go, and has it cleaned up after, in any case: that is not the shim's call")
		proc.WaitFor(q, d.HasShims(1))
		// It comes a moment later, and finds the bundle, which says which runtime it was, or not any more.
		again := "not seen"
		for _, c := range w.calls(q)[before+1:] {
			again = c.String()
			assert.Check(q, cmp.Equal(c.operation(), "delete"))
			assert.Check(q, cmp.Contains(c.args, "--force"))
			assert.Check(q, c.parent != shims[0], "the shim deletes twice")
		}
		q.Fact("delete, once more", lab.Chance(again))
	})

	q.Answer("A command that the shim calls: create, start, exec, pause, resume, kill, delete. While the task runs there is none.")
}

// recorder is a script in runc's place, which writes down how it is called.
type recorder struct{ path, log string }

// runcCall is one call of it.
type runcCall struct {
	pid, parent proc.PID
	args        []string
}

// wrapRunc writes the script. Call it before the daemon is asked for: the shim needs it as long as there is a task.
func wrapRunc(q *lab.Q) recorder {
	q.Helper()
	dir := q.Mkdir("wrapper")
	w := recorder{path: filepath.Join(dir, "runc"), log: filepath.Join(dir, "calls")}
	script := "#!/bin/sh\necho \"$$ $PPID $*\" >> " + w.log + "\nexec " + q.UnderTest("runc").Path + " \"$@\"\n"
	assert.NilError(q, os.WriteFile(w.path, []byte(script), 0o755))
	q.LogCommandAs("cat > wrapper/runc   # #!/bin/sh; echo $$ $PPID $* >> calls; exec runc \"$@\"",
		"mkdir -p wrapper && cat > wrapper/runc <<'END'\n"+script+"END\nchmod 755 wrapper/runc")
	return w
}

// calls lists the calls so far.
func (w recorder) calls(q *lab.Q) []runcCall {
	q.Helper()
	if !file.Exists(w.log) {
		return nil
	}
	var out []runcCall
	for line := range strings.Lines(file.Read(q, w.log)) {
		f := strings.Fields(line)
		out = append(out, runcCall{pid: proc.PID(check.Int(q, f[0])), parent: proc.PID(check.Int(q, f[1])), args: f[2:]})
	}
	return out
}

// expects does something, and asserts that it takes one call, of an operation.
func (w recorder) expects(q *lab.Q, operation string, act func()) {
	q.Helper()
	before := len(w.calls(q))
	act()
	made := w.calls(q)[before:]
	assert.Assert(q, cmp.DeepEqual(runcCalls(made), []string{operation}), "what the shim called")
	q.Fact(operation, made[0])
}

// operation is the first argument that is neither an option of runc's own nor such an option's value.
func (c runcCall) operation() string {
	for i, a := range c.args {
		if !strings.HasPrefix(a, "-") && (i == 0 || !slices.Contains([]string{"--root", "--log", "--log-format"}, c.args[i-1])) {
			return a
		}
	}
	return ""
}

// String is the operation and what follows it.
func (c runcCall) String() string {
	at := slices.Index(c.args, c.operation())
	return strings.Join(c.args[max(0, at):], " ")
}

func runcCalls(calls []runcCall) []string {
	out := []string{}
	for _, c := range calls {
		out = append(out, c.operation())
	}
	return out
}

// after is the value of an option.
func after(args []string, option string) string {
	if i := slices.Index(args, option); i >= 0 && i+1 < len(args) {
		return args[i+1]
	}
	return ""
}
