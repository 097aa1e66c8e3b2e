//go:build linux && vmlab

package cdblab

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/status"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/poll"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// What a client of containerd's is told after a death, and what it can still do; against what the kernel shows.

// task is the task as a client finds it that has come after the death.
func (m *mortal) task() (containerd.Task, error) {
	c, err := m.now.LoadContainer(context.Background(), m.id)
	if err != nil {
		return nil, err
	}
	return c.Task(context.Background(), nil)
}

// sees is what that client is told of the task and of the exec: "RUNNING", "STOPPED 7", "no task".
func (m *mortal) sees() (task, exec string) {
	t, err := m.task()
	if errdefs.IsNotFound(err) {
		return "no task", "no task"
	}
	if err != nil {
		return errorWord(err), errorWord(err)
	}
	task, exec = statusWord(t), "none"
	if m.exec != nil {
		if p, err := t.LoadProcess(context.Background(), execID, nil); err != nil {
			exec = errorWord(err)
		} else {
			exec = statusWord(p)
		}
	}
	return task, exec
}

func statusWord(p containerd.Process) string {
	s, err := p.Status(context.Background())
	switch {
	case err != nil:
		return errorWord(err)
	case s.Status == containerd.Stopped:
		return fmt.Sprintf("STOPPED %d", s.ExitStatus)
	}
	return strings.ToUpper(string(s.Status))
}

// errorWord is what kind of error it is; how it is worded hangs on who noticed first.
func errorWord(err error) string { return fmt.Sprintf("error (%v)", status.Code(errgrpc.ToGRPC(err))) }

// settle waits until containerd says of the task what the kernel shows: it has a task if there is a shim, and a process
// runs if it is alive.
func (m *mortal) settle() {
	m.q.Helper()
	proc.WaitFor(m.q, func(poll.LogT) poll.Result {
		task, exec := m.sees()
		known := task != "no task"
		agree := known == alive(m.shim.Identity)
		if known {
			agree = agree && (task == "RUNNING") == alive(m.init.Identity)
			agree = agree && (m.exec == nil || (exec == "RUNNING") == alive(m.exec.Identity))
		}
		if !agree {
			return poll.Continue("%s: containerd says task %s, exec %s; shim is %s, init is %s", m.id, task, exec,
				aliveOrDead(m.shim.Identity), aliveOrDead(m.init.Identity))
		}
		return poll.Success()
	})
}

func alive(id proc.Identity) bool { return !proc.Dead(id)(nil).Done() }

func aliveOrDead(id proc.Identity) string {
	if alive(id) {
		return "alive"
	}
	return "dead"
}

func thereOrGone(there bool) string {
	if there {
		return "there"
	}
	return "gone"
}

func (m *mortal) hasCgroup() bool {
	return slices.ContainsFunc(cgroup.Of(m.q, "/"+m.d.Namespace+"/"+m.id).Dirs(), file.Exists)
}

// tryExec says what comes of an exec after the death.
func (m *mortal) tryExec() string {
	m.q.Helper()
	ctx := context.Background()
	task, err := m.task()
	if errdefs.IsNotFound(err) {
		return "no task"
	}
	assert.NilError(m.q, err)
	m.q.LogCommand("ctr -n %s tasks exec --fifo-dir fifo --exec-id again %s true", m.d.Namespace, m.id)
	spec := *m.d.Spec(m.id).Process
	spec.Args = []string{"true"}
	p, err := task.Exec(ctx, "again", &spec, cio.NullIO)
	if err == nil {
		err = p.Start(ctx)
	}
	if err != nil {
		return "refused"
	}
	w := waitFor(m.q, p)
	proc.WaitFor(m.q, w.over)
	if got := w.said(); got != "0" {
		return "ends with " + got
	}
	_, err = p.Delete(ctx)
	assert.Check(m.q, err)
	return "works"
}

// again makes a new task of the container, and says what that took.
func (m *mortal) again() string {
	m.q.Helper()
	ctx := context.Background()
	took := "at once"
	if task, err := m.task(); err == nil {
		took = "after delete"
		if alive(m.init.Identity) {
			took = "after kill, delete"
			w := waitFor(m.q, task)
			m.q.LogCommand("ctr -n %s tasks kill -s SIGKILL %s", m.d.Namespace, m.id)
			assert.NilError(m.q, task.Kill(ctx, unix.SIGKILL))
			proc.WaitFor(m.q, w.over)
			assert.Check(m.q, cmp.Equal(w.said(), "137"), "a new client's Wait, in the end")
		}
		m.q.LogCommand("ctr -n %s tasks delete %s", m.d.Namespace, m.id)
		_, err := task.Delete(ctx)
		assert.NilError(m.q, err)
		proc.WaitFor(m.q, proc.Dead(m.shim.Identity))
	}
	task, err := m.startTask()
	if err != nil {
		m.q.Logf("%s: a new task: %v", m, err)
		return "refused"
	}
	next := proc.Snapshot(m.q, proc.PID(task.Pid()))
	assert.Check(m.q, !next.Same(m.init.Identity))
	assert.Check(m.q, next.Parent != m.shim.PID, "the old shim is the new task's")
	return took
}

// waiting is a client's Wait, under way.
type waiting struct {
	mu  sync.Mutex
	got string
	err error
}

// waitFor waits for a process in the background.
func waitFor(q *lab.Q, p containerd.Process) *waiting {
	q.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	q.TB.Cleanup(cancel)
	ended, err := p.Wait(ctx)
	assert.NilError(q, err)
	w := &waiting{}
	go func() {
		s := <-ended
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.got, w.err = fmt.Sprint(s.ExitCode()), s.Error(); w.err != nil {
			w.got = errorWord(w.err)
		}
	}()
	return w
}

// said is the exit status that Wait returned, or its error; "waiting" as long as it has not returned.
func (w *waiting) said() string {
	if w == nil {
		return "none"
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.got == "" {
		return "waiting"
	}
	return w.got
}

// over is a poll check: Wait has returned.
func (w *waiting) over(poll.LogT) poll.Result {
	if w.said() == "waiting" {
		return poll.Continue("a client still waits")
	}
	return poll.Success()
}

// failed is the error with which Wait has returned; nil for an exit status.
func (w *waiting) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}
