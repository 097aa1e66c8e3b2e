//go:build linux

package failure

import (
	"context"
	"fmt"
	"strings"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/status"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/poll"

	"cdblab/helpers/proc"
)

// Task returns the task as a new client finds it.
func (v *Victim) Task() (containerd.Task, error) {
	c, err := v.client.LoadContainer(context.Background(), v.ID)
	if err != nil {
		return nil, err
	}
	return c.Task(context.Background(), nil)
}

// Statuses returns what containerd reports to a new client about the task and the exec: "RUNNING", "STOPPED 7" with the
// exit status, "no task", "none" for the exec of a task that has none, or "error (Unavailable)" with the kind of error.
func (v *Victim) Statuses() (task, exec string) {
	t, err := v.Task()
	if errdefs.IsNotFound(err) {
		return "no task", "no task"
	}
	if err != nil {
		return errorKind(err), errorKind(err)
	}
	task, exec = processStatus(t), "none"
	if v.Exec != nil {
		if p, err := t.LoadProcess(context.Background(), execID, nil); err != nil {
			exec = errorKind(err)
		} else {
			exec = processStatus(p)
		}
	}
	return task, exec
}

func processStatus(p containerd.Process) string {
	s, err := p.Status(context.Background())
	switch {
	case err != nil:
		return errorKind(err)
	case s.Status == containerd.Stopped:
		return fmt.Sprintf("STOPPED %d", s.ExitStatus)
	}
	return strings.ToUpper(string(s.Status))
}

// errorKind returns the gRPC code of an error: "error (Unavailable)". The text of the error is not compared, because it
// depends on which part of the client noticed first that the connection was lost.
func errorKind(err error) string { return fmt.Sprintf("error (%v)", status.Code(errgrpc.ToGRPC(err))) }

// WaitUntilReported waits until containerd reports about the task what the kernel shows: containerd has a task if the
// shim is alive, and a process of the task is running if it is alive.
func (v *Victim) WaitUntilReported() {
	v.q.Helper()
	proc.WaitFor(v.q, func(poll.LogT) poll.Result {
		task, exec := v.Statuses()
		hasTask := task != "no task"
		agree := hasTask == v.Shim.Alive()
		if hasTask {
			agree = agree && (task == "RUNNING") == v.Init.Alive()
			agree = agree && (v.Exec == nil || (exec == "RUNNING") == v.Exec.Alive())
		}
		if !agree {
			return poll.Continue("%s: containerd reports task %s, exec %s; the shim is %s, init is %s", v.ID, task, exec,
				aliveOrDead(v.Shim.Identity), aliveOrDead(v.Init.Identity))
		}
		return poll.Success()
	})
}

// tryExec starts another exec in the task. It returns "works" for an exec that ends with 0, "ends with 1" for another
// exit status, "refused", or "no task".
func (v *Victim) tryExec() string {
	v.q.Helper()
	ctx := context.Background()
	task, err := v.Task()
	if errdefs.IsNotFound(err) {
		return "no task"
	}
	assert.NilError(v.q, err)
	v.q.LogCommand("ctr -n %s tasks exec --fifo-dir fifo --exec-id again %s true", v.d.Namespace, v.ID)
	spec := *v.d.Spec(v.ID).Process
	spec.Args = []string{"true"}
	exec, err := task.Exec(ctx, "again", &spec, cio.NullIO)
	if err == nil {
		err = exec.Start(ctx)
	}
	if err != nil {
		v.q.Logf("%s: another exec: %v", v, err)
		return "refused"
	}
	wait := waitInBackground(v.q, exec)
	proc.WaitFor(v.q, wait.Returned())
	if got := wait.Result(); got != "0" {
		return "ends with " + got
	}
	_, err = exec.Delete(ctx)
	assert.Check(v.q, err)
	return "works"
}

// tryNewTask makes a new task of the container. It returns what had to be done before: "possible" for nothing, "after
// delete" or "after kill, delete" of the old task, "after the shim's end" for a shim that is lost; or "refused".
func (v *Victim) tryNewTask() string {
	v.q.Helper()
	ctx := context.Background()
	result := "possible"
	if v.Lost {
		result = "after the shim's end"
		v.q.KillProcess(v.Shim)
		proc.WaitFor(v.q, proc.Dead(v.Shim.Identity))
	}
	if task, err := v.Task(); err == nil {
		result = "after delete"
		if v.Init.Alive() {
			result = "after kill, delete"
			wait := waitInBackground(v.q, task)
			v.q.LogCommand("ctr -n %s tasks kill -s SIGKILL %s", v.d.Namespace, v.ID)
			assert.NilError(v.q, task.Kill(ctx, unix.SIGKILL))
			proc.WaitFor(v.q, wait.Returned())
			assert.Check(v.q, cmp.Equal(wait.Result(), "137"), "%s: what a new client's Wait returns after the kill", v)
		}
		v.q.LogCommand("ctr -n %s tasks delete %s", v.d.Namespace, v.ID)
		_, err := task.Delete(ctx)
		assert.NilError(v.q, err)
		proc.WaitFor(v.q, proc.Dead(v.Shim.Identity))
	}
	task, err := v.startTask()
	if err != nil {
		v.q.Logf("%s: a new task: %v", v, err)
		return "refused"
	}
	next := proc.Snapshot(v.q, proc.PID(task.Pid()))
	assert.Check(v.q, !next.Same(v.Init.Identity), "%s: the process of the new task is the old task's", v)
	assert.Check(v.q, next.Parent != v.Shim.PID, "%s: the shim of the new task is the old task's", v)
	return result
}
