//go:build linux && vmlab

package cdblab

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/golden"
	"gotest.tools/v3/poll"

	"cdblab/helpers/bundle"
	"cdblab/helpers/check"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/image"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// One command is a handful of calls, and the same handful that a program makes: ctr is a Go client with flags.
//
// Both leave the same container, snapshot, task and process; ctr only adds labels. On the wire one sees who does the
// work: it is the client that makes the snapshot and writes config.json, before it asks for a container that names both,
// and it is the client that looks before it deletes. A pull is one call to a daemon that can transfer by itself, and a
// whole conversation where the client fetches.
//
// Hint: put a proxy before containerd's socket, ctr --address; the method's name is in each request.
// Spec: https://github.com/containerd/containerd/tree/main/api/services
func TestTask_WhichCtrCommandIsWhichClientCall(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Which ctr command is which client call?")
	d := ctrd.Start(q) // what a pull asks for depends on what other namespaces have
	ref, ours := q.Image()
	registry := hosts(q)
	w := d.StartProxy()
	c := &conversation{q: q, d: d, w: w, ref: ref, id: q.ID(ctrd.ContainerID), hosts: registry, said: map[string]map[string][]string{}}

	q.Step("by ctr")
	typed := c.byCtr()
	q.Step("by the Go client")
	programmed := c.byClient()

	q.Step("the same end: container, configuration, snapshot, task, process")
	difference, err := bundle.Difference(typed.spec, programmed.spec)
	assert.NilError(q, err)
	terms := differing(typed.process, programmed.process)
	if q.UnderTest("ctr").Pinned {
		assert.Check(q, cmp.Len(difference, 0), "of the OCI configuration: - ctr's, + the Go client's")
		assert.Check(q, cmp.DeepEqual(typed.process, programmed.process))
	} // else ctr is made of another version of the client's library, and writes what that one does
	assert.Check(q, cmp.DeepEqual(typed.process["args"], programmed.process["args"]))
	assert.Check(q, cmp.DeepEqual(typed.record, programmed.record))
	q.Fact("record, snapshot and task of both", typed.record)
	q.Fact("differences of the OCI configuration", difference)
	q.Fact("terms of the process that differ", terms)

	q.Step("but for the labels, which are ctr's own idea")
	extra := slices.Sorted(maps.Keys(typed.labels))
	assert.Check(q, cmp.Len(programmed.labels, 0), "labels of the Go client's container: %v", programmed.labels)
	if ours && q.Pinned() {
		assert.Check(q, cmp.DeepEqual(extra, []string{"io.containerd.image.config.stop-signal"}), "labels that ctr adds")
	}
	q.Fact("labels that ctr adds", extra)

	q.Step("what was said on the wire")
	var table strings.Builder
	for _, act := range acts {
		fmt.Fprintln(&table, act.name)
		for _, hand := range []string{"ctr", "Go"} {
			calls := c.said[act.name][hand]
			needs := act.needs
			if act.name == "images pull" && slices.Contains(calls, "Transfer/Transfer") {
				needs = []string{"Transfer/Transfer"} // the daemon does it all
			}
			assert.Check(q, inThisOrder(calls, needs), "%s by %s said %v, and not, in this order, %v", act.name, hand, calls, needs)
			q.Fact(act.name+", "+hand, calls)
			fmt.Fprintf(&table, "  %-4s %s\n", hand, strings.Join(calls, " "))
		}
	}
	if ours && q.Pinned() {
		golden.Assert(q, table.String(), "wire.golden")
	}

	q.Answer("Each is a few calls of the same client: what it has to prepare, the one that does it, and before a delete a look.")
}

// acts are the commands of the chapter, and what each has to say in the least, in this order.
var acts = []struct {
	name  string
	needs []string
}{
	{"images pull", []string{"Content/Write", "Diff/Apply", "Images/Create", "Leases/Create", "Snapshots/Commit", "Snapshots/Prepare"}},
	{"containers create", []string{"Images/Get", "Snapshots/Prepare", "Containers/Create"}},
	{"tasks start", []string{"Containers/Get", "Snapshots/Mounts", "Tasks/Create", "Tasks/Start"}},
	{"tasks ls", []string{"Tasks/List"}},
	{"tasks exec", []string{"Tasks/Exec", "Tasks/Start", "Tasks/DeleteProcess"}},
	{"tasks kill", []string{"Tasks/Kill"}},
	{"tasks delete", []string{"Tasks/Get", "Tasks/Delete"}},
	{"containers delete", []string{"Snapshots/Remove", "Containers/Delete"}},
	{"events", []string{"Events/Subscribe"}},
}

// differing lists the terms in which two processes differ.
func differing(a, b map[string]string) []string {
	var out []string
	for _, term := range slices.Sorted(maps.Keys(a)) {
		if a[term] != b[term] {
			out = append(out, term)
		}
	}
	return out
}

func inThisOrder(calls, needs []string) bool {
	for _, c := range calls {
		if len(needs) > 0 && c == needs[0] {
			needs = needs[1:]
		}
	}
	return len(needs) == 0
}

// conversation is a lifecycle, twice, and what was said of each act.
type conversation struct {
	q       *lab.Q
	d       *ctrd.Daemon
	w       *ctrd.Proxy
	ref, id string
	hosts   string                         // "" where the image is pulled from where it really is
	said    map[string]map[string][]string // act → by ctr, by Go → calls

}

// note takes down what was said of an act since the last one. What a client says at the same time has no order: the wait
// for a process's end, and all of a pull.
func (c *conversation) note(act, hand string) {
	calls := c.w.TakeCalls()
	if act == "images pull" {
		slices.Sort(calls)
	} else {
		// A blob is asked for by Info and Read in turn, over and over; and the end of ctr's own input may come too late to
		// be told to an exec.
		calls = slices.DeleteFunc(calls, func(s string) bool { return s == "Content/Info" || s == "Tasks/CloseIO" })
	}
	calls = slices.Compact(calls)
	if i := slices.Index(calls, "Tasks/Wait"); i >= 0 {
		calls = append(slices.Delete(calls, i, i+1), "Tasks/Wait")
	}
	if c.said[act] == nil {
		c.said[act] = map[string][]string{}
	}
	c.said[act][hand] = calls
}

// outcome is what a lifecycle has made, while it runs.
type outcome struct {
	spec    *specs.Spec
	record  map[string]string
	labels  map[string]string
	process map[string]string
}

// byCtr types the chapter's commands.
func (c *conversation) byCtr() outcome {
	q, d := c.q, c.d
	at := func(act string, args ...string) {
		q.Helper()
		d.Ctr(append([]string{"--address", c.w.Address}, args...)...)
		c.note(act, "ctr")
	}
	pull := []string{"images", "pull"}
	if c.hosts != "" {
		pull = append(pull, "--hosts-dir", c.hosts)
	}
	create := []string{"containers", "create"}
	if d.CanSetRuncRoot() {
		create = append(create, "--runc-root", d.RuncRoot)
	}
	at("images pull", append(pull, c.ref)...)
	at("containers create", append(create, c.ref, c.id, "sleep", "300")...)
	at("tasks start", "tasks", "start", "-d", "--fifo-dir", d.FifoDir, c.id)
	made := c.outcome()
	at("tasks ls", "tasks", "ls")
	at("tasks exec", "tasks", "exec", "--fifo-dir", d.FifoDir, "--exec-id", "again", c.id, "true")

	q.Control("what the client refuses is never said")
	for _, act := range []string{"tasks", "containers"} {
		refused := d.TryCtr("--address", c.w.Address, act, "delete", c.id)
		calls := c.w.TakeCalls()
		assert.Check(q, refused.Code != 0, "%s", refused)
		assert.Check(q, slices.Contains(calls, "Tasks/Get"), "a refusal without a look: %v", calls)
		assert.Check(q, !slices.ContainsFunc(calls, func(s string) bool { return strings.Contains(s, "/Delete") || strings.Contains(s, "/Remove") }),
			"%s delete, of what runs, said %v", act, calls)
		q.Fact(act+" delete, refused", slices.Compact(calls))
	}

	at("tasks kill", "tasks", "kill", "-s", "SIGKILL", c.id)
	proc.WaitFor(q, d.TaskStopped(c.id))
	at("tasks delete", "tasks", "delete", c.id)
	at("containers delete", "containers", "delete", c.id)
	listener := q.StartBackground("ctr", "-n", d.Namespace, "--address", c.w.Address, "events")
	c.untilSubscribed()
	listener.Signal(unix.SIGTERM)
	listener.ExitCode()
	c.note("events", "ctr")
	d.Ctr("images", "rm", "--sync", c.ref)
	return made
}

// byClient makes the same by calls of the Go client.
func (c *conversation) byClient() outcome {
	q, d := c.q, c.d
	client, err := containerd.New(c.w.Address, containerd.WithDefaultNamespace(d.Namespace))
	assert.NilError(q, err)
	defer client.Close()
	ctx, cancel := context.WithCancel(namespaces.WithNamespace(context.Background(), d.Namespace))
	defer cancel()
	did := func(act, call string, err error) {
		q.Helper()
		q.LogCommand("# %s", call)
		assert.NilError(q, err, call)
		c.note(act, "Go")
	}

	var from []containerd.RemoteOpt
	if c.hosts != "" {
		from = append(from, containerd.WithResolver(docker.NewResolver(docker.ResolverOptions{
			Hosts: config.ConfigureHosts(ctx, config.HostOptions{HostDir: config.HostDirFromRoot(c.hosts)}),
		})))
	}
	pulled, err := client.Pull(ctx, c.ref, append(from, containerd.WithPullUnpack)...)
	did("images pull", "client.Pull(ctx, ref, containerd.WithPullUnpack)", err)

	var options any = &runcoptions.Options{}
	if d.CanSetRuncRoot() {
		options = &runcoptions.Options{Root: d.RuncRoot}
	}
	i, err := client.GetImage(ctx, pulled.Name())
	assert.NilError(q, err)
	container, err := client.NewContainer(ctx, c.id,
		containerd.WithImage(i),
		containerd.WithNewSnapshot(c.id, i),
		containerd.WithRuntime("io.containerd.runc.v2", options),
		containerd.WithNewSpec(oci.WithDefaultUnixDevices, oci.WithImageConfig(i), oci.WithProcessArgs("sleep", "300")))
	did("containers create", "client.NewContainer(ctx, id, WithImage(i), WithNewSnapshot(id, i), WithNewSpec(…))", err)

	task, err := container.NewTask(ctx, cio.NullIO)
	if err == nil {
		err = task.Start(ctx)
	}
	did("tasks start", "container.NewTask(ctx, cio.NullIO); task.Start(ctx)", err)
	made := c.outcome()

	_, err = client.TaskService().List(ctx, &tasksapi.ListTasksRequest{})
	did("tasks ls", "client.TaskService().List(ctx, …)", err)

	again := *made.spec.Process
	again.Args = []string{"true"}
	exec, err := task.Exec(ctx, "again", &again, cio.NullIO)
	assert.NilError(q, err)
	exited, err := exec.Wait(ctx)
	assert.NilError(q, err)
	assert.NilError(q, exec.Start(ctx))
	<-exited
	_, err = exec.Delete(ctx)
	did("tasks exec", "p := task.Exec(ctx, …); p.Wait(ctx); p.Start(ctx); p.Delete(ctx)", err)

	did("tasks kill", "task.Kill(ctx, syscall.SIGKILL)", task.Kill(ctx, syscall.SIGKILL))
	proc.WaitFor(q, d.TaskStopped(c.id))
	_, err = task.Delete(ctx)
	did("tasks delete", "task.Delete(ctx)", err)
	did("containers delete", "container.Delete(ctx, containerd.WithSnapshotCleanup)", container.Delete(ctx, containerd.WithSnapshotCleanup))

	listening, stop := context.WithCancel(ctx)
	_, _ = client.Subscribe(listening)
	c.untilSubscribed()
	stop()
	did("events", "client.Subscribe(ctx)", nil)
	if err := client.ImageService().Delete(ctx, c.ref, images.SynchronousDelete()); !errdefs.IsNotFound(err) {
		assert.NilError(q, err)
	}
	return made
}

func (c *conversation) untilSubscribed() {
	c.q.Helper()
	proc.WaitFor(c.q, func(poll.LogT) poll.Result {
		if !c.w.HasCall("Events/Subscribe") {
			return poll.Continue("nobody has subscribed to events")
		}
		return poll.Success()
	})
}

// outcome looks, past the proxy, at what there is now.
func (c *conversation) outcome() outcome {
	q, d := c.q, c.d
	q.Helper()
	ctx := context.Background()
	container, err := d.Client().LoadContainer(ctx, c.id)
	assert.NilError(q, err)
	info, err := container.Info(ctx)
	assert.NilError(q, err)
	options, err := typeurl.UnmarshalAny(info.Runtime.Options)
	assert.NilError(q, err)
	snapshot, err := d.Client().SnapshotService(info.Snapshotter).Stat(ctx, info.SnapshotKey)
	assert.NilError(q, err)
	task, err := container.Task(ctx, nil)
	assert.NilError(q, err)
	status, err := task.Status(ctx)
	assert.NilError(q, err)
	pid := d.TaskPID(c.id)
	assert.Check(q, cmp.Equal(int(task.Pid()), pid), "the task's pid, by containerd and by the bundle")
	proc.WaitFor(q, proc.Runs(pid, "sleep"))
	return outcome{
		spec: d.Spec(c.id), labels: info.Labels, process: check.ProcessSettings(q, proc.Snapshot(q, pid)),
		record: map[string]string{
			"image": info.Image, "runtime": info.Runtime.Name, "options": fmt.Sprint(options),
			"snapshotter": info.Snapshotter, "snapshot": info.SnapshotKey, "snapshot's kind": snapshot.Kind.String(),
			"snapshot's parent": snapshot.Parent, "task": string(status.Status),
			"rootfs": fmt.Sprint(check.MountAt(q, filepath.Join(d.Bundle(c.id), "rootfs")) != nil),
		},
	}
}

// hosts has the lab's image served, and returns the directory that says where; "" where the image is another one.
func hosts(q *lab.Q) string {
	q.Helper()
	if _, ours := q.Image(); !ours {
		return ""
	}
	return image.Serve(q).HostsDir(q)
}
