//go:build linux

package ctrd

import (
	"context"
	"path/filepath"
	"slices"
	"strings"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/core/snapshots"
	"gotest.tools/v3/assert"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/check"
	"cdblab/helpers/file"
	"cdblab/helpers/proc"
)

// Holdings are the processes and places of a container and its task. [Holdings.Held] observes which of them exist.
type Holdings struct {
	Program, Shim proc.Process // the task's process, and its parent
	Bundle        string       // the directory that the daemon makes for the task
	Socket        string       // the unix socket on which the shim listens
	Cgroup        string       // the task's, relative to the root of each hierarchy
	Upper         string       // overlayfs's upper directory on the host: what the program writes

	d  *Daemon
	id string
}

// Held names what of a container and its task exists, in the order of [HeldWhileRunning].
type Held []string

// String returns the names, separated by commas, because they have spaces in them.
func (h Held) String() string {
	if len(h) == 0 {
		return "nothing"
	}
	return strings.Join(h, ", ")
}

// Except returns the names that remain without these.
func (h Held) Except(names ...string) Held {
	return slices.DeleteFunc(slices.Clone(h), func(name string) bool { return slices.Contains(names, name) })
}

// HeldWhileRunning names everything that exists while a task is running whose program has written the file /written.
// Only the first, the process, ends by itself.
var HeldWhileRunning = Held{
	"process", "shim", "socket", "bundle", "rootfs mount", "cgroup", "FIFOs", "runtime state", "task",
	"container", "snapshot", "what it wrote",
}

// HoldingsOf returns the holdings of a container whose task is running.
func (d *Daemon) HoldingsOf(id string) Holdings {
	d.q.Helper()
	program := proc.Snapshot(d.q, d.TaskPID(id))
	h := Holdings{
		Program: program, Shim: proc.Snapshot(d.q, program.Parent),
		Bundle: d.Bundle(id), Socket: d.ShimSocket(id), Cgroup: "/" + d.Namespace + "/" + id,
		d: d, id: id,
	}
	rootfs := check.MountAt(d.q, filepath.Join(h.Bundle, "rootfs"))
	assert.Assert(d.q, rootfs != nil, "nothing is mounted at %s/rootfs", h.Bundle)
	for option := range strings.SplitSeq(rootfs.VFSOptions, ",") {
		if dir, ok := strings.CutPrefix(option, "upperdir="); ok {
			h.Upper = dir
		}
	}
	assert.Assert(d.q, h.Upper != "", "the rootfs has no upper directory: %s %s", rootfs.FSType, rootfs.VFSOptions)
	return h
}

// Held returns what exists now. The kernel and the file system show most of it. The container's record, the snapshot
// and the task are known to containerd, which is asked. A socket's file without a process that listens is not held: it may be one
// that [Daemon.removeLostSockets] removes.
func (h Holdings) Held() Held {
	d := h.d
	d.q.Helper()
	ctx := context.Background()
	fifos, err := filepath.Glob(filepath.Join(d.FifoDir, "*", h.id+"-std*"))
	assert.NilError(d.q, err)
	_, noRecord := d.client.ContainerService().Get(ctx, h.id)
	hasSnapshot := false
	assert.NilError(d.q, d.client.SnapshotService("").Walk(ctx, func(_ context.Context, i snapshots.Info) error {
		hasSnapshot = hasSnapshot || i.Name == h.id
		return nil
	}))
	tasks, err := d.client.TaskService().List(ctx, &tasksapi.ListTasksRequest{})
	assert.NilError(d.q, err)
	exists := map[string]bool{
		"process":       h.Program.Alive(),
		"shim":          h.Shim.Alive(),
		"socket":        file.Exists(h.Socket) && proc.HasListener(d.q, h.Socket),
		"bundle":        file.Exists(h.Bundle),
		"rootfs mount":  check.MountAt(d.q, filepath.Join(h.Bundle, "rootfs")) != nil,
		"cgroup":        slices.ContainsFunc(cgroup.Of(d.q, h.Cgroup).Dirs(), file.Exists),
		"FIFOs":         len(fifos) > 0,
		"runtime state": file.Exists(filepath.Join(d.RuncRoot, d.Namespace, h.id, "state.json")),
		"task":          slices.ContainsFunc(tasks.Tasks, func(t *task.Process) bool { return t.ID == h.id }),
		"container":     noRecord == nil,
		"snapshot":      hasSnapshot,
		"what it wrote": file.Exists(filepath.Join(h.Upper, "written")),
	}
	held := Held{}
	for _, name := range HeldWhileRunning {
		if exists[name] {
			held = append(held, name)
		}
	}
	return held
}
