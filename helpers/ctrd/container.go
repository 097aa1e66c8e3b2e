//go:build linux

package ctrd

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/containerd/api/types/runc/options"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/oci"
	"gotest.tools/v3/assert"

	"cdblab/helpers/lab"
)

// CreateContainer types the chapter's `ctr containers create IMAGE ID ARGS…`, with the option that keeps the runtime's
// state out of /run/containerd/runc. The runtime is the first runc on the shim's PATH, which is the runc under test.
func (d *Daemon) CreateContainer(ref, id string, args ...string) lab.Result {
	d.q.Helper()
	return d.CreateContainerWith(nil, ref, id, args...)
}

// CreateContainerWith is [Daemon.CreateContainer] with more options of ctr: "--snapshotter", "native".
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

// CanSetRuncRoot reports whether `ctr containers create` of the ctr under test has an option for the runtime's state directory. That of
// containerd 1.7 has none; only its `ctr run` has one. The runtime then uses its default, below /run/containerd/runc. RuncRoot of the
// [Daemon] names that directory, and the lab cleans it.
func (d *Daemon) CanSetRuncRoot() bool { return d.RuncRoot != defaultRuncRoot }

// ClientOptions are options of a container that the Go client has, and that ctr, or an older ctr, does not have.
type ClientOptions struct {
	Labels     map[string]string // labels of the container's record, which only containerd sees
	Spec       []oci.SpecOpts    // changes to config.json
	Runtime    string            // absolute path of the shim's program; with ctr's --runtime, ctr ignores --runc-root
	ShimCgroup string            // runtime option: the shim's cgroup, which exists
	BinaryName string            // runtime option: the program that the shim calls instead of runc

	SystemdCgroup bool // runtime option: the shim calls the runtime with --systemd-cgroup
}

func (o ClientOptions) String() string {
	var out []string
	if len(o.Labels) > 0 {
		out = append(out, fmt.Sprintf("labels %v", o.Labels))
	}
	if len(o.Spec) > 0 {
		out = append(out, "a changed config.json")
	}
	if o.Runtime != "" {
		out = append(out, "runtime "+o.Runtime)
	}
	if o.ShimCgroup != "" {
		out = append(out, "ShimCgroup "+o.ShimCgroup)
	}
	if o.BinaryName != "" {
		out = append(out, "BinaryName "+o.BinaryName)
	}
	if o.SystemdCgroup {
		out = append(out, "SystemdCgroup")
	}
	return strings.Join(out, ", ")
}

// CreateContainerByClient creates a container through the Go client, as a program does. Its tasks can be started by ctr
// and by the Go client.
func (d *Daemon) CreateContainerByClient(o ClientOptions, ref, id string, args ...string) containerd.Container {
	d.q.Helper()
	d.q.LogCommand("# Go client: NewContainer %s, from %s, with %v: %s", id, ref, o, strings.Join(args, " "))
	ctx := context.Background()
	image, err := d.client.GetImage(ctx, ref)
	if err != nil {
		d.q.Fatalf("find image %s: %v", ref, err)
	}
	runtime := &options.Options{ShimCgroup: o.ShimCgroup, BinaryName: o.BinaryName, SystemdCgroup: o.SystemdCgroup}
	if d.CanSetRuncRoot() {
		runtime.Root = d.RuncRoot
	}
	c, err := d.client.NewContainer(ctx, id,
		containerd.WithImage(image),
		containerd.WithNewSnapshot(id, image),
		containerd.WithContainerLabels(o.Labels),
		containerd.WithRuntime(cmp.Or(o.Runtime, "io.containerd.runc.v2"), runtime),
		containerd.WithNewSpec(append([]oci.SpecOpts{oci.WithImageConfig(image), oci.WithProcessArgs(args...)}, o.Spec...)...))
	if err != nil {
		d.q.Fatalf("create container %s through the Go client: %v", id, err)
	}
	return c
}

// Spec returns the OCI configuration in a container's record, which `ctr containers info` shows.
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

// MountSnapshot mounts the snapshot of a container on the directory at, with the mounts that containerd's snapshotter
// names. It is unmounted when the question ends.
func (d *Daemon) MountSnapshot(id, at string) {
	d.q.Helper()
	d.q.LogCommand("$(ctr -n %s snapshots mounts %s %s)", d.Namespace, at, id)
	ctx := context.Background()
	container, err := d.client.LoadContainer(ctx, id)
	assert.NilError(d.q, err)
	record, err := container.Info(ctx)
	assert.NilError(d.q, err)
	mounts, err := d.client.SnapshotService(record.Snapshotter).Mounts(ctx, record.SnapshotKey)
	assert.NilError(d.q, err)
	assert.NilError(d.q, mount.All(mounts, at))
	d.q.Cleanup(func() { assert.Check(d.q, mount.UnmountAll(at, 0)) })
}

// RuntimeName returns the name of the runtime in a container's record, which names the shim.
func (d *Daemon) RuntimeName(id string) string {
	d.q.Helper()
	ctx := context.Background()
	c, err := d.client.LoadContainer(ctx, id)
	if err != nil {
		d.q.Fatalf("find container %s: %v", id, err)
	}
	record, err := c.Info(ctx)
	assert.NilError(d.q, err)
	return record.Runtime.Name
}
