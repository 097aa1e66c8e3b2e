//go:build linux && vmlab

package cdblab

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/oci"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/ctrd"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/retry"
)

// While runc creates a container slowly, an exec into another task of the same shim returns as usual. Before containerd 2.3.2 it does not:
// each call to the shim waits until runc has returned.
//
// A pod has one shim, which serves the calls for all of its containers. The shim has a list of the containers, with a lock. Before 2.3.2,
// the shim keeps the lock while `runc create` runs. So a create that waits for a slow disk or for a hook also delays an exec into
// another container, such as a liveness probe, and its pause, kill and delete. A task with another shim is not delayed in any version.
//
// Hint: put a program in place of runc that waits before it executes runc (the runtime option BinaryName).
// Spec: https://github.com/containerd/containerd/blob/v2.3.1/cmd/containerd-shim-runc-v2/task/service.go, the lock that Create holds
func TestTask_DoesASlowRuntimeHoldUpTheOtherTasks(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Does a slow runtime hold up the other tasks?")
	defer q.Recover()
	const groupKey = "io.containerd.runc.v2.group"
	var socket string
	q.Cleanup(func() { removeStaleSocket(q, socket) }) // registered before the daemon's cleanup, so that it runs when no task is left
	d := ctrd.Shared(q)
	ref := d.PullImage()
	first, slow, other := q.ID(ctrd.ContainerID), q.ID(ctrd.ContainerID+"-slow"), q.ID(ctrd.ContainerID+"-other")
	group := q.ID("cdb-slow")
	socket = filepath.Join(d.SocketDir, d.SocketName(group))
	inGroup := []oci.SpecOpts{oci.WithAnnotations(map[string]string{groupKey: group})}

	q.Step("start two tasks: one in a shim that serves a group, and one in a shim of its own")
	d.CreateContainerByClient(ctrd.ClientOptions{Spec: inGroup}, ref, first, "sleep", "3600")
	task := d.StartTaskAndWait(first)
	d.CreateContainerByClient(ctrd.ClientOptions{}, ref, other, "sleep", "3600")
	apart := d.StartTaskAndWait(other)
	assert.Check(q, task.Parent != apart.Parent, "both tasks have one shim")
	unpin := d.PinSocket(socket)

	q.Step("create another task of the group, with a runtime that waits before it does anything")
	held := q.Mkdir("held")
	waiting, released := filepath.Join(held, "waiting"), filepath.Join(held, "released")
	slowRunc := q.WriteWrapper("runc-slow", `case " $* " in *" create "*) touch `+waiting+`; while [ ! -e `+released+` ]; do sleep 0.02; done;; esac
exec "$RUNC" "$@"`)
	release := func() { assert.NilError(q, os.WriteFile(released, nil, 0o644)) }
	q.Cleanup(release) // a question that fails leaves no program behind that waits
	d.CreateContainerByClient(ctrd.ClientOptions{BinaryName: slowRunc, Spec: inGroup}, ref, slow, "sleep", "3600")
	var starting *lab.Background
	for tries := 1; ; tries++ {
		starting = q.StartBackground("ctr", "-n", d.Namespace, "tasks", "start", "-d", "--fifo-dir", d.FifoDir, slow)
		retry.Until(proc.Patience, func() bool { return file.Exists(waiting) || starting.Ended() })
		if file.Exists(waiting) || tries == 50 || !strings.Contains(starting.Stderr(), "remove pre-existing socket") {
			break
		}
		d.RemoveFIFOs(slow) // the helper took the living shim for dead, and the socket was not removed: see PinSocket
	}
	assert.Assert(q, file.Exists(waiting), "the slow runtime was not called: %s", starting.Stderr())

	// An older shim does not answer at all before the runtime returns, so there is no reason to wait for long.
	holdsUp, patience := q.UnderTest("containerd-shim-runc-v2").Precedes("2.3.2"), proc.Patience
	if holdsUp {
		patience = 2 * time.Second
	}
	// execInto executes a program in a task, and reports whether ctr has returned before the slow runtime does.
	execInto := func(id string, patience time.Duration) (command *lab.Background, returned bool) {
		q.Helper()
		command = q.StartBackground("ctr", "-n", d.Namespace, "tasks", "exec", "--fifo-dir", d.FifoDir, "--exec-id", "probe", id, "true")
		return command, retry.Until(patience, command.Ended)
	}
	q.Step("execute a program in the other task of the shim, while the runtime waits: ctr returns, or waits as well before containerd 2.3.2")
	probe, returned := execInto(first, patience)
	if holdsUp {
		assert.Check(q, !returned, "an exec into a task has returned while the runtime of another task is slow: a shim before 2.3.2 waits")
	} else {
		assert.Check(q, returned, "an exec into a task has not returned after %v, while the runtime of another task is slow", patience)
	}
	assert.Check(q, !starting.Ended(), "the slow runtime has returned already: %s", starting.Stderr())
	q.Fact("exec into another task of the shim: returns before the slow runtime", returned)

	q.Control("execute a program in a task that has another shim: ctr returns in any case")
	probeApart, returnedApart := execInto(other, proc.Patience)
	assert.Check(q, returnedApart, "an exec into a task of another shim has not returned after %v", proc.Patience)
	assert.Check(q, cmp.Equal(probeApart.ExitCode(), 0), probeApart.Stderr())
	q.Fact("exec into a task of another shim: returns before the slow runtime", returnedApart)

	q.Step("let the runtime go on: the task is created, and what has waited returns")
	q.LogCommand("touch %s", released)
	release()
	assert.Check(q, cmp.Equal(starting.ExitCode(), 0), starting.Stderr())
	assert.Check(q, cmp.Equal(probe.ExitCode(), 0), probe.Stderr())
	pid := d.TaskPID(slow)
	proc.WaitFor(q, proc.Runs(pid, "sleep"))
	assert.Check(q, cmp.Equal(proc.Snapshot(q, pid).Parent, task.Parent), "the parent of the slow task: the shim of the group")
	q.Fact("shim of the slow task: that of the group", proc.Snapshot(q, pid).Parent == task.Parent)

	q.TearDown("delete the tasks", func() {
		unpin()
		for _, id := range []string{slow, first, other} {
			d.KillAndDeleteTask(id)
		}
		proc.WaitFor(q, d.HasShims(0))
	})
	q.Answer("While runc creates a container slowly, an exec into another task of the same shim returns as usual. Before containerd 2.3.2 each " +
		"call to that shim waits until runc has returned.")
}
