//go:build linux && vmlab

package cdblab

import (
	"path/filepath"
	"regexp"
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

// config.toml decides for the pods of the kubelet: which runtime they have, which cgroup driver that runtime uses, and which snapshotter
// makes their root file system. It decides none of it for ctr and other clients.
//
// The kubelet calls the CRI plugin, which is a client inside of containerd. Like ctr, that client chooses runtime, options, snapshotter and
// config.json for each container, and it takes them from its table in config.toml. The kubelet chooses one part: the parent of the pod's
// cgroup, by a cgroup driver in its own configuration. The two drivers have to agree. If the kubelet names a slice and SystemdCgroup is
// false, the pod starts, and its cgroup is not a scope of systemd. It is a directory with the name that a scope would be made of.
//
// The lab starts containerd with a copy of this machine's file in which only the places are changed, so the machine's own containerd and
// its pods are not touched. A machine without the file has containerd's defaults.
//
// Hint: containerd config dump; crictl info; /proc/PID/cgroup and /proc/PID/mountinfo of the process of a pod.
// Spec: https://github.com/containerd/containerd/blob/main/docs/cri/config.md#snapshotter,
// https://github.com/containerd/containerd/blob/main/docs/cri/config.md#cgroup-driver
// Kernel: https://man7.org/linux/man-pages/man7/cgroups.7.html, "/proc files"
func TestTask_WhatDoesConfigTOMLDecideForAPod(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does config.toml decide for a pod?",
		lab.Alone("systemd takes controllers from the cgroups of other questions when a unit starts or stops"))
	defer q.Recover()
	node := ctrd.ReadNodeConfig(q)
	if !node.HasCRI() {
		q.Skipf("this containerd has no CRI plugin, or config.toml disables it; to ask this of Debian's: " +
			"make lab DISK=\"$(make -s disk)\"")
	}
	if node.RuntimeType() != "io.containerd.runc.v2" {
		q.Skipf("the default runtime of pods in %s is %s, and the lab has only a shim for runc; to ask this of Debian's "+
			"configuration: make lab DISK=\"$(make -s disk)\"", node.File, node.RuntimeType())
	}
	bySystemd := file.Exists("/run/systemd/system") // https://man7.org/linux/man-pages/man3/sd_booted.3.html
	if bySystemd {
		systemd.Require(q)
	}
	cgroup.Of(q, q.Cgroup+"/pods").Make() // first, because it is removed last: the pods' cgroups are below it
	node.SetSandboxImage(image.Pause)
	node.PassAnnotations(ctrd.DescriptionAnnotation)
	if !proc.Bits(q, proc.Self(q).PID, "CapEff").Has(unix.CAP_SYS_RESOURCE) {
		node.KeepOOMScores()
	}

	q.Step("start containerd with this machine's config.toml, and read it as containerd does")
	d := ctrd.Start(q, ctrd.WithNodeConfig(node))
	hosts := image.Serve(q).HostsDir(q)
	kubelet := d.ForKubelet()
	kubelet.Ctr("images", "pull", "--snapshotter", node.Snapshotter(), "--hosts-dir", hosts, image.Pause)
	d.Ctr("images", "pull", "--hosts-dir", hosts, image.Pause)
	q.Fact("config.toml: default runtime", node.Runtime())
	q.Fact("config.toml: SystemdCgroup of the default runtime", node.SystemdCgroup())
	q.Fact("config.toml: snapshotter", node.Snapshotter())

	q.Step("start a pod as the kubelet does: cgroup and root file system are as config.toml says")
	observePod(q, kubelet, node, "as configured")
	observeOtherParent(q, kubelet, node, "as configured")

	q.Step("start a task by ctr in the same containerd: its cgroup and its snapshotter are those of ctr")
	id := q.ID(ctrd.ContainerID)
	d.CreateContainer(image.Pause, id, "sleep", "3600")
	task := d.StartTaskAndWait(id)
	check.OnlyProcessInCgroup(q, task.Identity, "/"+d.Namespace+"/"+id)
	assert.Check(q, cmp.Equal(snapshotterOf(q, task), "overlayfs"), "snapshotter of a task that ctr has started")
	q.Fact("ctr: cgroup", "/<namespace>/<id>")
	q.Fact("ctr: snapshotter of the root file system", snapshotterOf(q, task))
	d.KillAndDeleteTask(id)
	proc.WaitFor(q, d.HasShims(0))

	q.Control("change the snapshotter in config.toml: the next pod has the other one")
	other := node.Clone()
	other.SetSnapshotter(map[bool]string{true: "overlayfs", false: "native"}[node.Snapshotter() == "native"])
	restartAs(q, d, other)
	observePod(q, d.ForKubelet(), other, "other snapshotter")

	q.Control("change SystemdCgroup in config.toml: the next pod has the other cgroup driver")
	other = node.Clone()
	other.SetSystemdCgroup(!node.SystemdCgroup())
	restartAs(q, d, other)
	kubelet = d.ForKubelet()
	if other.SystemdCgroup() && !bySystemd {
		proc.WaitFor(q, kubelet.HasPodImage(image.Pause))
		_, err := kubelet.TryRunPod("cdb-no-systemd", "system.slice")
		assert.Check(q, cmp.ErrorContains(err, "systemd"), "a pod with SystemdCgroup=true, where process 1 is not systemd")
		q.Fact("other driver, without systemd: a pod starts", err == nil)
	} else {
		observePod(q, kubelet, other, "other driver")
		observeOtherParent(q, kubelet, other, "other driver")
	}
	q.Answer("config.toml decides for a pod which runtime it has, whether systemd makes its cgroup, and which snapshotter makes its root file " +
		"system. The kubelet has to use the same cgroup driver. For ctr, config.toml decides none of this.")
}

// observePod starts a pod with a container, asserts that the configuration decides about both, and removes the pod.
func observePod(q *lab.Q, d *ctrd.Daemon, node *ctrd.NodeConfig, name string) {
	q.Helper()
	driver, parent := "cgroupfs", q.Cgroup+"/pods"
	if node.SystemdCgroup() {
		driver, parent = "systemd", "system.slice"
	}
	proc.WaitFor(q, d.HasPodImage(image.Pause))
	pod, err := d.TryRunPod("cdb-"+strings.ReplaceAll(name, " ", "-"), parent)
	assert.NilError(q, err)
	ids := map[string]string{"sandbox": pod.Sandbox, "container": pod.RunContainer("waits", image.Pause, "sleep", "3600")}
	assert.Check(q, cmp.Len(d.Shims(), 1), "shims of a pod")
	var places []string
	for part, id := range ids {
		pid := d.TaskPID(id)
		proc.WaitFor(q, proc.Runs(pid, "sleep"))
		p := proc.Snapshot(q, pid)
		place := parent + "/" + id
		if node.SystemdCgroup() {
			place = "/system.slice/cri-containerd-" + id + ".scope"
			assert.Check(q, host.HasUnit(filepath.Base(place)), "systemd does not have the scope of the %s", part)
		}
		check.OnlyProcessInCgroup(q, p.Identity, place)
		places = append(places, place)
		assert.Check(q, cmp.Equal(snapshotterOf(q, p), node.Snapshotter()), "snapshotter of the root file system of the %s", part)
		assert.Check(q, cmp.Equal(d.RuntimeName(id), node.RuntimeType()), "runtime in the record of the %s", part)
	}
	q.Fact(name+": cgroup driver", driver)
	q.Fact(name+": snapshotter of the root file system", node.Snapshotter())
	pod.Remove()
	proc.WaitFor(q, d.HasShims(0))
	for _, place := range places {
		check.NoCgroup(q, place)
	}
}

// observeOtherParent starts a pod whose parent is that of the other cgroup driver.
func observeOtherParent(q *lab.Q, d *ctrd.Daemon, node *ctrd.NodeConfig, name string) {
	q.Helper()
	if node.SystemdCgroup() {
		_, err := d.TryRunPod("cdb-path", q.Cgroup+"/pods")
		assert.Check(q, cmp.ErrorContains(err, "slice:prefix:name"), "a pod with SystemdCgroup=true, for which the kubelet names a path")
		q.Fact(name+", and the kubelet names a path: the pod starts", err == nil)
		return
	}
	pod, err := d.TryRunPod("cdb-slice", "system.slice")
	assert.NilError(q, err)
	place := "system.slice:cri-containerd:" + pod.Sandbox
	for hierarchy, path := range proc.Snapshot(q, d.TaskPID(pod.Sandbox)).Cgroups {
		assert.Check(q, cmp.Equal(filepath.Base(path), place), "cgroup of the sandbox in hierarchy %q: %s", hierarchy, path)
	}
	assert.Check(q, !host.HasUnit("cri-containerd-"+pod.Sandbox+".scope"), "systemd has a scope of the pod, with SystemdCgroup=false")
	q.Fact(name+", and the kubelet names a slice: cgroup", strings.ReplaceAll(place, pod.Sandbox, "<id>"))
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
func restartAs(q *lab.Q, d *ctrd.Daemon, node *ctrd.NodeConfig) {
	q.Helper()
	assert.NilError(q, d.Stop())
	d.Reconfigure(node)
	d.Start()
}
