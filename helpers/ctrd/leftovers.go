//go:build linux

package ctrd

import (
	"os"
	"path/filepath"
	"slices"

	"github.com/moby/sys/mountinfo"
	"gotest.tools/v3/poll"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/file"
)

// TaskLeftovers returns what exists of a task on the host, sorted: "bundle", "cgroup", "mount" (of the root filesystem)
// and "shim" (any shim of the question).
func (d *Daemon) TaskLeftovers(id string) []string {
	d.q.Helper()
	out := []string{}
	bundle := d.Bundle(id)
	if file.Exists(bundle) {
		out = append(out, "bundle")
	}
	if slices.ContainsFunc(cgroup.Of(d.q, "/"+d.Namespace+"/"+id).Dirs(), file.Exists) {
		out = append(out, "cgroup")
	}
	mounted, err := mountinfo.Mounted(filepath.Join(bundle, "rootfs"))
	if mounted || err != nil && !os.IsNotExist(err) {
		out = append(out, "mount")
	}
	if len(d.Shims()) > 0 {
		out = append(out, "shim")
	}
	return out
}

// NoTaskLeftovers returns a check that succeeds when nothing exists of a task any more. A shim ends a moment after its
// last task is deleted.
func (d *Daemon) NoTaskLeftovers(id string) poll.Check {
	return func(poll.LogT) poll.Result {
		if leftovers := d.TaskLeftovers(id); len(leftovers) > 0 {
			return poll.Continue("leftovers of the task of %s: %v", id, leftovers)
		}
		return poll.Success()
	}
}
