//go:build linux && vmlab

package cdblab

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	eventsapi "github.com/containerd/containerd/api/events"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/poll"

	"cdblab/helpers/ctrd"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// Death and restart as a table: who is killed, by which signal and when, and what remains. Four rooms of the chapter
// (task_daemon, task_shim, task_program, task_down) each fill the columns of their deaths; see death_table_test.go.

// death is a column of the table.
type death struct {
	who    string // containerd, shim, init or exec
	signal unix.Signal
	when   string // running, stopped or down: of the task, and of containerd
}

func (x death) String() string { return fmt.Sprintf("%s %s, %s", x.who, x.name(), x.when) }

func (x death) name() string { return strings.TrimPrefix(unix.SignalName(x.signal), "SIG") }

const (
	// endsWith7 is a program that ends with a status of its own when it is told to: pid 1 hears of TERM only what it
	// has a handler for.
	endsWith7 = `trap "exit 7" TERM; sleep 3000 & wait`
	execID    = "exec"
)

// mortal is a container with a task, of which something is to be killed.
type mortal struct {
	death
	q  *lab.Q
	d  *ctrd.Daemon
	id string

	init, shim proc.Process
	exec       *proc.Process // nil in a stopped task
	bundle     string
	socket     string
	state      string // the runtime's directory
	ears       []*ctrd.Stream
	before     int      // so many events were heard before the death
	unheard    []string // events that are known to have been sent before this client could listen
	once       bool     // a shim that tries again may tell twice: count what it tells once

	wait, execWait *waiting // of the client that was there before
	now            *containerd.Client
}

// newMortal makes a container and its task, which runs args, with an exec beside it, or is stopped, with status 7. A
// client waits for both, another listens.
func newMortal(q *lab.Q, d *ctrd.Daemon, ref string, ear *ctrd.Stream, x death, args ...string) *mortal {
	q.Helper()
	m := &mortal{death: x, q: q, d: d, now: d.Client(), ears: []*ctrd.Stream{ear}}
	m.id = q.ID("cdb-" + strings.ToLower(strings.NewReplacer(" ", "-", ",", "").Replace(x.String())))
	m.bundle = d.Bundle(m.id)
	m.state = filepath.Join(d.RuncRoot, d.Namespace, m.id)
	if len(args) == 0 {
		args = []string{"sh", "-c", endsWith7}
	}
	d.CreateContainer(ref, m.id, args...)
	task, err := m.startTask()
	assert.NilError(q, err, "start a task of %s", m.id)
	m.socket = d.ShimSocket(m.id)
	m.init = proc.Snapshot(q, proc.PID(task.Pid()))
	m.shim = proc.Snapshot(q, m.init.Parent)
	assert.Check(q, strings.Contains(m.shim.Comm, "containerd-shim"), "the parent of the task's process is %q", m.shim.Comm)
	m.wait = waitFor(q, task)
	if x.when != "stopped" {
		e := m.startExec(task)
		m.exec = &e
		return m
	}
	proc.WaitFor(q, proc.Catches(m.init.PID, unix.SIGTERM))
	q.LogCommand("kill -TERM %d   # the program of %s", m.init.PID, m.id)
	assert.NilError(q, unix.Kill(int(m.init.PID), unix.SIGTERM))
	proc.WaitFor(q, d.TaskStopped(m.id))
	m.waitForEvent("exit init 7")
	proc.WaitFor(q, m.wait.over)
	return m
}

// startTask makes a task of the container, without stdio, and waits until its program runs.
func (m *mortal) startTask() (containerd.Task, error) {
	m.q.Helper()
	ctx := context.Background()
	m.q.LogCommand("ctr -n %s tasks start -d --null-io %s", m.d.Namespace, m.id)
	c, err := m.now.LoadContainer(ctx, m.id)
	assert.NilError(m.q, err)
	var task containerd.Task
	// Of a task whose shim is dead containerd says that there is none, and yet it refuses another one until what the
	// shim has left is cleaned up.
	proc.WaitFor(m.q, func(poll.LogT) poll.Result {
		if task, err = c.NewTask(ctx, cio.NullIO); errdefs.IsAlreadyExists(err) {
			return poll.Continue("containerd refuses a new task of %s: %v", m.id, err)
		}
		return poll.Success()
	})
	if err == nil {
		err = task.Start(ctx)
	}
	if err == nil {
		proc.WaitFor(m.q, proc.Runs(proc.PID(task.Pid()), runc.ProgramName(m.d.Spec(m.id).Process.Args[:1])))
	}
	return task, err
}

// startExec leaves a second process in the task, for which a client waits as well.
func (m *mortal) startExec(task containerd.Task) proc.Process {
	m.q.Helper()
	ctx := context.Background()
	m.q.LogCommand("ctr -n %s tasks exec -d --fifo-dir fifo --exec-id %s %s sleep 3001", m.d.Namespace, execID, m.id)
	spec := *m.d.Spec(m.id).Process
	spec.Args = []string{"sleep", "3001"}
	p, err := task.Exec(ctx, execID, &spec, cio.NullIO)
	assert.NilError(m.q, err)
	assert.NilError(m.q, p.Start(ctx))
	proc.WaitFor(m.q, proc.Runs(proc.PID(p.Pid()), "sleep"))
	m.execWait = waitFor(m.q, p)
	return proc.Snapshot(m.q, proc.PID(p.Pid()))
}

// remember notes how many events came before the death. What a shim has to tell may lag behind what it has done.
func (m *mortal) remember() {
	m.q.Helper()
	m.before = len(m.events())
}

// die sends the signal, past containerd and the runtime, and waits until its victim is dead.
func (m *mortal) die() {
	m.q.Helper()
	m.remember()
	victim := m.init.Identity
	switch m.who {
	case "shim":
		victim = m.shim.Identity
	case "exec":
		victim = m.exec.Identity
	}
	if m.who == "init" && m.signal == unix.SIGTERM {
		proc.WaitFor(m.q, proc.Catches(victim.PID, unix.SIGTERM))
	}
	m.q.LogCommand("kill -%s %d   # the %s of %s", m.name(), victim.PID, m.who, m.id)
	assert.NilError(m.q, unix.Kill(int(victim.PID), m.signal))
	proc.WaitFor(m.q, proc.Dead(victim))
}

// waitForEvent waits until an event of the container has come that begins so, as the table writes it.
func (m *mortal) waitForEvent(begins string) {
	m.q.Helper()
	proc.WaitFor(m.q, func(poll.LogT) poll.Result {
		got := m.events()
		if !slices.ContainsFunc(got, func(e string) bool { return strings.HasPrefix(e, begins) }) {
			return poll.Continue("events of %s: %q, and no %q yet", m.id, got, begins)
		}
		return poll.Success()
	})
}

// events lists what was told of the task and its processes, but for their beginning.
func (m *mortal) events() []string {
	var out []string
	for _, ear := range m.ears {
		for _, e := range ear.Events() {
			body, _ := json.Marshal(e.Body)
			switch b := e.Body.(type) {
			case *eventsapi.TaskCreate, *eventsapi.TaskStart, *eventsapi.TaskExecAdded, *eventsapi.TaskExecStarted:
			case *eventsapi.TaskExit:
				if b.ContainerID == m.id {
					out = append(out, fmt.Sprintf("exit %s %d", strings.Replace(b.ID, m.id, "init", 1), b.ExitStatus))
				}
			case *eventsapi.TaskDelete:
				if b.ContainerID == m.id {
					out = append(out, fmt.Sprintf("delete %d", b.ExitStatus))
				}
			default:
				if strings.HasPrefix(e.Topic, "/tasks/") && strings.Contains(string(body), m.id) {
					out = append(out, e.Topic)
				}
			}
		}
	}
	if out = append(out, m.unheard...); m.once {
		out = slices.Compact(out)
	}
	return out
}
