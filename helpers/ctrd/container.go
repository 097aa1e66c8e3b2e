//go:build linux

package ctrd

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"cdblab/helpers/file"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"gotest.tools/v3/poll"

	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// CreateContainer types the chapter's `ctr containers create IMAGE ID ARGS…`, with the option that keeps the runtime's
// state off /run/containerd/runc. The runtime is the first runc on the shim's PATH, which is the one under test.
func (d *Daemon) CreateContainer(ref, id string, args ...string) lab.Result {
	d.q.Helper()
	return d.CreateContainerWith(nil, ref, id, args...)
}

// CreateContainerWith is [Daemon.CreateContainer] with options of ctr's: "--snapshotter", "native".
func (d *Daemon) CreateContainerWith(options []string, ref, id string, args ...string) lab.Result {
	d.q.Helper()
	argv := []string{"containers", "create"}
	if d.CanSetRuncRoot() {
		argv = append(argv, "--runc-root", d.RuncRoot)
	}
	argv = append(argv, options...)
	if slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, "-") }) {
		argv = append(argv, "--") // an older ctr takes the -c of a shell for an option of its own
	}
	argv = append(argv, ref, id)
	return d.Ctr(append(argv, args...)...)
}

// CanSetRuncRoot says whether the ctr under test has an option for the runtime's state directory. An older one has none,
// and the runtime's default, below /run/containerd/runc, is then the [Daemon]'s RuncRoot, which the lab cleans.
func (d *Daemon) CanSetRuncRoot() bool { return d.RuncRoot != defaultRuncRoot }

// SocketName is the name of the file in SocketDir at which the shim of a container listens: the shim computes it from
// the daemon's address, the namespace and its group, which is the container's id unless an annotation says otherwise.
func (d *Daemon) SocketName(id string) string {
	return socketName(d.Address, d.Namespace, id)
}

func socketName(address, namespace, id string) string {
	sum := sha256.Sum256([]byte(filepath.Join(address, namespace, id)))
	return fmt.Sprintf("%x", sum)
}

// ShimSocket is the socket of a container's shim, as the bundle names it: bootstrap.json of containerd 2, address
// before.
func (d *Daemon) ShimSocket(id string) string {
	d.q.Helper()
	var b struct {
		Address string `json:"address"`
	}
	data, err := os.ReadFile(filepath.Join(d.Bundle(id), "bootstrap.json"))
	if err == nil {
		err = json.Unmarshal(data, &b)
	} else if data, err = os.ReadFile(filepath.Join(d.Bundle(id), "address")); err == nil {
		b.Address = string(data)
	}
	if err != nil {
		d.q.Fatalf("find the address of the shim of %s: %v", id, err)
	}
	return strings.TrimPrefix(b.Address, "unix://")
}

// Layers lists the digests of an image's compressed layers, from its manifest.
func (d *Daemon) LayerDigests(ref string) []digest.Digest {
	d.q.Helper()
	ctx := context.Background()
	img, err := d.client.GetImage(ctx, ref)
	if err != nil {
		d.q.Fatalf("find image %s: %v", ref, err)
	}
	manifest, err := images.Manifest(ctx, d.client.ContentStore(), img.Target(), platforms.Default())
	if err != nil {
		d.q.Fatalf("read the manifest of %s: %v", ref, err)
	}
	var out []digest.Digest
	for _, l := range manifest.Layers {
		out = append(out, l.Digest)
	}
	return out
}

// StartTask types `ctr tasks start -d ID`, with the option that keeps its FIFOs off /run/containerd/fifo.
func (d *Daemon) StartTask(id string) lab.Result {
	d.q.Helper()
	return d.Ctr("tasks", "start", "-d", "--fifo-dir", d.FifoDir, id)
}

// Task is a container's task, as the Go client has it.
func (d *Daemon) Task(id string) containerd.Task {
	d.q.Helper()
	ctx := context.Background()
	c, err := d.client.LoadContainer(ctx, id)
	if err != nil {
		d.q.Fatalf("find container %s: %v", id, err)
	}
	task, err := c.Task(ctx, nil)
	if err != nil {
		d.q.Fatalf("find the task of container %s: %v", id, err)
	}
	return task
}

// TaskPID is the process of a container's task, from the file that the runtime writes into the bundle.
func (d *Daemon) TaskPID(id string) proc.PID {
	d.q.Helper()
	data, err := os.ReadFile(filepath.Join(d.Bundle(id), "init.pid"))
	if err != nil {
		d.q.Fatalf("which process is the task of %s: %v", id, err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		d.q.Fatalf("which process is the task of %s: init.pid reads %q", id, data)
	}
	return proc.PID(pid)
}

// Spec is the OCI configuration in a container's record, which `ctr containers info` shows.
func (d *Daemon) Spec(id string) *oci.Spec {
	d.q.Helper()
	ctx := context.Background()
	c, err := d.client.LoadContainer(ctx, id)
	if err != nil {
		d.q.Fatalf("find container %s: %v", id, err)
	}
	spec, err := c.Spec(ctx)
	if err != nil {
		d.q.Fatalf("read the configuration of container %s: %v", id, err)
	}
	return spec
}

// Stopped is a poll check: containerd knows that the task of a container has ended. It learns that from the shim, a
// moment after the kernel; until then it refuses to delete the task.
func (d *Daemon) TaskStopped(id string) poll.Check {
	return func(poll.LogT) poll.Result {
		ctx := context.Background()
		c, err := d.client.LoadContainer(ctx, id)
		if err != nil {
			return poll.Error(err)
		}
		task, err := c.Task(ctx, nil)
		if err != nil {
			return poll.Error(err)
		}
		status, err := task.Status(ctx)
		if err != nil {
			return poll.Error(err)
		}
		if status.Status != containerd.Stopped {
			return poll.Continue("the task of %s is %s", id, status.Status)
		}
		return poll.Success()
	}
}

// AddressFile is where the bundle says how the shim is reached: bootstrap.json of containerd 2, address before.
func ShimAddressFile(bundle string) string {
	if path := filepath.Join(bundle, "bootstrap.json"); file.Exists(path) {
		return path
	}
	return filepath.Join(bundle, "address")
}
