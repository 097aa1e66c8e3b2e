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

// No. To create a container is to write it down, and to lay out a snapshot for it: no process, no mount, no cgroup.
//
// What runc calls create, a room with a stand-in in it, is to containerd the first half of a task's start. Its own create
// stores the whole config.json as a record, and prepares an active snapshot: directories on disk, which nobody has
// mounted. It checks nothing that only the runtime could: a program that does not exist is refused by the task.
//
// Hint: `ctr containers info`, `ctr snapshots info`; and what is not there: a bundle, a cgroup, a directory of runc's.
// Spec: https://github.com/containerd/containerd/blob/main/docs/getting-started.md#creating-an-oci-spec-and-container
// Kernel: https://docs.kernel.org/filesystems/overlayfs.html, "Upper and Lower"
func TestTask_DoesCreatingAContainerStartAnything(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Does creating a container start anything?")
	d := ctrd.Shared(q)
	ref := d.PullImage()
	id, noProgram := q.ID(ctrd.ContainerID), q.ID(ctrd.ContainerID+"-none")
	before := q.TakeInventory()
	assert.Assert(q, cmp.Len(traces(q, d, id), 0), "there before anything was created")

	q.Step("create: nothing runs, and nothing is mounted")
	d.CreateContainer(ref, id, "sleep", "300")
	assert.Check(q, cmp.Len(traces(q, d, id), 0), "there of a container without a task")
	assert.Check(q, cmp.Len(host.OwnedBy(host.Diff(before, q.TakeInventory()), before, q.Owner), 0), "a change of the host")
	q.Fact("of a task there is", traces(q, d, id))

	q.Step("a record: the whole config.json, and the snapshot's name")
	assert.Check(q, cmp.Contains(d.Ctr("containers", "ls", "-q").Stdout, id))
	spec := d.Spec(id)
	assert.Check(q, cmp.DeepEqual(spec.Process.Args, []string{"sleep", "300"}))
	assert.Check(q, cmp.Equal(spec.Linux.CgroupsPath, "/"+d.Namespace+"/"+id), "the cgroup that there will be")
	q.Fact("process.args in the record", spec.Process.Args)
	q.Fact("linux.cgroupsPath in the record", spec.Linux.CgroupsPath)

	q.Step("an active snapshot on top of the image's: directories on disk, empty and not mounted")
	upper, dirs := snapshotOf(q, d, id)
	ls := check.TableRow(q, d.Ctr("snapshots", "ls").Stdout, id)
	assert.Assert(q, cmp.Len(ls, 3), "key, parent and kind")
	assert.Check(q, cmp.Equal(ls[2], "Active"))
	below, err := d.Client().SnapshotService("").Stat(context.Background(), ls[1])
	assert.NilError(q, err, "what the snapshot lies on")
	assert.Check(q, cmp.Equal(below.Kind, snapshots.KindCommitted), "what the snapshot lies on")
	for _, dir := range dirs {
		assert.Check(q, strings.HasPrefix(dir, d.Root), "%s is not below containerd's root", dir)
		st, err := os.Stat(dir)
		assert.Check(q, err == nil && st.IsDir(), "the snapshot's directory %s: %v", dir, err)
	}
	if len(dirs) > 1 { // a snapshotter that copies has but one, which is full
		assert.Check(q, cmp.Len(file.Names(q, upper), 0), "what the container has written so far")
	}
	q.Fact("snapshot's kind", ls[2])
	q.Fact("its directories on disk", len(dirs))

	q.Step("nothing is checked: a program that does not exist is accepted …")
	d.CreateContainer(ref, noProgram, "/no/such/program")
	assert.Check(q, cmp.DeepEqual(d.Spec(noProgram).Process.Args, []string{"/no/such/program"}))
	assert.Check(q, cmp.Len(traces(q, d, noProgram), 0))
	q.Step("… until a task is to run it, which leaves nothing either")
	refused := d.TryCtr("tasks", "start", "-d", "--fifo-dir", d.FifoDir, noProgram)
	assert.Check(q, refused.Code != 0, "a program that does not exist was started:\n%s", refused)
	assert.Check(q, cmp.Contains(refused.Stderr, "/no/such/program"))
	proc.WaitFor(q, d.HasShims(0))
	assert.Check(q, cmp.Len(traces(q, d, noProgram), 0), "there after a task that could not start")
	q.Fact("tasks start says", runc.LastLogMessage(refused))

	q.Control("a task changes each of these")
	d.StartTask(id)
	pid := d.TaskPID(id)
	proc.WaitFor(q, proc.Runs(pid, "sleep"))
	assert.Check(q, cmp.DeepEqual(traces(q, d, id), allTraces))
	q.Fact("with a task there is", traces(q, d, id))
	mounted := check.MountAt(q, filepath.Join(d.Bundle(id), "rootfs"))
	assert.Assert(q, mounted != nil, "nothing is mounted at the bundle's rootfs")
	// The kernel shows an overlay's directories as options, and a bind mount's as the mount's root.
	assert.Check(q, strings.Contains(mounted.VFSOptions, upper) || strings.HasSuffix(upper, mounted.Root),
		"%s is not what is mounted: %s %s", upper, mounted.Root, mounted.VFSOptions)
	q.Fact("rootfs is now", mounted.FSType)

	q.Answer("No: a record and a snapshot. Process, bundle, mount, cgroup and shim come with the task.")
}

// allTraces are the things that there are of a container only if it has a task.
var allTraces = []string{"shim", "shim's socket", "bundle", "rootfs mount", "runtime state", "cgroup"}

// traces lists which of them there are.
func traces(q *lab.Q, d *ctrd.Daemon, id string) []string {
	q.Helper()
	mounted := check.MountAt(q, filepath.Join(d.Bundle(id), "rootfs")) != nil
	inAny := slices.ContainsFunc(cgroup.Of(q, "/"+d.Namespace+"/"+id).Dirs(), file.Exists)
	out := []string{}
	for i, there := range []bool{
		len(d.Shims()) > 0, file.Exists(filepath.Join(d.SocketDir, d.SocketName(id))), file.Exists(d.Bundle(id)), mounted,
		file.Exists(filepath.Join(d.RuncRoot, d.Namespace, id)), inAny,
	} {
		if there {
			out = append(out, allTraces[i])
		}
	}
	return out
}

// snapshotOf lists the directories of a container's snapshot, as its snapshotter would mount them, and says which of them
// takes what the container writes.
func snapshotOf(q *lab.Q, d *ctrd.Daemon, id string) (upper string, dirs []string) {
	q.Helper()
	mounts, err := d.Client().SnapshotService("").Mounts(context.Background(), id)
	assert.NilError(q, err)
	assert.Assert(q, cmp.Len(mounts, 1), "mounts of the snapshot")
	q.Fact("would be mounted as", mounts[0].Type)
	if mounts[0].Type == "bind" {
		return mounts[0].Source, []string{mounts[0].Source}
	}
	for _, option := range mounts[0].Options {
		switch key, value, _ := strings.Cut(option, "="); key {
		case "upperdir":
			upper = value
			dirs = append(dirs, value)
		case "workdir", "lowerdir":
			dirs = append(dirs, strings.Split(value, ":")...)
		}
	}
	assert.Assert(q, upper != "", "the snapshot names no upper directory: %v", mounts[0].Options)
	return upper, dirs
}
