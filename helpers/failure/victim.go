//go:build linux

package failure

import (
	"context"
	"path/filepath"
	"slices"
	"strings"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/poll"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

const (
	// exitsWith7OnTERM is a shell script that ends with a status of its own when TERM is sent to it. It needs a
	// handler: the kernel drops a signal to pid 1 of a pid namespace for which that process has no handler.
	exitsWith7OnTERM = `trap "exit 7" TERM; sleep 3000 & wait`
	// execID is the id of the exec in each task.
	execID = "exec"
)

// Victim is a container with a task, of which one process is to be killed, or whose containerd is.
type Victim struct {
	Death
	ID string // of the container: cdb-shim-kill-running and the question's suffix

	Init, Shim proc.Process  // before the death
	Exec       *proc.Process // before the death; nil in a stopped task
	Bundle     string        // the directory that containerd makes for the task
	Socket     string        // the unix socket on which the shim listens
	StateDir   string        // the runtime's state directory of the container

	TaskWait *PendingWait // for the task, by a client that is there before the death
	ExecWait *PendingWait // for the exec, by that client; nil in a stopped task

	// Lost is set if the shim lives, and containerd does not know it any more, as after a downgrade. It has to be killed before a new task
	// can start. It may still publish the exits, as long as its retries last.
	Lost bool

	// Missed are events, as [Victim.Events] writes them, that are known to have been published before a stream
	// listened. They are listed after the received ones.
	Missed []string

	q            *lab.Q
	d            *ctrd.Daemon
	client       *containerd.Client // of the daemon that runs now
	streams      []*ctrd.Stream     // one for each daemon that has run, in order
	eventsBefore int                // how many events were received before the death
}

// NewVictim creates a container of an image and starts its task. The task runs args, by default a program that ends
// with 7 on TERM, and an exec runs beside it. If death.When is [Stopped], there is no exec, and the task has ended with
// 7. A client waits for the processes, and the events are read from the stream.
func NewVictim(q *lab.Q, d *ctrd.Daemon, image string, stream *ctrd.Stream, death Death, args ...string) *Victim {
	q.Helper()
	v := &Victim{Death: death, q: q, d: d, client: d.Client(), streams: []*ctrd.Stream{stream}}
	v.ID = q.ID("cdb-" + strings.ToLower(strings.NewReplacer(" ", "-", ",", "").Replace(death.String())))
	v.Bundle = d.Bundle(v.ID)
	v.StateDir = filepath.Join(d.RuncRoot, d.Namespace, v.ID)
	if len(args) == 0 {
		args = []string{"sh", "-c", exitsWith7OnTERM}
	}
	d.CreateContainer(image, v.ID, args...)
	task, err := v.startTask()
	assert.NilError(q, err, "start a task of %s", v.ID)
	v.Socket = d.ShimSocket(v.ID)
	v.Init = proc.Snapshot(q, proc.PID(task.Pid()))
	v.Shim = proc.Snapshot(q, v.Init.Parent)
	assert.Check(q, strings.Contains(v.Shim.Comm, "containerd-shim"), "the parent of the task's process is %q", v.Shim.Comm)
	v.TaskWait = waitInBackground(q, task)
	if death.When != Stopped {
		exec := v.startExec(task)
		v.Exec = &exec
		return v
	}
	proc.WaitFor(q, proc.Catches(v.Init.PID, v.Init.Comm, unix.SIGTERM))
	q.LogCommand("kill -TERM %d   # the program of %s", v.Init.PID, v.ID)
	assert.NilError(q, proc.Signal(v.Init.Identity, unix.SIGTERM))
	proc.WaitFor(q, d.TaskStopped(v.ID))
	v.WaitForEvent("exit init 7")
	proc.WaitFor(q, v.TaskWait.Returned())
	return v
}

// startTask makes a task of the container, without stdio, and waits until its program runs.
func (v *Victim) startTask() (containerd.Task, error) {
	v.q.Helper()
	ctx := context.Background()
	v.d.WaitForShimEnd(v.Socket) // of an earlier task
	v.q.LogCommand("ctr -n %s tasks start -d --null-io %s", v.d.Namespace, v.ID)
	c, err := v.client.LoadContainer(ctx, v.ID)
	assert.NilError(v.q, err)
	var task containerd.Task
	// After a shim dies, containerd reports no task, and yet refuses another one until it has removed the shim's
	// leftovers.
	proc.WaitFor(v.q, func(poll.LogT) poll.Result {
		if task, err = c.NewTask(ctx, cio.NullIO); errdefs.IsAlreadyExists(err) {
			return poll.Continue("containerd refuses a new task of %s: %v", v.ID, err)
		}
		return poll.Success()
	})
	if err == nil {
		err = task.Start(ctx)
	}
	if err == nil {
		proc.WaitFor(v.q, proc.Runs(proc.PID(task.Pid()), runc.ProgramName(v.d.Spec(v.ID).Process.Args[:1])))
	}
	return task, err
}

// startExec starts a second process in the task, and a client waits for it as well.
func (v *Victim) startExec(task containerd.Task) proc.Process {
	v.q.Helper()
	ctx := context.Background()
	v.q.LogCommand("ctr -n %s tasks exec -d --fifo-dir fifo --exec-id %s %s sleep 3001", v.d.Namespace, execID, v.ID)
	spec := *v.d.Spec(v.ID).Process
	spec.Args = []string{"sleep", "3001"}
	exec, err := task.Exec(ctx, execID, &spec, cio.NullIO)
	assert.NilError(v.q, err)
	assert.NilError(v.q, exec.Start(ctx))
	proc.WaitFor(v.q, proc.Runs(proc.PID(exec.Pid()), "sleep"))
	v.ExecWait = waitInBackground(v.q, exec)
	return proc.Snapshot(v.q, proc.PID(exec.Pid()))
}

// Kill sends the signal to the process by its pid, without containerd and the runtime, and waits until the process is
// dead. It calls [Victim.RememberEvents] first. The death of [Containerd] is the question's to cause.
func (v *Victim) Kill() {
	v.q.Helper()
	v.RememberEvents()
	var target proc.Identity
	switch v.Killed {
	case Shim:
		target = v.Shim.Identity
	case Exec:
		target = v.Exec.Identity
	case Init:
		target = v.Init.Identity
	default:
		v.q.Fatalf("%s: a victim cannot kill %s: kill the daemon, by ctrd.Daemon.Kill or Stop", v, v.Killed)
	}
	if v.Killed == Init && v.Signal == unix.SIGTERM {
		proc.WaitFor(v.q, proc.Catches(target.PID, v.Init.Comm, unix.SIGTERM))
	}
	v.q.LogCommand("kill -%s %d   # the %s of %s", v.SignalName(), target.PID, v.Killed, v.ID)
	assert.NilError(v.q, proc.Signal(target, v.Signal))
	proc.WaitFor(v.q, proc.Dead(target))
}

// Reconnect makes the victim use the daemon's present client, and receive events from one more stream. It is called
// after containerd was started again.
func (v *Victim) Reconnect(stream *ctrd.Stream) {
	v.client = v.d.Client()
	v.streams = append(v.streams, stream)
}

// Living returns the names of the victim's processes that are alive: [Init], [Exec], [Shim].
func (v *Victim) Living() []string {
	out := []string{}
	for _, p := range []struct {
		name string
		proc.Identity
	}{{Init, v.Init.Identity}, {Exec, v.Exec.Identity}, {Shim, v.Shim.Identity}} {
		if p.Alive() {
			out = append(out, p.name)
		}
	}
	return out
}

// HasCgroup reports whether any hierarchy has the task's cgroup.
func (v *Victim) HasCgroup() bool {
	return slices.ContainsFunc(cgroup.Of(v.q, "/"+v.d.Namespace+"/"+v.ID).Dirs(), file.Exists)
}
