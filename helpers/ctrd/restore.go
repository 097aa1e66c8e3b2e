//go:build linux

package ctrd

import (
	"context"

	"github.com/containerd/containerd/api/types/runc/options"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
)

// CreateTaskToRestore creates a task through the Go client whose start restores it from a checkpoint, by `restore` of the runtime. Until
// then the runtime is not called, and the task has no process: its pid is 0. The checkpoint is an empty directory, so CRIU cannot restore
// from it. binaryName is the runtime's program, or "" for the default.
func (d *Daemon) CreateTaskToRestore(id, binaryName string) containerd.Task {
	d.q.Helper()
	ctx := context.Background()
	o := &options.Options{BinaryName: binaryName, CriuImagePath: d.q.Mkdir("checkpoint-" + id)}
	if d.CanSetRuncRoot() {
		o.Root = d.RuncRoot
	}
	d.q.LogCommand("# Go client: NewTask of container %s, with the option CriuImagePath", id)
	container, err := d.client.LoadContainer(ctx, id)
	if err != nil {
		d.q.Fatalf("find container %s: %v", id, err)
	}
	task, err := container.NewTask(ctx, cio.NullIO, func(_ context.Context, _ *containerd.Client, t *containerd.TaskInfo) error {
		t.Options = o
		return nil
	})
	if err != nil {
		d.q.Fatalf("create a task of container %s, to restore it from a checkpoint: %v", id, err)
	}
	return task
}
