//go:build linux

package ctrd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"gotest.tools/v3/poll"

	"cdblab/helpers/proc"
)

// end takes down what is left of the question in the daemon, and the daemon where it is the question's own.
func (d *Daemon) cleanUp() {
	if d.cmd == nil {
		return
	}
	if d.client != nil { // else it never answered
		if err := d.empty(); err != nil {
			d.q.Errorf("delete what is left in containerd: %v; its last words:\n%s", err, d.lastWords())
		}
	}
	if d.shared {
		// A shim ends a moment after its last task is deleted.
		proc.WaitFor(d.q, func(poll.LogT) poll.Result {
			if left := d.Shims(); len(left) > 0 {
				return poll.Continue("a shim is left: %v", left)
			}
			return poll.Success()
		})
		return
	}
	if err := d.server.stop(); err != nil {
		d.q.Error(err)
	}
}

// empty deletes all tasks and containers of the question. In a shared daemon it deletes all else, too, down to the
// namespaces; a private one's directories are removed as a whole.
func (d *Daemon) empty() error {
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	var err error
	if d.client, err = containerd.New(d.Address, containerd.WithTimeout(readyTimeout)); err != nil {
		return err
	}
	defer d.client.Close() // the question's own is closed by now, or may be
	all, err := d.client.NamespaceService().List(ctx)
	if err != nil {
		return err
	}
	var errs []error
	var mine []string
	for _, ns := range all {
		if !d.shared || d.q.Owner.Owns("/"+ns) {
			mine = append(mine, ns)
			errs = append(errs, d.deleteContainers(namespaces.WithNamespace(ctx, ns)))
		}
	}
	if !d.shared {
		if d.RuncRoot == defaultRuncRoot {
			// Not below the daemon's directory: an empty one of each namespace that the question has named.
			for _, ns := range mine {
				if d.q.Owner.Owns("/" + ns) {
					errs = append(errs, os.RemoveAll(filepath.Join(d.RuncRoot, ns)))
				}
			}
		}
		return errors.Join(errs...)
	}
	for _, ns := range mine {
		errs = append(errs, d.deleteImages(namespaces.WithNamespace(ctx, ns)))
	}
	if len(mine) > 0 {
		errs = append(errs, collectGarbage(namespaces.WithNamespace(ctx, mine[0]), d.client))
	}
	for _, ns := range mine {
		if err := d.client.NamespaceService().Delete(ctx, ns); err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("remove namespace %s: %w", ns, err))
		}
		// Empty directories, which containerd makes for a namespace and never removes.
		errs = append(errs, os.RemoveAll(filepath.Join(d.RuncRoot, ns)))
		for _, parent := range []string{d.State, d.Root} {
			errs = append(errs, os.RemoveAll(filepath.Join(parent, "io.containerd.runtime.v2.task", ns)))
		}
	}
	return errors.Join(errs...)
}

func (d *Daemon) deleteContainers(ctx context.Context) error {
	containers, err := d.client.Containers(ctx)
	errs := []error{err}
	for _, c := range containers {
		if task, err := c.Task(ctx, nil); err == nil {
			_, err = task.Delete(ctx, containerd.WithProcessKill)
			errs = append(errs, ignoreNotFound(err))
		}
		errs = append(errs, ignoreNotFound(c.Delete(ctx, containerd.WithSnapshotCleanup)))
		if d.SocketDir == defaultSocketDir {
			// Among others' sockets; what a shim that was killed has left there can be told by its name alone.
			ns, _ := namespaces.Namespace(ctx)
			_ = os.Remove(filepath.Join(d.SocketDir, socketName(d.Address, ns, c.ID())))
		}
	}
	return errors.Join(errs...)
}

// deleteImages deletes the images and the leases of a namespace; what they held is then garbage.
func (d *Daemon) deleteImages(ctx context.Context) error {
	list, err := d.client.ImageService().List(ctx)
	errs := []error{err}
	for _, img := range list {
		errs = append(errs, ignoreNotFound(d.client.ImageService().Delete(ctx, img.Name)))
	}
	held, err := d.client.LeasesService().List(ctx)
	errs = append(errs, err)
	for _, l := range held {
		errs = append(errs, ignoreNotFound(d.client.LeasesService().Delete(ctx, l)))
	}
	return errors.Join(errs...)
}

// CollectGarbage has the daemon collect its garbage, and returns when it has. The API has no call for it but this: who
// deletes an image or a lease may ask to wait until what that has freed is gone.
func (d *Daemon) CollectGarbage() {
	d.q.Helper()
	d.q.LogCommand("ctr -n %[1]s leases rm --sync $(ctr -n %[1]s leases create)", d.Namespace)
	ctx := namespaces.WithNamespace(context.Background(), d.Namespace)
	if err := collectGarbage(ctx, d.client); err != nil {
		d.q.Fatalf("collect containerd's garbage: %v", err)
	}
}

func collectGarbage(ctx context.Context, client *containerd.Client) error {
	l, err := client.LeasesService().Create(ctx, leases.WithRandomID(), leases.WithExpiration(time.Hour))
	if err != nil {
		return err
	}
	return client.LeasesService().Delete(ctx, l, leases.SynchronousDelete)
}

func ignoreNotFound(err error) error {
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}
