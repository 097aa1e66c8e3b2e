//go:build linux

package ctrd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/poll"

	"cdblab/helpers/host"
	"cdblab/helpers/proc"
	"cdblab/helpers/retry"
	"cdblab/helpers/slowness"
)

// cleanUp deletes what the question has left in the daemon. It stops the daemon if the daemon is the question's own.
func (d *Daemon) cleanUp() {
	if err := d.startForCleanUp(); err != nil {
		d.q.Errorf("start containerd again, to delete the tasks that the question has left: %v", err)
		d.endTasksWithoutDaemon()
	}
	if !d.shared && !d.runs() {
		d.removeDaemonSockets()
		d.removeLostSockets()
		return
	}
	if d.client != nil { // otherwise the daemon never answered
		if err := d.deleteLeftovers(); err != nil {
			d.q.Errorf("delete what the question left in containerd: %v; the end of containerd's log:\n%s", err, d.endOfLog())
		}
	}
	// A shim ends a moment after its last task is deleted.
	if !retry.Until(proc.Patience, func() bool { return len(d.Shims()) == 0 }) {
		d.q.Errorf("shims of the question still run: %v", d.Shims()) // and no more: the daemon has to be stopped
	}
	if d.shared {
		return
	}
	if err := d.server.stop(); err != nil {
		d.q.Error(err)
	}
	d.removeDaemonSockets()
	d.removeLostSockets()
}

// removeDaemonSockets removes the sockets of a private daemon that has ended. A daemon that was killed leaves both. containerd 2.2.3 and
// older ones always leave the socket on which shims publish events. What a daemon leaves is not what the question has left.
func (d *Daemon) removeDaemonSockets() {
	for _, path := range []string{d.Address, d.Address + ".ttrpc"} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			d.q.Error(err)
		}
	}
}

// removeLostSockets removes the sockets of shims that have ended, from the directory of a private daemon. A shim that ends removes its
// socket. To find it, it reads a link in its bundle, and containerd, which has told it to end, does not wait before it removes the bundle.
// Where the shim is slower, the link is gone, it looks in containerd's default directory, and its socket stays.
//
// https://github.com/containerd/containerd/blob/v2.4.2/pkg/shim/util_unix.go#L296
func (d *Daemon) removeLostSockets() {
	if d.SocketDir == defaultSocketDir { // the shim finds it, and there are sockets that are not the lab's
		return
	}
	sockets, err := filepath.Glob(filepath.Join(d.SocketDir, "*"))
	if err != nil {
		d.q.Error(err)
	}
	var removed []string
	for _, path := range sockets {
		ended := retry.Until(proc.Patience, func() bool { return !proc.HasListener(d.q, path) })
		if ended {
			removed = append(removed, filepath.Base(path))
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				d.q.Error(err)
			}
		}
	}
	if len(removed) > 0 {
		d.q.Logf("removed from %s, because their shims had ended: %s", d.SocketDir, strings.Join(removed, " "))
	}
}

// EndShimsIfFailed has the question's shims ended before its cleanup, if the question has failed. It is for a question whose shim may
// hang, or may have lost an exit: such a shim cannot delete its task, and the cleanup would wait for minutes. When a shim ends,
// containerd removes what is left of its task.
func (d *Daemon) EndShimsIfFailed() {
	d.q.Cleanup(func() {
		if !d.q.Failed() {
			return
		}
		for _, shim := range proc.FindIdentities(d.q, d.isShimOfQuestion) {
			if err := proc.End(shim, unix.SIGTERM); err != nil {
				d.q.Errorf("end a shim of the question: %v", err)
			}
		}
		proc.WaitFor(d.q, func(poll.LogT) poll.Result {
			tasks, err := d.client.TaskService().List(context.Background(), &tasksapi.ListTasksRequest{})
			if err != nil {
				return poll.Error(err)
			}
			if shims := d.Shims(); len(tasks.Tasks)+len(shims) > 0 {
				return poll.Continue("the question's shims were ended, and containerd has not removed what is left: shims %v, tasks %v",
					shims, tasks.Tasks)
			}
			return poll.Success()
		})
		d.RemoveFIFOs("*") // no client deletes these tasks
	})
}

// deleteLeftovers deletes all tasks and containers of the question. In a shared daemon it also deletes everything else
// that the question has there, down to its containerd namespaces. The directories of a private daemon are removed as a
// whole.
func (d *Daemon) deleteLeftovers() error {
	// At least a minute: a reader who makes the lab impatient (CDB_TIMEOUT=1s) wants a short question, and nothing left behind.
	patience := max(proc.Patience, slowness.Scale(time.Minute))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	// A client of its own: those of the question are closed by now.
	client, err := containerd.New(d.Address, containerd.WithTimeout(patience))
	if err != nil {
		return err
	}
	defer client.Close()
	all, err := client.NamespaceService().List(ctx)
	if err != nil {
		return err
	}
	var errs []error
	var own []string
	for _, ns := range all {
		if !d.shared || d.q.Owner.Owns("/"+ns) {
			own = append(own, ns)
			errs = append(errs, d.deleteContainers(namespaces.WithNamespace(ctx, ns), client))
		}
	}
	if !d.shared {
		for _, ns := range own {
			for _, dir := range d.namespaceDirs(ns) {
				// The default directory of the runtime's state is not the daemon's own: a namespace's name shows what the question made.
				if filepath.Dir(dir) != defaultRuncRoot || d.q.Owner.Owns("/"+ns) {
					errs = append(errs, removeEmpty(dir))
				}
			}
		}
		if len(own) > 0 { // so that the files of the containers are gone, too: one may have made a FIFO
			errs = append(errs, collectGarbage(namespaces.WithNamespace(ctx, own[0]), client))
		}
		return errors.Join(errs...)
	}
	for _, ns := range own {
		errs = append(errs, deleteImages(namespaces.WithNamespace(ctx, ns), client))
	}
	if len(own) > 0 {
		errs = append(errs, collectGarbage(namespaces.WithNamespace(ctx, own[0]), client))
	}
	for _, ns := range own {
		if err := client.NamespaceService().Delete(ctx, ns); err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("delete containerd namespace %s: %w", ns, err))
		}
		for _, dir := range d.namespaceDirs(ns) {
			errs = append(errs, removeEmpty(dir))
		}
	}
	return errors.Join(errs...)
}

// namespaceDirs returns the directories of a containerd namespace, in which each task has a directory: its runtime's state, and
// its bundle. containerd makes them and never removes them.
func (d *Daemon) namespaceDirs(ns string) []string {
	return []string{
		filepath.Join(d.RuncRoot, ns),
		filepath.Join(d.State, "io.containerd.runtime.v2.task", ns),
		filepath.Join(d.Root, "io.containerd.runtime.v2.task", ns),
	}
}

// removeEmpty removes a directory, if it exists. It returns an error that names what the directory has: all tasks are deleted, so
// something was left behind.
func removeEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		err = errors.Join(err, fmt.Errorf("left behind, though all tasks are deleted: %s", filepath.Join(dir, e.Name())))
	}
	_, removeErr := host.Remove(dir) // a bundle may have its rootfs mounted still
	return errors.Join(err, removeErr)
}

// deleteContainers deletes the tasks, the containers and the snapshots of a containerd namespace.
func (d *Daemon) deleteContainers(ctx context.Context, client *containerd.Client) error {
	containers, err := client.Containers(ctx)
	errs := []error{err}
	for _, c := range containers {
		// With its FIFOs, as ctr loads a task: they are removed with the task.
		if task, err := c.Task(ctx, cio.Load); err == nil {
			_, err = task.Delete(ctx, containerd.WithProcessKill)
			errs = append(errs, ignoreNotFound(err))
		}
		errs = append(errs, ignoreNotFound(c.Delete(ctx, containerd.WithSnapshotCleanup)))
		if d.SocketDir == defaultSocketDir {
			// The directory has sockets that are not the lab's. The name alone shows which one a shim of the question
			// left there when it was killed.
			ns, _ := namespaces.Namespace(ctx)
			_ = os.Remove(filepath.Join(d.SocketDir, socketName(d.Address, ns, c.ID())))
		}
	}
	return errors.Join(errs...)
}

// deleteImages deletes the images and the leases of a containerd namespace. What they kept in use is garbage after
// that.
func deleteImages(ctx context.Context, client *containerd.Client) error {
	all, err := client.ImageService().List(ctx)
	errs := []error{err}
	for _, img := range all {
		errs = append(errs, ignoreNotFound(client.ImageService().Delete(ctx, img.Name)))
	}
	leases, err := client.LeasesService().List(ctx)
	errs = append(errs, err)
	for _, l := range leases {
		errs = append(errs, ignoreNotFound(client.LeasesService().Delete(ctx, l)))
	}
	return errors.Join(errs...)
}

func ignoreNotFound(err error) error {
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}
