//go:build linux && vmlab

package cdblab

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/containerd/v2/pkg/protobuf/proto"
	"github.com/containerd/containerd/v2/version"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/pelletier/go-toml/v2"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/poll"

	"cdblab/helpers/bundle"
	"cdblab/helpers/cgroup"
	"cdblab/helpers/check"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/file"
	"cdblab/helpers/image"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// One command of ctr makes a few calls, and the same that a program makes: ctr is a Go client with flags.
//
// Both leave the same container, snapshot, task and process; ctr only adds labels. The calls show which side does the work. The client
// has the snapshot prepared and composes the configuration, before it asks for a container that names both. containerd writes the
// configuration as config.json when a task is created. The client also looks before it deletes. Where the daemon can pull by itself,
// one call (Transfer) does all the work, beside a few calls, such as those for a lease. Where the client fetches, a pull is a long
// series of calls.
//
// Hint: put a proxy before containerd's socket, ctr --address; the method's name is in each request.
// Spec: https://github.com/containerd/containerd/tree/main/api/services
func TestTask_WhichCtrCommandIsWhichClientCall(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Which ctr command is which client call?")
	defer q.Recover()
	d := ctrd.Start(q) // what a pull asks for depends on what other namespaces have
	ref, ours := q.Image()
	hostsDir := ""
	if ours {
		hostsDir = image.Serve(q).HostsDir(q)
	}
	c := &callTrace{
		q: q, d: d, proxy: d.StartProxy(), ref: ref, id: q.ID(ctrd.ContainerID), hostsDir: hostsDir,
		calls: map[string]map[string][]string{},
	}

	q.Step("type the chapter's commands of ctr: a proxy before containerd's socket records their calls")
	byCtr := c.runCtr()
	q.Step("do the same by the Go client: the proxy records its calls, too")
	byGo := c.runGoClient()

	q.Step("compare what both have made: container, configuration, snapshot, task and process are the same")
	difference, err := bundle.Difference(byCtr.spec, byGo.spec)
	assert.NilError(q, err)
	differentSettings := []string{}
	for _, setting := range slices.Sorted(maps.Keys(byCtr.process)) {
		if byCtr.process[setting] != byGo.process[setting] {
			differentSettings = append(differentSettings, setting)
		}
	}
	// ctr writes what the client library writes of which it is built. This test is built of one version of that library. Another
	// version names another version of the specification, and may mask another path: 2.4.2 masks /proc/interrupts, 2.3.4 does not.
	for _, line := range difference {
		word := strings.Fields(line)[1]
		assert.Check(q, word == "ociVersion" || word == "linux.maskedPaths", "of the OCI configuration: - ctr's, + the Go client's: %s", line)
	}
	for _, setting := range differentSettings {
		assert.Check(q, cmp.Equal(setting, "mounts"), "a setting of the process that differs: %q by ctr, %q by the Go client",
			byCtr.process[setting], byGo.process[setting])
	}
	if strings.Contains(q.UnderTest("ctr").Version, version.Version) {
		assert.Check(q, cmp.Len(difference, 0), "of the OCI configuration: - ctr's, + the Go client's")
		assert.Check(q, cmp.DeepEqual(byCtr.process, byGo.process))
	}
	assert.Check(q, cmp.DeepEqual(byCtr.process["args"], byGo.process["args"]))
	assert.Check(q, cmp.DeepEqual(byCtr.record, byGo.record))
	q.Fact("record, snapshot and task of both", byCtr.record)
	q.Fact("differences of the OCI configuration", difference)
	q.Fact("settings of the process that differ", differentSettings)

	q.Step("compare the labels of the two containers: only ctr adds some")
	labels := slices.Sorted(maps.Keys(byCtr.labels))
	assert.Check(q, cmp.Len(byGo.labels, 0), "labels of the Go client's container: %v", byGo.labels)
	if ours { // whose config has neither labels nor a StopSignal: ctr writes SIGTERM
		assert.Check(q, cmp.DeepEqual(labels, []string{"io.containerd.image.config.stop-signal"}), "labels that ctr adds")
	}
	q.Fact("labels that ctr adds", labels)

	q.Step("compare the calls: each command has made at least those that its work needs, in this order")
	// The daemon's transfer service pulls for ctr, where ctr asks it. Otherwise ctr itself makes about as many calls as the Go client.
	byTransfer := slices.Contains(c.calls["images pull"]["ctr"], "Transfer/Transfer")
	if byTransfer {
		assert.Check(q, cmp.DeepEqual(c.calls["images pull"]["ctr"],
			[]string{"Introspection/Server", "Leases/Create", "Leases/Delete", "Streaming/Stream", "Transfer/Transfer"}), "images pull by ctr")
	}
	var table strings.Builder
	for _, command := range chapterCommands {
		fmt.Fprintln(&table, command.name)
		for _, client := range []string{"ctr", "Go"} {
			calls := c.calls[command.name][client]
			required := command.required
			pullByCtr := command.name == "images pull" && client == "ctr"
			if pullByCtr && byTransfer {
				required = []string{"Transfer/Transfer"} // the daemon does it all
			}
			assert.Check(q, containsInOrder(calls, required), "%s by %s made the calls %v, want, in this order, %v",
				command.name, client, calls, required)
			q.Fact(command.name+", "+client, calls)
			if !pullByCtr {
				// The ctr of containerd 2.2 also activates the mounts of the snapshot; 2.0 and 2.3 do not.
				common := slices.DeleteFunc(slices.Clone(calls), func(call string) bool { return call == "Mounts/Activate" })
				fmt.Fprintf(&table, "  %-4s %s\n", client, strings.Join(common, " "))
			}
		}
	}
	if ours {
		check.Golden(q, table.String(), "wire.golden")
	}

	q.Answer("Each ctr command makes a few calls of the client library that a Go program uses, too. Some prepare, one acts, " +
		"and before a delete some look at what there is.")
}

// chapterCommands are the ctr commands of the chapter, and the calls that each has to make at least, in this order.
var chapterCommands = []struct {
	name     string
	required []string
}{
	{"images pull", []string{
		"Content/Write", "Diff/Apply", "Images/Create", "Leases/Create", "Snapshots/Commit", "Snapshots/Prepare",
	}},
	{"containers create", []string{"Images/Get", "Snapshots/Prepare", "Containers/Create"}},
	{"tasks start", []string{"Containers/Get", "Snapshots/Mounts", "Tasks/Create", "Tasks/Start"}},
	{"tasks ls", []string{"Tasks/List"}},
	{"tasks exec", []string{"Tasks/Exec", "Tasks/Start", "Tasks/DeleteProcess"}},
	{"tasks kill", []string{"Tasks/Kill"}},
	{"tasks delete", []string{"Tasks/Get", "Tasks/Delete"}},
	{"containers delete", []string{"Snapshots/Remove", "Containers/Delete"}},
	{"events", []string{"Events/Subscribe"}},
}

// containsInOrder reports whether calls has the required ones in their order, with others between them or not.
func containsInOrder(calls, required []string) bool {
	for _, call := range calls {
		if len(required) > 0 && call == required[0] {
			required = required[1:]
		}
	}
	return len(required) == 0
}

// callTrace is the calls of a container's lifecycle that is run twice, by ctr and by a Go client.
type callTrace struct {
	q        *lab.Q
	d        *ctrd.Daemon
	proxy    *ctrd.Proxy
	ref, id  string
	hostsDir string                         // "" where the image is pulled from its real registry
	calls    map[string]map[string][]string // command → client ("ctr", "Go") → calls
}

// record records the calls since the last command as those of a command. Calls that a client makes at the same time have no
// order: the wait for a process's end, and all calls of a pull.
func (c *callTrace) record(command, client string) {
	calls := c.proxy.TakeCalls()
	if command == "images pull" {
		slices.Sort(calls)
	} else {
		// A blob is asked for by Info and Read in turn, over and over. And the end of ctr's own input may come too late for
		// an exec that has ended by then.
		calls = slices.DeleteFunc(calls, func(s string) bool { return s == "Content/Info" || s == "Tasks/CloseIO" })
	}
	calls = slices.Compact(calls)
	if i := slices.Index(calls, "Tasks/Wait"); i >= 0 {
		calls = append(slices.Delete(calls, i, i+1), "Tasks/Wait")
	}
	if c.calls[command] == nil {
		c.calls[command] = map[string][]string{}
	}
	c.calls[command][client] = calls
}

// runningTask is what a client has made, while the task runs.
type runningTask struct {
	spec    *specs.Spec
	record  map[string]string // of container, snapshot and task
	labels  map[string]string
	process map[string]string
}

// runCtr types the chapter's commands.
func (c *callTrace) runCtr() runningTask {
	q, d := c.q, c.d
	ctr := func(command string, args ...string) {
		q.Helper()
		d.Ctr(append([]string{"--address", c.proxy.Address}, args...)...)
		c.record(command, "ctr")
	}
	pull := []string{"images", "pull"}
	if c.hostsDir != "" {
		pull = append(pull, "--hosts-dir", c.hostsDir)
	}
	create := []string{"containers", "create"}
	if d.CanSetRuncRoot() {
		create = append(create, "--runc-root", d.RuncRoot)
	}
	ctr("images pull", append(pull, c.ref)...)
	ctr("containers create", append(create, c.ref, c.id, "sleep", "3600")...)
	ctr("tasks start", "tasks", "start", "-d", "--fifo-dir", d.FifoDir, c.id)
	running := c.observe()
	ctr("tasks ls", "tasks", "ls")
	ctr("tasks exec", "tasks", "exec", "--fifo-dir", d.FifoDir, "--exec-id", "again", c.id, "true")

	q.Control("delete while the task runs: the client looks, refuses by itself, and makes no call that deletes")
	for _, noun := range []string{"tasks", "containers"} {
		refused := d.TryCtr("--address", c.proxy.Address, noun, "delete", c.id)
		calls := c.proxy.TakeCalls()
		assert.Check(q, refused.Code != 0, "%s", refused)
		assert.Check(q, slices.Contains(calls, "Tasks/Get"), "a refusal without a look at the task: %v", calls)
		deletes := slices.ContainsFunc(calls, func(call string) bool {
			return strings.Contains(call, "/Delete") || strings.Contains(call, "/Remove")
		})
		assert.Check(q, !deletes, "%s delete, while the task runs, made the calls %v", noun, calls)
		q.Fact(noun+" delete, refused", slices.Compact(calls))
	}

	ctr("tasks kill", "tasks", "kill", "-s", "SIGKILL", c.id)
	proc.WaitFor(q, d.TaskStopped(c.id))
	ctr("tasks delete", "tasks", "delete", c.id)
	ctr("containers delete", "containers", "delete", c.id)
	listener := q.StartBackground("ctr", "-n", d.Namespace, "--address", c.proxy.Address, "events")
	c.waitForSubscription()
	listener.Signal(unix.SIGTERM)
	listener.ExitCode()
	c.record("events", "ctr")
	d.Ctr("images", "rm", "--sync", c.ref)
	return running
}

// runGoClient makes the same by calls of the Go client.
func (c *callTrace) runGoClient() runningTask {
	q, d := c.q, c.d
	client, err := ctrd.NewClient(c.proxy.Address, d.Namespace)
	assert.NilError(q, err)
	defer client.Close()
	ctx, cancel := context.WithCancel(namespaces.WithNamespace(context.Background(), d.Namespace))
	defer cancel()
	// did takes note of a call of the client library, which stands for a command of ctr.
	did := func(command, call string, err error) {
		q.Helper()
		q.LogCommand("# %s", call)
		assert.NilError(q, err, call)
		c.record(command, "Go")
	}

	options := []containerd.RemoteOpt{containerd.WithPullUnpack}
	if c.hostsDir != "" {
		options = append(options, containerd.WithResolver(docker.NewResolver(docker.ResolverOptions{
			Hosts: config.ConfigureHosts(ctx, config.HostOptions{HostDir: config.HostDirFromRoot(c.hostsDir)}),
		})))
	}
	pulled, err := client.Pull(ctx, c.ref, options...)
	did("images pull", "client.Pull(ctx, ref, containerd.WithPullUnpack)", err)

	runtimeOptions := &runcoptions.Options{}
	if d.CanSetRuncRoot() {
		runtimeOptions.Root = d.RuncRoot
	}
	img, err := client.GetImage(ctx, pulled.Name())
	assert.NilError(q, err)
	container, err := client.NewContainer(ctx, c.id,
		containerd.WithImage(img),
		containerd.WithNewSnapshot(c.id, img),
		containerd.WithRuntime("io.containerd.runc.v2", runtimeOptions),
		containerd.WithNewSpec(oci.WithDefaultUnixDevices, oci.WithImageConfig(img), oci.WithProcessArgs("sleep", "3600")))
	did("containers create", "client.NewContainer(ctx, id, WithImage(i), WithNewSnapshot(id, i), WithNewSpec(…))", err)

	task, err := container.NewTask(ctx, cio.NullIO)
	if err == nil {
		err = task.Start(ctx)
	}
	did("tasks start", "container.NewTask(ctx, cio.NullIO); task.Start(ctx)", err)
	running := c.observe()

	_, err = client.TaskService().List(ctx, &tasksapi.ListTasksRequest{})
	did("tasks ls", "client.TaskService().List(ctx, …)", err)

	process := *running.spec.Process
	process.Args = []string{"true"}
	exec, err := task.Exec(ctx, "again", &process, cio.NullIO)
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
	err = container.Delete(ctx, containerd.WithSnapshotCleanup)
	did("containers delete", "container.Delete(ctx, containerd.WithSnapshotCleanup)", err)

	listening, stop := context.WithCancel(ctx)
	_, _ = client.Subscribe(listening)
	c.waitForSubscription()
	stop()
	did("events", "client.Subscribe(ctx)", nil)
	if err := client.ImageService().Delete(ctx, c.ref, images.SynchronousDelete()); !errdefs.IsNotFound(err) {
		assert.NilError(q, err)
	}
	return running
}

// waitForSubscription waits until a client of the proxy subscribes to events.
func (c *callTrace) waitForSubscription() {
	c.q.Helper()
	proc.WaitFor(c.q, func(poll.LogT) poll.Result {
		if !c.proxy.HasCall("Events/Subscribe") {
			return poll.Continue("no client has subscribed to events")
		}
		return poll.Success()
	})
}

// observe returns what there is now. It does not go through the proxy, so its own calls are not recorded.
func (c *callTrace) observe() runningTask {
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
	assert.Check(q, cmp.Equal(proc.PID(task.Pid()), pid), "the task's pid, by containerd and by the bundle")
	proc.WaitFor(q, proc.Runs(pid, "sleep"))
	return runningTask{
		spec: d.Spec(c.id), labels: info.Labels, process: check.ProcessSettings(q, proc.Snapshot(q, pid)),
		record: map[string]string{
			"image": info.Image, "runtime": info.Runtime.Name, "options": fmt.Sprint(options),
			"snapshotter": info.Snapshotter, "snapshot": info.SnapshotKey, "snapshot's kind": snapshot.Kind.String(),
			"snapshot's parent": snapshot.Parent, "task": string(status.Status),
			"rootfs": fmt.Sprint(check.MountAt(q, filepath.Join(d.Bundle(c.id), "rootfs")) != nil),
		},
	}
}

// `ctr run` does `ctr containers create` and `ctr tasks start` in one command. Only `ctr run` can also remove the container (--rm), choose
// its cgroup (--cgroup) and set up its network (--cni). It is not more secure: without --seccomp, neither sets a seccomp filter.
//
// `ctr run` and `ctr containers create` write the same config.json, except the cpu shares. `ctr run` and `ctr tasks start` both wait for
// the task's end, delete the task and end with its exit code, unless -d is given. Without a flag, config.json has neither seccomp nor
// AppArmor. It has the client library's default: 14 capabilities, no_new_privs, masked and read-only paths, and no filter of system calls.
// Docker has a filter by default (https://docs.docker.com/engine/security/seccomp/), so a program that works by ctr may fail in Docker.
// The flags --seccomp, --cap-drop, --user, --privileged and --cpu-quota do the same in both commands.
//
// Only `ctr run` has --rm, --cgroup, --cni, --rlimit-nofile and most flags of the cpu controller. Without such a flag it still writes
// linux.resources.cpu.shares = 1024, the default of cgroup v1. On cgroup v2, an older runc turns this into cpu.weight 39; the default is
// 100. Without --rm, the container and its snapshot stay, and the id is taken. ctr refuses --rm together with -d.
//
// Hint: `ctr containers info`; Seccomp, NoNewPrivs and CapEff in /proc/PID/status; `ctr run --help` against `ctr containers create --help`.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#seccomp,
// https://github.com/containerd/containerd/blob/main/docs/getting-started.md#creating-an-oci-spec-and-container
// Kernel: https://man7.org/linux/man-pages/man5/proc_pid_status.5.html, https://man7.org/linux/man-pages/man2/seccomp.2.html
func TestTask_WhatDoesCtrRunGiveThatCreateAndStartDoNot(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does `ctr run` give that create and start do not?")
	defer q.Recover()
	d := ctrd.Shared(q)
	c := &runAndCreate{q: q, d: d, ref: d.PullImage()}

	q.Step("create and start a task, and run another one: config.json and settings are the same, except the cpu shares")
	created, ran := q.ID("cdb-created"), q.ID("cdb-ran")
	d.CreateContainer(c.ref, created, "sleep", "3600")
	d.StartTask(created)
	d.Ctr(c.runArgs([]string{"-d"}, ran, "sleep", "3600")...)
	c.assertSameSpec("without flags", created, ran)
	byCreate, _ := c.settings(created)
	plain, p := c.settings(ran)
	assert.Check(q, cmp.DeepEqual(plain, byCreate), "settings of the program, by `ctr run`, and by create and start")
	c.compareCPUShares(created, ran)

	q.Step("look for seccomp and AppArmor: neither command sets a filter or a profile")
	self := proc.Settings(q, proc.Self(q).PID)
	selfMode, inherited := seccompOf(q, self)
	mode, n := seccompOf(q, plain)
	assert.Check(q, cmp.DeepEqual([]any{mode, n}, []any{selfMode, inherited}), "Seccomp and number of filters, against those of the lab itself")
	spec := d.Spec(ran)
	assert.Check(q, spec.Linux.Seccomp == nil && spec.Process.ApparmorProfile == "", "seccomp %v, AppArmor profile %q",
		spec.Linux.Seccomp, spec.Process.ApparmorProfile)
	assert.Check(q, cmp.Equal(plain["NoNewPrivs"], "1"))
	paths := append(slices.Clone(spec.Linux.MaskedPaths), spec.Linux.ReadonlyPaths...)
	masked := protectedPaths(p, paths)
	assert.Check(q, len(masked) > 0, "none of these is masked or read-only: %v", paths)
	q.Fact("without flags: masked and read-only paths", masked)
	q.Fact("without flags: Seccomp", mode)
	q.Fact("without flags: NoNewPrivs", plain["NoNewPrivs"])
	q.Fact("without flags: CapEff", plain["CapEff"])

	q.Step("give the same flags to both commands: each changes the same fields of config.json, and the kernel shows them")
	without := flaglessTask{settings: plain, protected: masked, paths: paths, labsMode: selfMode, labsFilters: inherited}
	for _, flag := range flagsOfBoth {
		c.compareFlag(flag, without)
	}

	q.Step("make a user namespace in a task with --seccomp, and in one without: only the profile refuses it")
	tryUnshare := []string{"tasks", "exec", "--fifo-dir", d.FifoDir, "--exec-id", "try"}
	refused := d.Refused("Operation not permitted", append(slices.Clone(tryUnshare), q.ID("cdb-run-seccomp"), "unshare", "-U", "true")...)
	allowed := d.TryCtr(append(slices.Clone(tryUnshare), ran, "unshare", "-U", "true")...)
	forbidden := settingsAgainstUserNamespaces()
	assert.Check(q, allowed.Code == 0 || len(forbidden) > 0, "unshare -U without a filter:\n%s", allowed)
	q.Fact("host: settings that forbid user namespaces", forbidden)
	q.Fact("unshare -U, without and with --seccomp: exit code", []int{allowed.Code, refused.Code})

	q.Step("run a task in the foreground: ctr ends with its exit code; the container and its snapshot stay, unless --rm removes them")
	stays := q.ID("cdb-stays")
	for _, row := range []struct {
		id      string
		options []string
		stays   bool
	}{{stays, nil, true}, {q.ID("cdb-goes"), []string{"--rm"}, false}} {
		r := d.TryCtr(c.runArgs(row.options, row.id, "sh", "-c", "exit 7")...)
		assert.Check(q, cmp.Equal(r.Code, 7), "exit code of %s", r)
		has := []bool{
			slices.Contains(strings.Fields(d.Ctr("tasks", "ls", "-q").Stdout), row.id),
			slices.Contains(strings.Fields(d.Ctr("containers", "ls", "-q").Stdout), row.id),
			slices.Contains(strings.Fields(d.Ctr("snapshots", "ls").Stdout), row.id),
		}
		assert.Check(q, cmp.DeepEqual(has, []bool{false, row.stays, row.stays}), "task, container and snapshot after run %v", row.options)
		q.Fact(fmt.Sprintf("after run %v: task, container, snapshot", row.options), has)
	}
	taken := d.Refused("already exists", c.runArgs(nil, stays, "true")...)
	q.Fact("run with the id of a container that exists: error, of its snapshot", ctrd.CtrError(taken))
	detached := d.Refused("cannot be specified together", c.runArgs([]string{"-d", "--rm"}, q.ID("cdb-both"), "true")...)
	q.Fact("run -d --rm: error", ctrd.CtrError(detached))

	q.Control("start the container that stays, by `tasks start`: it ends with the exit code and deletes the task, as `ctr run` does")
	d.WaitForShimEnd(filepath.Join(d.SocketDir, d.SocketName(stays))) // of the task that ctr run has deleted
	started := d.TryCtr("tasks", "start", "--fifo-dir", d.FifoDir, stays)
	assert.Check(q, cmp.Equal(started.Code, 7), "exit code of %s", started)
	assert.Check(q, !slices.Contains(strings.Fields(d.Ctr("tasks", "ls", "-q").Stdout), stays), "the task is still listed")
	q.Fact("tasks start in the foreground: exit code", started.Code)

	q.Step("choose the cgroup: only `ctr run` can")
	elsewhere := q.ID("cdb-elsewhere")
	d.Ctr(c.runArgs([]string{"-d", "--cgroup", q.Cgroup + "/chosen"}, elsewhere, "sleep", "3600")...)
	_, p = c.settings(elsewhere)
	check.OnlyProcessInCgroup(q, p.Identity, q.Cgroup+"/chosen")
	unknown := d.Refused("flag provided but not defined",
		"containers", "create", "--cgroup", q.Cgroup+"/chosen", c.ref, q.ID("cdb-none"), "true")
	q.Fact("run --cgroup: processes of the chosen cgroup", cgroup.Of(q, q.Cgroup+"/chosen").Procs())
	q.Fact("containers create --cgroup: error", ctrd.CtrError(unknown))

	q.Answer("`ctr run` does `ctr containers create` and `ctr tasks start` in one command. Only `ctr run` can also remove the container, " +
		"choose its cgroup and set up its network. It is not more secure: without --seccomp, neither sets a seccomp filter.")
}

// runAndCreate compares tasks of `ctr run` with those of `ctr containers create` and `ctr tasks start`.
type runAndCreate struct {
	q   *lab.Q
	d   *ctrd.Daemon
	ref string
}

// runArgs returns the arguments of `ctr run`, with those that keep its files out of /run/containerd.
func (c *runAndCreate) runArgs(options []string, id string, args ...string) []string {
	argv := []string{"run", "--fifo-dir", c.d.FifoDir}
	if c.d.CanSetRuncRoot() {
		argv = append(argv, "--runc-root", c.d.RuncRoot)
	}
	return append(append(append(argv, options...), "--", c.ref, id), args...) // an older ctr takes `-c` of the shell as its own flag
}

// assertSameSpec asserts that the configuration of two containers differs only in the cgroup's name and in the cpu shares.
func (c *runAndCreate) assertSameSpec(what, created, ran string) {
	q, d := c.q, c.d
	q.Helper()
	a, b := d.Spec(created), d.Spec(ran)
	assert.Check(q, cmp.DeepEqual([]string{a.Linux.CgroupsPath, b.Linux.CgroupsPath},
		[]string{"/" + d.Namespace + "/" + created, "/" + d.Namespace + "/" + ran}), "%s: linux.cgroupsPath", what)
	b.Linux.CgroupsPath = a.Linux.CgroupsPath
	difference, err := bundle.Difference(a, b)
	assert.NilError(q, err)
	assert.Check(q, cmp.DeepEqual(difference, []string{"+ linux.resources.cpu.shares = 1024"}),
		"%s: - the config.json of `containers create`, + that of `ctr run`", what)
	q.Fact(what+": config.json of `containers create` and `run`", difference)
}

// settings returns what the process of a task has from its config.json.
func (c *runAndCreate) settings(id string) (map[string]string, proc.Process) {
	q := c.q
	q.Helper()
	pid := c.d.TaskPID(id)
	proc.WaitFor(q, proc.Runs(pid, "sleep"))
	p := proc.Snapshot(q, pid)
	out := check.ProcessSettings(q, p)
	maps.Copy(out, proc.Settings(q, pid))
	maps.DeleteFunc(out, func(name, _ string) bool { return strings.HasPrefix(name, "cgroup ") })
	return out, p
}

// compareCPUShares reads from the cgroups of both tasks what the kernel has got of the cpu shares.
func (c *runAndCreate) compareCPUShares(created, ran string) {
	q, d := c.q, c.d
	knob, unlimited, shares := "cpu.shares", "1024", []string{"1024"}
	if cgroup.Version(q) == "v2" {
		knob, unlimited, shares = "cpu.weight", "100", []string{"39", "100"} // newer releases of runc turn 1024 shares into weight 100
	}
	if g := cgroup.Of(q, "/"+d.Namespace+"/"+ran); g.Has("cpu") {
		assert.Check(q, cmp.Equal(cgroup.Of(q, "/"+d.Namespace+"/"+created).Read("cpu", knob), unlimited), "%s, by create and start", knob)
		assert.Check(q, cmp.Contains(shares, g.Read("cpu", knob)), "%s, by `ctr run`", knob)
		q.Fact(knob+": by create and start, by `ctr run`", []string{unlimited, g.Read("cpu", knob)})
	}
}

// seccompOf returns the seccomp mode of a process, and the number of its filters, from its settings.
func seccompOf(q *lab.Q, settings map[string]string) (mode string, filters int) {
	n, known := settings["Seccomp_filters"] // since Linux 5.9
	if !known {
		return settings["Seccomp"], 0
	}
	return settings["Seccomp"], check.Int(q, n)
}

// protectedPaths returns those of the masked and read-only paths that the kernel protects in a process by a mount. Not each host has each
// path.
func protectedPaths(p proc.Process, paths []string) []string {
	return slices.DeleteFunc(slices.Clone(paths), func(path string) bool { return !slices.Contains(check.MountPoints(p), path) })
}

// ctrFlag is a flag of `ctr run` and of `ctr containers create`.
type ctrFlag struct {
	name    string // in the ids of its containers
	options []string
	changed []string // settings that differ from those without the flag; those of seccomp are compared apart
}

// flagsOfBoth are flags that both commands have. Each is given to a container of its own.
var flagsOfBoth = []ctrFlag{
	{"seccomp", []string{"--seccomp"}, nil},
	{"allow-new-privs", []string{"--allow-new-privs"}, []string{"NoNewPrivs"}},
	{"cap-drop", []string{"--cap-drop", "CAP_CHOWN"}, []string{"CapBnd", "CapEff", "CapPrm"}},
	{"cap-add", []string{"--cap-add", "CAP_SYS_ADMIN"}, []string{"CapBnd", "CapEff", "CapPrm"}},
	// HOME is in the environment, and the image has no user 1000.
	{"user", []string{"--user", "1000:1000"}, []string{"CapEff", "CapPrm", "Gid", "Groups", "Uid", "env", "environ", "uid"}},
	{"privileged", []string{"--privileged"}, []string{"CapBnd", "CapEff", "CapPrm", "mounts"}},
	{"cpu-quota", []string{"--cpu-quota", "50000", "--cpu-period", "100000"}, nil},
}

// flaglessTask is what a task has that ctr has made without a flag. A task with a flag is compared with it.
type flaglessTask struct {
	settings    map[string]string
	paths       []string // that config.json masks or makes read-only
	protected   []string // those of paths that this host has
	labsMode    string   // Seccomp of the lab itself, which the task has inherited
	labsFilters int
}

// compareFlag makes a container with the flag by each of the two commands, and compares their config.json. It asserts what the kernel
// shows of the flag in the task of `ctr run`.
func (c *runAndCreate) compareFlag(flag ctrFlag, without flaglessTask) {
	q, d := c.q, c.d
	typed := strings.Join(flag.options, " ")
	ran, created := q.ID("cdb-run-"+flag.name), q.ID("cdb-create-"+flag.name)
	d.Ctr(c.runArgs(append([]string{"-d"}, flag.options...), ran, "sleep", "3600")...)
	d.CreateContainerWith(flag.options, c.ref, created, "sleep", "3600")
	c.assertSameSpec(typed, created, ran)
	now, p := c.settings(ran)
	changed := []string{}
	for _, name := range slices.Sorted(maps.Keys(now)) {
		if now[name] != without.settings[name] && !strings.HasPrefix(name, "Seccomp") {
			changed = append(changed, name)
		}
	}
	assert.Check(q, cmp.DeepEqual(changed, append([]string{}, flag.changed...)), "settings that %s changes", typed)
	mode, n := seccompOf(q, now)
	if flag.name == "seccomp" {
		assert.Check(q, cmp.Equal(mode, "2"), "Seccomp with --seccomp: 2 is a filter")
		if _, known := now["Seccomp_filters"]; known {
			assert.Check(q, cmp.Equal(n, without.labsFilters+1), "number of filters with --seccomp")
		}
	} else {
		assert.Check(q, cmp.DeepEqual([]any{mode, n}, []any{without.labsMode, without.labsFilters}),
			"Seccomp and number of filters with %s", typed)
	}
	if flag.name == "privileged" {
		assert.Check(q, cmp.Len(protectedPaths(p, without.paths), 0), "masked and read-only paths with %s", typed)
	} else {
		assert.Check(q, cmp.DeepEqual(protectedPaths(p, without.paths), without.protected), "masked and read-only paths with %s", typed)
	}
	q.Fact(typed+": Seccomp, NoNewPrivs, CapEff", []string{mode, now["NoNewPrivs"], now["CapEff"]})
	if flag.name == "cpu-quota" {
		knob, want := "cpu.cfs_quota_us", "50000"
		if cgroup.Version(q) == "v2" {
			knob, want = "cpu.max", "50000 100000"
		}
		if g := cgroup.Of(q, "/"+d.Namespace+"/"+ran); g.Has("cpu") {
			assert.Check(q, cmp.Equal(g.Read("cpu", knob), want), "%s with %s", knob, typed)
			q.Fact(typed+": "+knob, g.Read("cpu", knob))
		}
	}
}

// settingsAgainstUserNamespaces returns the files below /proc/sys by which some distributions forbid user namespaces to each program
// without CAP_SYS_ADMIN, whatever its filters are.
func settingsAgainstUserNamespaces() []string {
	forbidden := []string{}
	for setting, value := range map[string]string{
		"user/max_user_namespaces": "0", "kernel/unprivileged_userns_clone": "0", "kernel/apparmor_restrict_unprivileged_userns": "1",
	} {
		if data, err := os.ReadFile("/proc/sys/" + setting); err == nil && strings.TrimSpace(string(data)) == value {
			forbidden = append(forbidden, setting)
		}
	}
	return forbidden
}

// The shim tells by -info what its runtime can do: it runs `runc features`. `containerd config dump` and `config migrate` tell which
// configuration a daemon would have with a file. `ctr oci spec` tells the default of config.json, to which ctr adds image and flags.
//
// -info reads the runtime's options from its input, as a message of protobuf, and answers with such a message. The daemon runs the shim
// with -info for `ctr plugins inspect-runtime`, which prints the same as JSON. If the runtime has no command features, the answer has none.
// A feature that is newer than the shim is missing in the answer: the shim drops the fields that it does not know.
//
// config dump and config migrate read a file, and ask no daemon. So dump tells what is in the file now. It knows neither what a daemon has
// read at its start, nor the daemon's flags. Both commands print the same: all settings of this release, also those that the file does not
// have, and in the newest format. Neither changes the file. A daemon migrates an old file in memory at each start. So migrate is needed
// only to edit the file in the new format. Do not just write another number: in format 4 the address of the socket is in the table of a
// plugin, and a daemon ignores the old table grpc.
//
// Hint: put a script before runc that records its arguments. Compare `ctr oci spec` with config.json in the bundle of a task.
// Spec: https://github.com/containerd/containerd/blob/main/docs/runtime-v2.md#-info,
// https://github.com/containerd/containerd/blob/main/docs/man/containerd-config.8.md
// Kernel: https://man7.org/linux/man-pages/man7/unix.7.html
func TestTask_WhatDoContainerdsProgramsTellOfThemselves(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What do containerd's programs tell of themselves?")
	defer q.Recover()
	recorder := runc.WriteRecorder(q)
	d := ctrd.Start(q)

	q.Run("shim", func(q *lab.Q) {
		if !ctrd.Knows(q, "containerd-shim-runc-v2", "print the shim info protobuf") {
			q.Skip("this shim has no -info: to ask this, take another one: make lab SHIM=2.0.7")
		}
		askShim(q, d.InSubtest(q), recorder)
	})
	q.Run("config", func(q *lab.Q) {
		if !ctrd.Knows(q, "containerd", "Migrate the current configuration") {
			q.Skip("this containerd has no `config migrate`: to ask this, take another one: make lab CONTAINERD=2.0.7")
		}
		dumpAndMigrate(q, d.InSubtest(q))
	})
	q.Run("spec", func(q *lab.Q) { compareDefaultSpec(q, d.InSubtest(q)) })

	q.Answer("The shim tells by -info what its runtime can do: it runs `runc features`. containerd tells by `config dump` and `config " +
		"migrate` which configuration a daemon would have with a file. ctr tells by `oci spec` the default of config.json, to which it adds " +
		"the image and the flags.")
}

// askShim runs the shim with -info, and compares the answer with those of the runtime and of the daemon.
func askShim(q *lab.Q, d *ctrd.Daemon, recorder runc.Recorder) {
	calledSince := func(before int) []string { return runc.Commands(recorder.Calls(q)[before:]) }

	q.Step("run the shim with -info: it runs `runc features`, and answers with its name, its version and these features")
	before := len(recorder.Calls(q))
	info := shimInfo(q, recorder.Path)
	assert.Check(q, cmp.DeepEqual(calledSince(before), []string{"features"}), "commands with which the shim called the runtime")
	assert.Check(q, cmp.Equal(info.Name, "io.containerd.runc.v2"))
	program := q.UnderTest("containerd-shim-runc-v2").Version
	version := info.GetVersion().GetVersion()
	assert.Check(q, version != "" && strings.Contains(program, version), "the shim is %q, and its answer has the version %q", program, version)
	var answered, ofRuntime map[string]any
	check.DecodeJSON(q, string(info.GetFeatures().GetValue()), &answered)
	check.DecodeJSON(q, q.Must("runc", "features").Stdout, &ofRuntime)
	// The shim of containerd 2.0 drops the fields netDevices and memoryPolicy of a newer runc.
	dropUnknown(q, ofRuntime, "containerd-shim-runc-v2")
	assert.Check(q, cmp.DeepEqual(answered, ofRuntime), "features in the shim's answer, and those that the runtime prints")
	q.Fact("-info: calls of the runtime", calledSince(before))
	q.Fact("-info: name", info.Name)
	q.Fact("-info: fields of the features", slices.Sorted(maps.Keys(answered)))

	q.Step("look for what -info has left: no shim runs, and there is no socket")
	assert.Check(q, cmp.Len(d.Shims(), 0), "shims")
	assert.Check(q, cmp.Len(file.Names(q, d.SocketDir), 0), "sockets in %s", d.SocketDir)
	q.Fact("after -info: shims, sockets", []int{len(d.Shims()), len(file.Names(q, d.SocketDir))})

	q.Step("type `ctr plugins inspect-runtime`: the daemon runs the shim with -info, and ctr prints the same as JSON")
	before = len(recorder.Calls(q))
	var inspected struct {
		Name     string
		Version  struct{ Version string }
		Features map[string]any
	}
	check.DecodeJSON(q, d.Ctr("plugins", "inspect-runtime", "--runc-binary", recorder.Path).Stdout, &inspected)
	assert.Check(q, cmp.DeepEqual(calledSince(before), []string{"features"}), "commands with which the shim called the runtime")
	assert.Check(q, cmp.DeepEqual([]string{inspected.Name, inspected.Version.Version}, []string{info.Name, version}))
	dropUnknown(q, ofRuntime, "ctr")
	assert.Check(q, cmp.DeepEqual(inspected.Features, ofRuntime), "features that ctr prints, and those that the runtime prints")
	q.Fact("inspect-runtime: calls of the runtime", calledSince(before))

	q.Control("a runtime without the command features: the answer has a name, and no features")
	mute := filepath.Join(q.Mkdir("mute"), "runtime")
	assert.NilError(q, os.WriteFile(mute, []byte("#!/bin/sh\nexit 1\n"), 0o755))
	q.LogCommand(`printf '#!/bin/sh\nexit 1\n' > mute/runtime && chmod 755 mute/runtime`)
	without := shimInfo(q, mute)
	assert.Check(q, cmp.Equal(without.Name, info.Name))
	assert.Check(q, without.Features == nil, "features of a runtime that prints none: %v", without.Features)
	q.Fact("-info of a runtime without features: has features", without.Features != nil)
}

// shimInfo returns the shim's answer to -info, for this runtime.
func shimInfo(q *lab.Q, runtime string) *types.RuntimeInfo {
	q.Helper()
	options, err := typeurl.MarshalAnyToProto(&runcoptions.Options{BinaryName: runtime})
	assert.NilError(q, err)
	message, err := proto.Marshal(options)
	assert.NilError(q, err)
	input := filepath.Join(q.Mkdir("info-of-"+filepath.Base(filepath.Dir(runtime))), "options")
	assert.NilError(q, os.WriteFile(input, message, 0o644))
	q.LogCommand("# the options of the runtime, as a message of protobuf: BinaryName is %s", runtime)
	r := q.Must("sh", "-c", "exec containerd-shim-runc-v2 -info < "+input)
	info := &types.RuntimeInfo{}
	assert.NilError(q, proto.Unmarshal([]byte(r.Stdout), info), "%s", r)
	return info
}

// dropUnknown removes the fields from the features of a runtime that a program under test does not know. It has no tag of their names, as a
// Go program has for each field of JSON. A script, behind which another program is, has to know all.
func dropUnknown(q *lab.Q, features map[string]any, name string) {
	q.Helper()
	program, err := os.ReadFile(q.UnderTest(name).Path)
	assert.NilError(q, err)
	if bytes.HasPrefix(program, []byte("#!")) {
		return
	}
	var drop func(map[string]any)
	drop = func(object map[string]any) {
		for field, value := range object {
			inner, isObject := value.(map[string]any)
			switch {
			case !bytes.Contains(program, []byte(`json:"`+field)):
				delete(object, field)
			case isObject && field != "annotations": // whose names are no fields
				drop(inner)
			}
		}
	}
	drop(features)
}

// oldConfig is a configuration in the format of containerd 1.7, without the number of the format.
const oldConfig = `root = "%[1]s/root"
state = "%[1]s/state"
disabled_plugins = ["%[2]s"]
[grpc]
  address = "%[1]s/sock"`

// dumpAndMigrate has containerd print the configurations of files, and starts a daemon with an old file and with the migrated one.
func dumpAndMigrate(q *lab.Q, d *ctrd.Daemon) {
	q.Step("dump the configuration of the daemon that runs: it has the daemon's directory, and settings that the file lacks")
	own := filepath.Join(q.Dir, "containerd/config.toml")
	dumped := containerdConfig(q, own, "dump")
	assert.Assert(q, cmp.Equal(dumped.Root, d.Root), "root in the dump")
	proc.WaitFor(q, proc.HasFile(d.PID(), filepath.Join(dumped.Root, "io.containerd.metadata.v1.bolt/meta.db")))
	const scheduler = "io.containerd.gc.v1.scheduler"
	assert.Check(q, dumped.Plugins[scheduler] != nil, "the dump has no settings of %s", scheduler)
	assert.Check(q, !strings.Contains(file.Read(q, own), scheduler), "the file has settings of %s, too", scheduler)
	q.Fact("dump: settings of the garbage collection, which the file lacks", dumped.Plugins[scheduler])

	q.Step("migrate a file in the format of containerd 1.7: the result has the newest format and the same address. The file is as before")
	dir := q.Mkdir("old")
	text := fmt.Sprintf(oldConfig, dir, strings.Join(ctrd.DisabledPlugins(), `", "`))
	old, migrated := filepath.Join(dir, "config.toml"), filepath.Join(dir, "migrated.toml")
	q.WriteLine(old, "version = 2\n"+text)
	before := file.VersionOf(q, old)
	result := containerdConfig(q, old, "migrate")
	newest := ctrd.ConfigVersion(q)
	assert.Check(q, cmp.Equal(strconv.Itoa(result.Version), newest), "format after config migrate, and that of config default")
	assert.Check(q, cmp.Equal(result.address(), dir+"/sock"), "the address after config migrate")
	assert.Check(q, cmp.Equal(file.VersionOf(q, old), before), "config migrate has changed the file")
	q.Fact("migrate: format, before and after", []int{2, result.Version})
	q.Fact("migrate: the address is a setting of", result.tableOfAddress())

	q.Step("dump the same file, and migrate the result: both print the same text once more")
	dump := containerdConfig(q, old, "dump").text
	assert.Check(q, cmp.Equal(dump, result.text), "config dump, against config migrate")
	assert.NilError(q, os.WriteFile(migrated, []byte(result.text), 0o644))
	q.LogCommand("containerd --config old/config.toml config migrate > old/migrated.toml")
	again := containerdConfig(q, migrated, "migrate").text
	assert.Check(q, cmp.Equal(again, result.text), "config migrate of what config migrate has printed")
	q.Fact("dump of the old file, migrate of the migrated file: the same text", []bool{dump == result.text, again == result.text})

	q.Step("start a daemon with the old file, and one with the migrated file: both listen at the address of the old file")
	assert.Check(q, !proc.HasListener(q, dir+"/sock"), "before the start a process listens at %s/sock", dir)
	for _, name := range []string{old, migrated} {
		daemon := q.StartBackground("containerd", "--config", name)
		proc.WaitFor(q, func(poll.LogT) poll.Result {
			if daemon.Ended() || !proc.HasListener(q, dir+"/sock") {
				return poll.Continue("no containerd listens at %s/sock: %s", dir, check.LastLine(daemon.Stderr()))
			}
			return poll.Success()
		})
		proc.WaitFor(q, ctrd.Serves(dir+"/sock"))
		daemon.Signal(unix.SIGTERM)
		assert.Check(q, cmp.Equal(daemon.ExitCode(), 0), "exit code of the daemon: %s", check.LastLine(daemon.Stderr()))
		assert.Check(q, !proc.HasListener(q, dir+"/sock"), "after the daemon's end a process listens at %s/sock", dir)
		for _, socket := range []string{"sock", "sock.ttrpc"} { // containerd 2.0 leaves them
			_ = os.Remove(filepath.Join(dir, socket))
		}
		q.Fact("a daemon with "+filepath.Base(name)+": exit code after TERM", daemon.ExitCode())
	}

	q.Control("the old file, in which only the number of the format is another one: since format 4 the table grpc is ignored")
	renumbered := filepath.Join(dir, "renumbered.toml")
	q.WriteLine(renumbered, "version = "+newest+"\n"+text)
	ignored := containerdConfig(q, renumbered, "dump")
	want := dir + "/sock"
	if ignored.Version >= 4 {
		want = containerdConfig(q, "", "default").address()
	}
	assert.Check(q, cmp.Equal(ignored.address(), want), "address of the old file with the number %s", newest)
	q.Fact("the old file with the newest number: has its address", ignored.address() == dir+"/sock")
}

// configuration is what containerd prints of its configuration.
type configuration struct {
	Version int
	Root    string
	GRPC    struct{ Address string }
	Plugins map[string]map[string]any

	text string
}

// containerdConfig returns what a command of `containerd config` prints of a file; of no file if the name is empty.
func containerdConfig(q *lab.Q, name, command string) (c configuration) {
	q.Helper()
	argv := []string{"containerd", "config", command}
	if name != "" {
		argv = []string{"containerd", "--config", name, "config", command}
	}
	c.text = q.Must(argv...).Stdout
	assert.NilError(q, toml.Unmarshal([]byte(c.text), &c))
	return c
}

// addressPlugin has the address of the daemon's socket, since format 4. Before, the table grpc has it.
const addressPlugin = "io.containerd.server.v1.grpc"

// tableOfAddress returns the name of the table with the address of the daemon's socket.
func (c configuration) tableOfAddress() string {
	if _, ok := c.Plugins[addressPlugin]["address"]; ok {
		return "plugins." + addressPlugin
	}
	return "grpc"
}

// address returns the address of the daemon's socket.
func (c configuration) address() string {
	if address, ok := c.Plugins[addressPlugin]["address"].(string); ok {
		return address
	}
	return c.GRPC.Address
}

// compareDefaultSpec compares the default of config.json with the config.json of a task.
func compareDefaultSpec(q *lab.Q, d *ctrd.Daemon) {
	q.Step("compare what `ctr oci spec` prints with config.json of a task: only what the image, the command line and the id decide differs")
	var printed specs.Spec
	check.DecodeJSON(q, d.Ctr("oci", "spec").Stdout, &printed)
	id := q.ID(ctrd.ContainerID)
	ref := d.PullImage()
	d.CreateContainer(ref, id, "sleep", "3600")
	task := d.StartTaskAndWait(id)
	difference, err := bundle.Difference(&printed, bundle.Read(q, d.Bundle(id)))
	assert.NilError(q, err)
	differs := []string{}
	for _, line := range difference {
		field, _, _ := strings.Cut(strings.Fields(line)[1], "[")
		differs = append(differs, field)
	}
	slices.Sort(differs)
	differs = slices.Compact(differs)
	// ctr adds the devices that a container on Linux has (WithDefaultUnixDevices), and the groups of the user.
	want := []string{"linux.cgroupsPath", "linux.resources.devices", "process.args", "process.env", "process.user.additionalGids"}
	assert.Check(q, cmp.DeepEqual(differs, want), "fields that differ: - of ctr oci spec, + of config.json:\n%s",
		strings.Join(difference, "\n"))
	assert.Check(q, cmp.Len(printed.Process.Args, 0), "the default has no program")
	assert.Check(q, cmp.DeepEqual(task.Args, []string{"sleep", "3600"}), "the program of the task")
	q.Fact("config.json of a task, against `ctr oci spec`: fields that differ", differs)
}
