//go:build linux && vmlab

package cdblab

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/check"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/file"
	"cdblab/helpers/host"
	"cdblab/helpers/image"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/systemd"
)

// config.toml decides which cgroup driver the runtime of a pod uses, and which snapshotter makes its root file system. For the tasks of
// ctr it decides neither.
//
// The kubelet calls the CRI plugin, which is a client inside of containerd. The plugin takes runtime, runtime options and snapshotter
// from its tables in config.toml, and writes config.json itself. default_runtime_name is the runtime of a pod that names none. The
// kubelet names the parent of the pod's cgroup, by a cgroup driver of its own. (Since containerd 2.0, a kubelet can ask the plugin for
// the driver.) If the kubelet names a slice and SystemdCgroup is false, the pod starts in a plain cgroup directory with the name
// slice:prefix:id. It is not in the slice, so the limits of the slice do not hold for it. If the kubelet names a path and SystemdCgroup
// is true, the runtime refuses the pod.
//
// The lab starts a private containerd, and takes from this machine's file only the default runtime, its options BinaryName and
// SystemdCgroup, and the snapshotter. So the machine's directories, sockets, devices and plugins are not touched. A machine without the
// file has containerd's defaults.
//
// Hint: containerd config dump; crictl info; /proc/PID/cgroup and /proc/PID/mountinfo of the process of a pod.
// Spec: https://github.com/containerd/containerd/blob/main/docs/cri/config.md#snapshotter,
// https://github.com/containerd/containerd/blob/main/docs/cri/config.md#cgroup-driver
// Kernel: https://man7.org/linux/man-pages/man7/cgroups.7.html, "/proc files"
func TestTask_WhatDoesConfigTOMLDecideForAPod(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does config.toml decide for a pod?",
		lab.Alone("systemd takes controllers from the cgroups of other questions when a unit starts or stops"))
	defer q.Recover()
	node, err := ctrd.ReadNodeConfig(q)
	if err != nil {
		q.Skipf("%v; to ask this of Debian's containerd and its config.toml: make lab DISK=\"$(make -s disk)\"", err)
	}
	if node.RuntimeType != "io.containerd.runc.v2" || !slices.Contains([]string{"overlayfs", "native"}, node.Snapshotter) {
		q.Skipf("the pods of this machine have the runtime %s and the snapshotter %s, and the lab can make only pods with runc, and overlayfs "+
			"or native; to ask this of Debian's config.toml: make lab DISK=\"$(make -s disk)\"", node.RuntimeType, node.Snapshotter)
	}
	bySystemd := file.Exists("/run/systemd/system") // https://man7.org/linux/man-pages/man3/sd_booted.3.html
	if bySystemd {
		systemd.Require(q)
	}
	cgroup.Of(q, q.Cgroup+"/pods").Make() // both first, because they are removed last
	cgroup.Of(q, q.Cgroup+"/daemon").Make()
	node.SandboxImage = image.Pause
	node.KeepOOMScores = !proc.Bits(q, proc.Self(q).PID, "CapEff").Has(unix.CAP_SYS_RESOURCE)

	q.Step("start a private containerd with what this machine's config.toml decides for pods")
	d := ctrd.Start(q, ctrd.WithNodeConfig(node))
	moveIntoOwnCgroup(q, d)
	hosts := image.Serve(q).HostsDir(q)
	for _, in := range []*ctrd.Daemon{d, d.ForKubelet()} {
		in.Ctr("images", "pull", "--hosts-dir", hosts, image.Pause)
	}
	q.Fact("config.toml: default runtime", node.Runtime)
	q.Fact("config.toml: BinaryName of the default runtime", node.BinaryName)
	q.Fact("config.toml: SystemdCgroup of the default runtime", node.SystemdCgroup)
	q.Fact("config.toml: snapshotter", node.Snapshotter)

	q.Step("start a pod as the kubelet does: its cgroup and its root file system are as config.toml says")
	observePod(q, d.ForKubelet(), node, "as configured")
	observeTaskOfCtr(q, d, "as configured")

	q.Step("start a pod whose parent is that of the other cgroup driver: without SystemdCgroup it starts, and with it the pod is refused")
	observeOtherParent(q, d.ForKubelet(), node, "as configured")

	q.Control("change the snapshotter in config.toml: the changed one makes the root file system of the next pod, and not that of ctr's task")
	other := node
	other.Snapshotter = map[bool]string{true: "overlayfs", false: "native"}[node.Snapshotter == "native"]
	restartAs(q, d, other)
	observePod(q, d.ForKubelet(), other, "other snapshotter")
	observeTaskOfCtr(q, d, "other snapshotter")

	q.Control("change SystemdCgroup in config.toml: the other driver makes the cgroup of the next pod, or refuses it without systemd")
	other = node
	other.SystemdCgroup = !node.SystemdCgroup
	restartAs(q, d, other)
	if other.SystemdCgroup && !bySystemd {
		kubelet := d.ForKubelet()
		proc.WaitFor(q, kubelet.HasPodImage(image.Pause))
		_, err := kubelet.TryRunPod("cdb-no-systemd", "system.slice")
		assert.Check(q, cmp.ErrorContains(err, "systemd"), "a pod with SystemdCgroup=true, where process 1 is not systemd")
		q.Fact("other driver, without systemd: a pod starts", err == nil)
	} else {
		observePod(q, d.ForKubelet(), other, "other driver")
		observeOtherParent(q, d.ForKubelet(), other, "other driver")
	}
	observeTaskOfCtr(q, d, "other driver")
	q.Answer("config.toml decides whether systemd makes the cgroup of a pod, and which snapshotter makes its root file system. A kubelet " +
		"with the other cgroup driver gets a cgroup that is outside of the slice, or no pod. For ctr's tasks, config.toml decides neither.")
}

// observeTaskOfCtr starts a task as the reader does, and asserts that its cgroup and its snapshotter are ctr's own.
func observeTaskOfCtr(q *lab.Q, d *ctrd.Daemon, name string) {
	q.Helper()
	id := q.ID(ctrd.ContainerID + "-" + strings.ReplaceAll(name, " ", "-"))
	d.CreateContainer(image.Pause, id, "sleep", "3600")
	task := d.StartTaskAndWait(id)
	check.OnlyProcessInCgroup(q, task.Identity, "/"+d.Namespace+"/"+id)
	assert.Check(q, cmp.Equal(snapshotterOf(q, task), "overlayfs"), "%s: snapshotter of a task that ctr has started", name)
	q.Fact(name+": snapshotter of ctr's task", snapshotterOf(q, task))
	d.KillAndDeleteTask(id)
	proc.WaitFor(q, d.HasShims(0))
}

// observePod starts a pod with a container, asserts that the configuration decides about both, and removes the pod.
func observePod(q *lab.Q, d *ctrd.Daemon, node ctrd.NodeConfig, name string) {
	q.Helper()
	parent := q.Cgroup + "/pods"
	if node.SystemdCgroup {
		parent = "system.slice"
	}
	proc.WaitFor(q, d.HasPodImage(image.Pause))
	pod, err := d.TryRunPod("cdb-"+strings.ReplaceAll(name, " ", "-"), parent)
	assert.NilError(q, err)
	ids := []string{pod.Sandbox, pod.RunContainer("waits", image.Pause, "sleep", "3600")}
	assert.Check(q, cmp.Len(d.Shims(), 1), "shims of a pod")
	var places []string
	for i, part := range []string{"sandbox", "container"} {
		id := ids[i]
		pid := d.TaskPID(id)
		proc.WaitFor(q, proc.Runs(pid, "sleep"))
		p := proc.Snapshot(q, pid)
		place := parent + "/" + id
		if node.SystemdCgroup {
			place = "/system.slice/cri-containerd-" + id + ".scope"
		}
		hasScope := host.HasUnit("cri-containerd-" + id + ".scope")
		assert.Check(q, cmp.Equal(hasScope, node.SystemdCgroup), "systemd has a scope of the %s", part)
		check.OnlyProcessInCgroup(q, p.Identity, place)
		places = append(places, place)
		assert.Check(q, cmp.Equal(snapshotterOf(q, p), node.Snapshotter), "snapshotter of the root file system of the %s", part)
		assert.Check(q, cmp.Equal(d.RuntimeName(id), node.RuntimeType), "runtime in the record of the %s", part)
		q.Fact(name+", "+part+": systemd has a scope", hasScope)
		q.Fact(name+", "+part+": snapshotter of the root file system", snapshotterOf(q, p))
	}
	pod.Remove()
	proc.WaitFor(q, d.HasShims(0))
	for _, place := range places {
		check.NoCgroup(q, place)
	}
}

// observeOtherParent starts a pod whose parent is that of the other cgroup driver.
func observeOtherParent(q *lab.Q, d *ctrd.Daemon, node ctrd.NodeConfig, name string) {
	q.Helper()
	if node.SystemdCgroup {
		_, err := d.TryRunPod("cdb-path", q.Cgroup+"/pods")
		assert.Check(q, cmp.ErrorContains(err, "slice:prefix:name"), "a pod with SystemdCgroup=true, for which the kubelet names a path")
		q.Fact(name+", and the kubelet names a path: the pod starts", err == nil)
		return
	}
	pod, err := d.TryRunPod("cdb-slice", "system.slice")
	assert.NilError(q, err)
	directory := "system.slice:cri-containerd:" + pod.Sandbox
	hs, err := cgroup.Hierarchies()
	assert.NilError(q, err)
	sandbox := proc.Snapshot(q, d.TaskPID(pod.Sandbox))
	for _, h := range hs {
		key := map[bool]string{true: "", false: h.Name}[h.V2]
		path := sandbox.Cgroups[key] // on v1 below the cgroup of the runtime's caller, and on v2 beside it
		assert.Check(q, cmp.Equal(filepath.Base(path), directory), "cgroup of the sandbox in hierarchy %s: %s", h.Name, path)
		if isHybrid := h.V2 && len(hs) > 1; !isHybrid { // there runc makes it below the root
			assert.Check(q, strings.HasPrefix(path, q.Cgroup+"/"), "cgroup of the sandbox in hierarchy %s: %s", h.Name, path)
		}
	}
	assert.Check(q, !host.HasUnit("cri-containerd-"+pod.Sandbox+".scope"), "systemd has a scope of the pod, with SystemdCgroup=false")
	q.Fact(name+", and the kubelet names system.slice: cgroup, which is not in this slice", strings.ReplaceAll(directory, pod.Sandbox, "<id>"))
	pod.Remove()
	proc.WaitFor(q, d.HasShims(0))
}

var snapshotterDir = regexp.MustCompile(`io\.containerd\.snapshotter\.v1\.(\w+)/`)

// snapshotterOf returns the name of the snapshotter in whose directory the root file system of a process is, as the kernel shows it.
func snapshotterOf(q *lab.Q, p proc.Process) string {
	q.Helper()
	root := check.TopMount(q, check.Mounts(q, p), "/")
	m := snapshotterDir.FindStringSubmatch(root.Root + " " + root.VFSOptions)
	if m == nil {
		q.Fatalf("the root file system of process %d is in no directory of a snapshotter: %+v", p.PID, root)
	}
	return m[1]
}

// restartAs starts containerd anew with another configuration.
func restartAs(q *lab.Q, d *ctrd.Daemon, node ctrd.NodeConfig) {
	q.Helper()
	assert.NilError(q, d.Stop())
	d.Reconfigure(node)
	d.Start()
	moveIntoOwnCgroup(q, d)
}

// moveIntoOwnCgroup moves containerd into a cgroup of the question. A runtime that takes a cgroupsPath for a relative one makes the
// cgroup below or beside it, and a sweep finds it there.
func moveIntoOwnCgroup(q *lab.Q, d *ctrd.Daemon) {
	q.Helper()
	cgroup.Of(q, q.Cgroup+"/daemon").Add(d.PID())
}
