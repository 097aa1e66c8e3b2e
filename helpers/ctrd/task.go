//go:build linux

package ctrd

import (
	"context"
	"path/filepath"
	"strings"

	containerd "github.com/containerd/containerd/v2/client"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/poll"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/image"
	"cdblab/helpers/proc"
)

// PullImage pulls the lab's image through a registry on loopback, under the chapter's name for it, and returns that
// name.
func (d *Daemon) PullImage() string {
	d.q.Helper()
	ref, ours := d.q.Image()
	if !ours {
		d.Ctr("images", "pull", ref)
		return ref
	}
	registry := image.Serve(d.q)
	d.Ctr("images", "pull", "--hosts-dir", registry.HostsDir(d.q), ref) // the daemon reads it, in a directory of its own
	// The layer itself is fetched once, and shared by all containerd namespaces.
	asked := registry.Requests()
	assert.Check(d.q, cmp.Contains(asked, "HEAD /v2/library/busybox/manifests/latest"), "asked of the registry on loopback")
	d.q.Fact("image served from", "loopback")
	return ref
}

// PullImageAgain pulls, in another containerd namespace, an image that [Daemon.PullImage] has pulled.
func (d *Daemon) PullImageAgain(ref string) {
	d.q.Helper()
	argv := []string{"images", "pull"}
	if _, ours := d.q.Image(); ours {
		// The registry of the first pull serves until the question ends.
		argv = append(argv, "--hosts-dir", filepath.Join(d.q.Dir, "hosts"))
	}
	d.Ctr(append(argv, ref)...)
}

// DeleteTask deletes a task. If that fails, the failure shows the list of tasks; nothing is forced.
func (d *Daemon) DeleteTask(id string) {
	d.q.Helper()
	if r := d.TryCtr("tasks", "delete", id); r.Code != 0 {
		d.q.Fatalf("the task cannot be deleted:\n%s\n%s", r, d.TryCtr("tasks", "ls"))
	}
}

// KillAndDeleteTask kills the process of a task, waits until containerd reports it as stopped, and deletes the task.
func (d *Daemon) KillAndDeleteTask(id string) {
	d.q.Helper()
	d.Ctr("tasks", "kill", "-s", "SIGKILL", id)
	proc.WaitFor(d.q, d.TaskStopped(id))
	d.DeleteTask(id)
}

// PauseTask pauses a task, and retries as [runc.Container.TryPause] does. A frozen process cannot be killed, so the task is
// resumed if the question ends before it is.
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

// HasShims returns a check that succeeds when the question has n shims.
func (d *Daemon) HasShims(n int) poll.Check {
	return func(poll.LogT) poll.Result {
		if got := d.Shims(); len(got) != n {
			return poll.Continue("%d shims: %v, want %d", len(got), got, n)
		}
		return poll.Success()
	}
}

// TaskStatus asks containerd for the state of a task, as a program does.
func (d *Daemon) TaskStatus(id string) containerd.Status {
	d.q.Helper()
	status, err := d.Task(id).Status(context.Background())
	if err != nil {
		d.q.Fatalf("ask containerd for the status of the task of %s: %v", id, err)
	}
	return status
}

// StartTaskAndWait starts a task, waits until its program, a sleep, runs, and returns the program's process.
func (d *Daemon) StartTaskAndWait(id string) proc.Process {
	d.q.Helper()
	d.StartTask(id)
	pid := d.TaskPID(id)
	proc.WaitFor(d.q, proc.Runs(pid, "sleep"))
	return proc.Snapshot(d.q, pid)
}
