//go:build linux

package ctrd

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/errdefs"
	"gotest.tools/v3/poll"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// StartTask types `ctr tasks start -d ID`, with the option that keeps its FIFOs out of /run/containerd/fifo.
func (d *Daemon) StartTask(id string) lab.Result {
	d.q.Helper()
	r := d.TryStartTask(id)
	if r.Code != 0 {
		d.q.Fatalf("this command had to succeed:\n%s", r)
	}
	return r
}

// TryStartTask is [Daemon.StartTask] with more options of ctr, and returns its result, whatever its exit code is. It repeats the command
// where `shim start` was too late to find the group's shim, and could not unlink its socket: [Daemon.PinSocket].
func (d *Daemon) TryStartTask(id string, options ...string) lab.Result {
	d.q.Helper()
	argv := slices.Concat([]string{"tasks", "start", "-d", "--fifo-dir", d.FifoDir}, options, []string{id})
	for tries := 1; ; tries++ {
		r := d.TryCtr(argv...)
		if tries == 50 || !strings.Contains(r.Stderr, "remove pre-existing socket") {
			return r
		}
		d.RemoveFIFOs(id)
	}
}

// StartTaskAndWait starts a task, waits until its program, a sleep, runs, and returns the program's process.
func (d *Daemon) StartTaskAndWait(id string) proc.Process {
	d.q.Helper()
	d.StartTask(id)
	pid := d.TaskPID(id)
	proc.WaitFor(d.q, proc.Runs(pid, "sleep"))
	return proc.Snapshot(d.q, pid)
}

// StartTaskAndWaitForEvent is [Daemon.StartTaskAndWait], and also waits until the stream has received the start event.
func (d *Daemon) StartTaskAndWaitForEvent(stream *Stream, id string) proc.Process {
	d.q.Helper()
	before := len(FilterTopics(stream.Events(), "/tasks/start"))
	task := d.StartTaskAndWait(id)
	proc.WaitFor(d.q, stream.Received("/tasks/start", before+1))
	return task
}

// Task returns the task of a container, as the Go client represents it.
func (d *Daemon) Task(id string) containerd.Task {
	d.q.Helper()
	task, err := d.findTask(context.Background(), id)
	if err != nil {
		d.q.Fatal(err)
	}
	return task
}

func (d *Daemon) findTask(ctx context.Context, id string) (containerd.Task, error) {
	container, err := d.client.LoadContainer(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("find container %s: %w", id, err)
	}
	task, err := container.Task(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("find the task of container %s: %w", id, err)
	}
	return task, nil
}

// TaskPID returns the process of a container's task, from the file init.pid that the runtime writes into the bundle.
func (d *Daemon) TaskPID(id string) proc.PID {
	d.q.Helper()
	path := filepath.Join(d.Bundle(id), "init.pid")
	data, err := os.ReadFile(path)
	if err != nil {
		d.q.Fatalf("read the pid of the task of %s: %v", id, err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		d.q.Fatalf("read the pid of the task of %s: %s has %q, want a pid", id, path, data)
	}
	return proc.PID(pid)
}

// TaskStatus returns the status that containerd reports of a task to a program.
func (d *Daemon) TaskStatus(id string) containerd.Status {
	d.q.Helper()
	status, err := d.Task(id).Status(context.Background())
	if err != nil {
		d.q.Fatalf("ask containerd for the status of the task of %s: %v", id, err)
	}
	return status
}

// TaskStopped returns a check that succeeds when containerd reports the task of a container as stopped. The shim
// reports the end of the task to containerd a moment after the kernel shows it. Until then containerd refuses to delete
// the task.
func (d *Daemon) TaskStopped(id string) poll.Check {
	return func(poll.LogT) poll.Result {
		ctx := context.Background()
		task, err := d.findTask(ctx, id)
		var status containerd.Status
		if err == nil {
			status, err = task.Status(ctx)
		}
		if errdefs.IsDeadlineExceeded(err) { // containerd gives a shim a limited time to answer: 2 s by default, 2 minutes here
			return poll.Continue("ask containerd for the status of the task of %s: %v", id, err)
		}
		if err != nil {
			return poll.Error(err)
		}
		if status.Status != containerd.Stopped {
			return poll.Continue("containerd reports the task of %s as %s, want %s", id, status.Status, containerd.Stopped)
		}
		return poll.Success()
	}
}

// DeleteTask deletes a task, and waits until its shim has ended, or serves only other tasks. If that fails, the failure shows the list of
// tasks; nothing is forced.
func (d *Daemon) DeleteTask(id string) {
	d.q.Helper()
	bootstrap, _ := readBootstrap(d.Bundle(id))
	if r := d.TryCtr("tasks", "delete", id); r.Code != 0 {
		d.q.Fatalf("the task cannot be deleted:\n%s\n%s", r, d.TryCtr("tasks", "ls"))
	}
	d.WaitForShimEnd(bootstrap.socket())
}

// WaitForShimEnd waits until the shim that listens on a socket has ended, if no bundle names the socket: then its last task is deleted.
// containerd does not wait for that. A new task of the same id would find the shim at the socket as it ends, and fail.
func (d *Daemon) WaitForShimEnd(socket string) {
	d.q.Helper()
	for _, bundle := range d.bundles() {
		if b, err := readBootstrap(bundle); err == nil && b.socket() == socket {
			return
		}
	}
	proc.WaitFor(d.q, proc.HasNoListener(d.q, socket))
}

// KillAndDeleteTask kills the process of a task, waits until containerd reports the task as stopped, and deletes it.
func (d *Daemon) KillAndDeleteTask(id string) {
	d.q.Helper()
	d.Ctr("tasks", "kill", "-s", "SIGKILL", id)
	proc.WaitFor(d.q, d.TaskStopped(id))
	d.DeleteTask(id)
}

// PauseTask pauses a task, and retries as runc.Container.TryPause does: the freezer of cgroup v1 may miss a process
// that is busy at that moment. A frozen process cannot be killed, so the task is resumed if the question ends while it
// is paused.
func (d *Daemon) PauseTask(id string) {
	d.q.Helper()
	g := cgroup.Of(d.q, "/"+d.Namespace+"/"+id)
	d.q.Cleanup(func() {
		if g.Frozen() {
			d.TryCtr("tasks", "resume", id)
		}
	})
	r := d.TryCtr("tasks", "pause", id)
	for range 50 {
		if r.Code == 0 || !strings.Contains(r.Stderr, "unable to freeze") {
			break
		}
		r = d.TryCtr("tasks", "pause", id)
	}
	if r.Code != 0 {
		d.q.Fatalf("this command had to succeed:\n%s", r)
	}
}
