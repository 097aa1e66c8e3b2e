//go:build linux && vmlab

package cdblab

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/check"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/file"
	"cdblab/helpers/host"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// Creating a container starts nothing. containerd writes it down, and lays out a snapshot for it: no process, no mount, no cgroup.
//
// What runc calls create, namespaces and a cgroup with runc init in them, is to containerd the first half of a task's start.
// Its own create stores the whole config.json as a record. Before that the client has an active snapshot prepared: directories
// on disk, which are not mounted. It checks nothing that only the runtime could: a program that does not exist is refused by the task.
//
// Hint: `ctr containers info`, `ctr snapshots info`; and what is not there: a bundle, a cgroup, a directory of runc's.
// Spec: https://github.com/containerd/containerd/blob/main/docs/getting-started.md#creating-an-oci-spec-and-container
// Kernel: https://docs.kernel.org/filesystems/overlayfs.html, "Upper and Lower"
func TestTask_DoesCreatingAContainerStartAnything(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Does creating a container start anything?")
	defer q.Recover()
	d := ctrd.Shared(q)
	ref := d.PullImage()
	id, noProgram := q.ID(ctrd.ContainerID), q.ID(ctrd.ContainerID+"-none")
	before := q.TakeInventory()
	assert.Assert(q, cmp.Len(tracesOfTask(q, d, id), 0), "traces of a task before anything was created")

	q.Step("create a container: nothing runs, and nothing is mounted")
	d.CreateContainer(ref, id, "sleep", "3600")
	assert.Check(q, cmp.Len(tracesOfTask(q, d, id), 0), "traces of a task, of a container that has none")
	assert.Check(q, cmp.Len(host.OwnedBy(host.Diff(before, q.TakeInventory()), before, q.Owner), 0), "changes of the host")
	q.Fact("traces of a task, after create", tracesOfTask(q, d, id))

	q.Step("read the record: it has the whole config.json, and the snapshot's name")
	assert.Check(q, cmp.Contains(d.Ctr("containers", "ls", "-q").Stdout, id))
	spec := d.Spec(id)
	assert.Check(q, cmp.DeepEqual(spec.Process.Args, []string{"sleep", "3600"}))
	assert.Check(q, cmp.Equal(spec.Linux.CgroupsPath, "/"+d.Namespace+"/"+id), "the cgroup that a task will have")
	q.Fact("process.args in the record", spec.Process.Args)
	q.Fact("linux.cgroupsPath in the record", spec.Linux.CgroupsPath)
	// What 1.7.27 hides, each later release has to hide. In 1.7.10 powercap was not there: its figures betray what others compute.
	hidden := []string{
		"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/scsi", "/proc/timer_list",
		"/sys/devices/virtual/powercap", "/sys/firmware",
	}
	for _, path := range hidden {
		assert.Check(q, cmp.Contains(spec.Linux.MaskedPaths, path), "linux.maskedPaths in the record")
	}
	q.Fact("linux.maskedPaths in the record", spec.Linux.MaskedPaths)

	q.Step("look at the snapshot: it is an active one on top of the image's, and its directories are on disk, empty and not mounted")
	upper, dirs := snapshotDirs(q, d, id)
	row := check.TableRow(q, d.Ctr("snapshots", "ls").Stdout, id)
	assert.Assert(q, cmp.Len(row, 3), "key, parent and kind")
	assert.Check(q, cmp.Equal(row[2], "Active"))
	parent, err := d.Client().SnapshotService("").Stat(context.Background(), row[1])
	assert.NilError(q, err, "the snapshot's parent")
	assert.Check(q, cmp.Equal(parent.Kind, snapshots.KindCommitted), "kind of the snapshot's parent")
	for _, dir := range dirs {
		assert.Check(q, strings.HasPrefix(dir, d.Root), "%s is not below containerd's root", dir)
		st, err := os.Stat(dir)
		assert.Check(q, err == nil && st.IsDir(), "the snapshot's directory %s: %v", dir, err)
	}
	if len(dirs) > 1 { // a snapshotter that copies has a single directory, which has all files
		assert.Check(q, cmp.Len(file.Names(q, upper), 0), "what the container has written so far")
	}
	q.Fact("snapshot's kind", row[2])
	q.Fact("snapshot's directories on disk", len(dirs))

	q.Step("create a container whose program does not exist: containerd checks nothing, and accepts it")
	d.CreateContainer(ref, noProgram, "/no/such/program")
	assert.Check(q, cmp.DeepEqual(d.Spec(noProgram).Process.Args, []string{"/no/such/program"}))
	assert.Check(q, cmp.Len(tracesOfTask(q, d, noProgram), 0))
	q.Step("start a task of it: the runtime refuses the program, and nothing is left of the task")
	refused := d.TryCtr("tasks", "start", "-d", "--fifo-dir", d.FifoDir, noProgram)
	assert.Check(q, refused.Code != 0, "a program that does not exist was started:\n%s", refused)
	assert.Check(q, cmp.Contains(refused.Stderr, "/no/such/program"))
	proc.WaitFor(q, d.HasShims(0))
	assert.Check(q, cmp.Len(tracesOfTask(q, d, noProgram), 0), "traces of a task that could not start")
	q.Fact("error of tasks start", runc.LastLogMessage(refused))

	q.Control("start a task of the first container: now there is all that was missing before")
	d.StartTask(id)
	pid := d.TaskPID(id)
	proc.WaitFor(q, proc.Runs(pid, "sleep"))
	assert.Check(q, cmp.DeepEqual(tracesOfTask(q, d, id),
		[]string{"shim", "shim's socket", "bundle", "rootfs mount", "runtime state", "cgroup"}))
	q.Fact("traces of a task, after tasks start", tracesOfTask(q, d, id))
	mounted := check.MountAt(q, filepath.Join(d.Bundle(id), "rootfs"))
	assert.Assert(q, mounted != nil, "nothing is mounted at the bundle's rootfs")
	// The kernel shows an overlay's directories as options, and a bind mount's directory as the mount's root.
	assert.Check(q, strings.Contains(mounted.VFSOptions, upper) || strings.HasSuffix(upper, mounted.Root),
		"the directory %s is not mounted; mounted is %s with the options %s", upper, mounted.Root, mounted.VFSOptions)
	q.Fact("rootfs is now", mounted.FSType)
	task := proc.Snapshot(q, pid)
	covered := []string{}
	for _, path := range hidden {
		if !file.Exists(path) { // the kernel does not have it
			continue
		}
		if slices.Contains(check.MountPoints(task), path) {
			covered = append(covered, path)
			continue
		}
		q.Errorf("mount points of the task: %s is not covered, and config.json masks it: %v", path, check.MountPoints(task))
	}
	q.Fact("paths that something covers in the task", covered)

	q.Answer("No. It makes a record and a snapshot, and starts nothing. Process, bundle, mount, cgroup and shim come with the task.")
}

// tracesOfTask lists those things of a container that exist only while it has a task.
func tracesOfTask(q *lab.Q, d *ctrd.Daemon, id string) []string {
	q.Helper()
	out := []string{}
	for _, trace := range []struct {
		name   string
		exists bool
	}{
		{"shim", len(d.Shims()) > 0},
		{"shim's socket", file.Exists(filepath.Join(d.SocketDir, d.SocketName(id)))},
		{"bundle", file.Exists(d.Bundle(id))},
		{"rootfs mount", check.MountAt(q, filepath.Join(d.Bundle(id), "rootfs")) != nil},
		{"runtime state", file.Exists(filepath.Join(d.RuncRoot, d.Namespace, id))},
		{"cgroup", slices.ContainsFunc(cgroup.Of(q, "/"+d.Namespace+"/"+id).Dirs(), file.Exists)},
	} {
		if trace.exists {
			out = append(out, trace.name)
		}
	}
	return out
}

// snapshotDirs returns the directories of a container's snapshot, as its snapshotter would mount them, and the one of them to
// which the container writes.
func snapshotDirs(q *lab.Q, d *ctrd.Daemon, id string) (upper string, dirs []string) {
	q.Helper()
	mounts, err := d.Client().SnapshotService("").Mounts(context.Background(), id)
	assert.NilError(q, err)
	assert.Assert(q, cmp.Len(mounts, 1), "mounts of the snapshot")
	q.Fact("would be mounted as", mounts[0].Type)
	if mounts[0].Type == "bind" {
		return mounts[0].Source, []string{mounts[0].Source}
	}
	overlay, err := ctrd.ParseOverlay(mounts[0].Options)
	assert.NilError(q, err)
	return overlay.Upper, append([]string{overlay.Upper, overlay.Work}, overlay.Lower...)
}
