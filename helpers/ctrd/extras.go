//go:build linux

package ctrd

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/containerd/containerd/api/types/runc/options"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/oci"
)

// Extras is what a program may ask for through the Go client, and ctr has no option for, or not every ctr.
type ClientOptions struct {
	Labels     map[string]string // of the record, and of nothing else
	Spec       []oci.SpecOpts    // changes to config.json
	Runtime    string            // the shim's program, by its absolute path; ctr has --runtime, but then drops --runc-root
	ShimCgroup string            // runtime option: the shim's cgroup, which exists
	BinaryName string            // runtime option: the program that the shim calls in runc's place
}

func (e ClientOptions) String() string {
	var out []string
	if len(e.Labels) > 0 {
		out = append(out, fmt.Sprintf("labels %v", e.Labels))
	}
	if len(e.Spec) > 0 {
		out = append(out, "a changed config.json")
	}
	if e.Runtime != "" {
		out = append(out, "runtime "+e.Runtime)
	}
	if e.ShimCgroup != "" {
		out = append(out, "ShimCgroup "+e.ShimCgroup)
	}
	if e.BinaryName != "" {
		out = append(out, "BinaryName "+e.BinaryName)
	}
	return strings.Join(out, ", ")
}

// CreateByClient creates a container as a program does, through the Go client, with extras. Its tasks can be started by
// either hand.
func (d *Daemon) CreateContainerByClient(extras ClientOptions, ref, id string, args ...string) containerd.Container {
	d.q.Helper()
	d.q.LogCommand("# Go client: NewContainer %s, from %s, with %v: %s", id, ref, extras, strings.Join(args, " "))
	ctx := context.Background()
	img, err := d.client.GetImage(ctx, ref)
	if err != nil {
		d.q.Fatalf("find image %s: %v", ref, err)
	}
	runtime := &options.Options{ShimCgroup: extras.ShimCgroup, BinaryName: extras.BinaryName}
	if d.CanSetRuncRoot() {
		runtime.Root = d.RuncRoot
	}
	c, err := d.client.NewContainer(ctx, id,
		containerd.WithImage(img),
		containerd.WithNewSnapshot(id, img),
		containerd.WithContainerLabels(extras.Labels),
		containerd.WithRuntime(cmp.Or(extras.Runtime, "io.containerd.runc.v2"), runtime),
		containerd.WithNewSpec(append([]oci.SpecOpts{oci.WithImageConfig(img), oci.WithProcessArgs(args...)}, extras.Spec...)...))
	if err != nil {
		d.q.Fatalf("create container %s through the Go client: %v", id, err)
	}
	return c
}
