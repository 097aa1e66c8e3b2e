//go:build linux

package ctrd

import (
	"context"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/namespaces"
)

// GarbageOnDemand is a table of the configuration with which the daemon collects garbage only when a client waits for
// it. By default the daemon collects garbage when it starts, and about a second after something was deleted: between
// any two steps of a question.
const GarbageOnDemand = `[plugins."io.containerd.gc.v1.scheduler"]
  startup_delay = "1h"
  pause_threshold = 0.0000001`

// CollectGarbage has the daemon collect its garbage, and returns when that is done. The API has no call for it. But a
// client that deletes an image or a lease can ask to wait until everything that this has freed is gone, so
// CollectGarbage creates a lease and deletes it.
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
