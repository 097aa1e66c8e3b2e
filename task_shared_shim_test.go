//go:build linux && vmlab

package cdblab

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	eventsapi "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/poll"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/check"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// Two tasks share a shim if config.json has the same annotation io.containerd.runc.v2.group in both. Only the annotation counts, not the
// record's label of that name; but ctr --label writes both.
//
// containerd runs `containerd-shim-runc-v2 start` for each task all the same. This helper finds that a shim listens at the group's socket
// already, and returns the address of that shim instead of a new one. So pods came to have one shim for all of their containers, before
// there were sandboxes. Such a shim lives until the last of its tasks is deleted. It also outlives the task for which it was started.
//
// A group is not reliable on a busy machine. The helper takes a shim for dead if it cannot connect to it within 100 ms. It then unlinks
// the socket of the living shim, and starts another shim. This question keeps the socket from being unlinked, and repeats such a start.
//
// Hint: `ctr containers create --label io.containerd.runc.v2.group=NAME`; the children of the shim; the addresses in
// both bundles.
// Spec: https://github.com/containerd/containerd/blob/main/docs/runtime-v2.md#shimengine-relationship
func TestTask_CanTwoTasksShareAShim(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Can two tasks share a shim?")
	defer q.Recover()
	var socket string
	q.Cleanup(func() { removeStaleSocket(q, socket) }) // registered before the daemon's cleanup, so that it runs when no task is left
	d := ctrd.Shared(q)
	ref := d.PullImage()
	ids := []string{q.ID(ctrd.ContainerID), q.ID(ctrd.ContainerID + "-2"), q.ID(ctrd.ContainerID + "-3")}
	group := q.ID("cdb-group")
	socket = filepath.Join(d.SocketDir, d.SocketName(group))

	q.Step("create a container with a label, by ctr: it writes the label into the record, and the annotation into config.json")
	d.CreateContainerWith([]string{"--label", shimGroup + "=" + group}, ref, ids[0], "sleep", "3600")
	byCtr := []string{groupLabel(q, d, ids[0]), d.Spec(ids[0]).Annotations[shimGroup]}
	assert.Check(q, cmp.DeepEqual(byCtr, []string{group, group}), "label and annotation of a container that ctr labels")
	q.Fact("ctr --label: label and annotation", byCtr)

	q.Step("create another container by the Go client: it has only the annotation")
	annotated := ctrd.ClientOptions{Spec: []oci.SpecOpts{oci.WithAnnotations(map[string]string{shimGroup: group})}}
	d.CreateContainerByClient(annotated, ref, ids[1], "sleep", "3600")
	assert.Check(q, cmp.Equal(d.Spec(ids[1]).Annotations[shimGroup], group))
	assert.Check(q, cmp.Equal(groupLabel(q, d, ids[1]), ""))

	q.Step("start two tasks: there is one shim with two children, and one socket, which is named after the group")
	var tasks []proc.Process
	tasks = append(tasks, d.StartTaskAndWait(ids[0]))
	assert.Assert(q, cmp.Equal(d.ShimSocket(ids[0]), socket), "the socket that the bundle of the first task names")
	unpin := d.PinSocket(socket)
	tasks = append(tasks, d.StartTaskAndWait(ids[1]))
	shims := d.Shims()
	assert.Assert(q, cmp.Len(shims, 1), "shims of two tasks of a group")
	shim := proc.Snapshot(q, shims[0])
	assert.Check(q, cmp.DeepEqual(proc.Children(q, shim.PID), []proc.PID{tasks[0].PID, tasks[1].PID}))
	recordGroupSocket(q, d, ids[:2], tasks, shim, socket)
	assert.Check(q, cmp.Equal(proc.Cwd(q, shim.PID), d.Bundle(ids[0])), "the shim's working directory, the bundle of the first task")
	q.Fact("tasks of a group: shims", len(shims))
	q.Fact("the group's shim: children", []proc.PID{tasks[0].PID, tasks[1].PID})

	q.Step("compare the tasks: they share the shim. Each has its own mount, network, pid, IPC and UTS namespace, and its own cgroup")
	own := tasks[0].OwnNamespaces(tasks[1].Identity)
	assert.Check(q, cmp.DeepEqual(own, []string{"ipc", "mnt", "net", "pid", "uts"}), "namespaces of a task in which the other one is not")
	for i, id := range ids[:2] {
		check.OnlyProcessInCgroup(q, tasks[i].Identity, "/"+d.Namespace+"/"+id)
	}
	q.Fact("tasks of a group: namespaces in common", tasks[0].SharedNamespaces(tasks[1].Identity))

	q.Control("start a task that has only the label: it has a shim of its own")
	d.CreateContainerByClient(ctrd.ClientOptions{Labels: map[string]string{shimGroup: group}}, ref, ids[2], "sleep", "3600")
	assert.Check(q, cmp.Equal(groupLabel(q, d, ids[2]), group))
	assert.Check(q, cmp.Equal(d.Spec(ids[2]).Annotations[shimGroup], ""))
	alone := d.StartTaskAndWait(ids[2])
	assert.Check(q, cmp.Len(d.Shims(), 2), "shims, with a third task that is labelled only")
	assert.Check(q, alone.Parent != shim.PID, "the third task is the group's shim's child")
	assert.Check(q, cmp.Equal(filepath.Base(d.ShimSocket(ids[2])), d.SocketName(ids[2])))
	q.Fact("with a task that has only the label: shims", len(d.Shims()))

	q.Step("start a further task of the group, with a logger, whose program is missing: create fails, and the logger ends as well")
	// A shim that serves others does not end. What it forgets here stays for days.
	children := proc.Children(q, shim.PID)
	logger, started := writeStubbornLogger(q)
	failing := q.ID(ctrd.ContainerID + "-none")
	d.CreateContainerByClient(annotated, ref, failing, "/no/such/program")
	refused := d.TryStartTask(failing, "--log-uri", "binary://"+logger)
	assert.Check(q, refused.Code != 0, "a task of a missing program was started:\n%s", refused)
	assert.Assert(q, file.Exists(started), "the shim has not started the logger:\n%s", refused)
	proc.WaitFor(q, hasOnlyShims(d, check.Sorted(shim.PID, alone.Parent)))
	if p, err := proc.Read(proc.PID(check.Int(q, file.Read(q, started)))); err == nil && d.Bootstrap(ids[0]).Version < 3 {
		// In 1.7 the shim keeps the logger: containerd/containerd#11885 was mended in 2.0.6 and 2.1.4 only.
		q.Fact("shim of containerd 1.7: keeps the logger", p.Alive())
		q.KillProcess(p)
	}
	proc.WaitFor(q, hasOnlyChildren(q, shim.PID, children))
	q.Fact("the group's shim after a create that failed: children", proc.Children(q, shim.PID))

	q.TearDown("delete the first task: its shim stays for the second task, in a directory that is gone", func() {
		unpin() // so that the shim itself can remove its socket
		deleteFirstOfGroup(q, d, ids, tasks, shim)

		q.Step("delete the second task: the shim ends")
		d.KillAndDeleteTask(ids[1])
		proc.WaitFor(q, proc.Dead(shim.Identity))
		assert.Check(q, cmp.DeepEqual(d.Shims(), []proc.PID{alone.Parent}))
		q.Fact("after the second task: shims", d.Shims())

		q.Step("look for sockets: that of the group may be left over, because the cleanup removes only sockets that are named after a container")
		leftover := file.Exists(socket)
		if leftover {
			assert.Check(q, cmp.ErrorIs(check.Dial(socket), unix.ECONNREFUSED), "the group's socket, at which no process listens")
		}
		d.KillAndDeleteTask(ids[2])
		proc.WaitFor(q, d.HasShims(0))
		q.Fact("the group's socket: left over", leftover)
	})

	q.Answer("Two tasks share a shim if their config.json has the same annotation io.containerd.runc.v2.group. They have one shim and one " +
		"socket then, and the shim lives as long as the last of the tasks.")
}

// recordGroupSocket asserts that the tasks are children of the shim, and that their bundles name the one socket on which it listens.
func recordGroupSocket(q *lab.Q, d *ctrd.Daemon, ids []string, tasks []proc.Process, shim proc.Process, socket string) {
	named := 0 // bundles that name the group's socket
	for i, id := range ids {
		assert.Check(q, cmp.Equal(tasks[i].Parent, shim.PID), "the parent of %s", id)
		assert.Check(q, cmp.Equal(d.ShimSocket(id), socket), "the socket that the bundle of %s names", id)
		if d.ShimSocket(id) == socket {
			named++
		}
		assert.Check(q, !file.Exists(filepath.Join(d.SocketDir, d.SocketName(id))), "%s has a socket of its own", id)
	}
	assert.Check(q, proc.Listens(q, shim, socket), "the shim does not listen on the group's socket")
	q.Fact("socket sha256 of address/namespace/group: bundles that name it", named)
}

// shimGroup is the annotation by which tasks share a shim. It is also the name of a label, which has no effect.
const shimGroup = "io.containerd.runc.v2.group"

// groupLabel returns the label of that name in the container's record.
func groupLabel(q *lab.Q, d *ctrd.Daemon, id string) string {
	q.Helper()
	container, err := d.Client().LoadContainer(context.Background(), id)
	assert.NilError(q, err)
	labels, err := container.Labels(context.Background())
	assert.NilError(q, err)
	return labels[shimGroup]
}

// writeStubbornLogger writes a logger that ends on TERM only: the end of its input would come in any case, when Go collects the garbage of
// the shim. The logger writes its pid into the file started.
func writeStubbornLogger(q *lab.Q) (logger, started string) {
	q.Helper()
	started = filepath.Join(q.Mkdir("started"), "pid")
	// The shim passes no environment on, so a sweep does not know the logger as the lab's. It ends when the sweep removes its file.
	logger = q.WriteWrapper("logger", "echo $$ > "+started+"\nexec 5>&-   # ready\ntrap exit TERM; while [ -e "+started+" ]; do sleep 0.1; done")
	return logger, started
}

// hasOnlyShims returns a check that succeeds when only these shims are left. A helper that deletes what is left of a task may run for a
// moment.
func hasOnlyShims(d *ctrd.Daemon, want []proc.PID) poll.Check {
	return func(poll.LogT) poll.Result {
		if now := d.Shims(); !slices.Equal(now, want) {
			return poll.Continue("after a create that failed the shims are %v, want those before it, %v", now, want)
		}
		return poll.Success()
	}
}

// hasOnlyChildren returns a check that succeeds when the shim has only the children that it had before the create.
func hasOnlyChildren(q *lab.Q, shim proc.PID, children []proc.PID) poll.Check {
	return func(poll.LogT) poll.Result {
		if now := proc.Children(q, shim); !slices.Equal(now, children) {
			return poll.Continue("a create has failed, and the shim keeps the logger: its children are %v, and were %v", now, children)
		}
		return poll.Success()
	}
}

// deleteFirstOfGroup ends and deletes the first task of a group, and asserts that its events are complete and that the shim still works
// for the second task.
func deleteFirstOfGroup(q *lab.Q, d *ctrd.Daemon, ids []string, tasks []proc.Process, shim proc.Process) {
	// A shim that ends with its task may take the last event with it. This one stays, so no event can be lost.
	stream := d.Listen("event.container_id==" + ids[0])
	d.Ctr("tasks", "kill", "-s", "SIGKILL", ids[0])
	stream.WaitFor("/tasks/exit") // the shim reports that the task has stopped before it publishes that
	d.DeleteTask(ids[0])
	stream.WaitFor("/tasks/delete")
	events := stream.TakeEvents()
	ended := ctrd.Topics(events)
	assert.Assert(q, cmp.DeepEqual(ended, []string{"/tasks/exit", "/tasks/delete"}), "events of a task whose shim goes on")
	exit, deleted := events[0].Body.(*eventsapi.TaskExit), events[1].Body.(*eventsapi.TaskDelete)
	inDelete, inExit := []uint32{deleted.Pid, deleted.ExitStatus}, []uint32{exit.Pid, exit.ExitStatus}
	assert.Check(q, cmp.DeepEqual(inDelete, []uint32{uint32(tasks[0].PID), 128 + 9}), "pid and exit status, in the delete event")
	assert.Check(q, cmp.DeepEqual(inDelete, inExit), "pid and exit status, in the delete event and in the exit event")
	assert.Check(q, cmp.Equal(deleted.ExitedAt.AsTime(), exit.ExitedAt.AsTime()), "time of the exit, in both events")
	q.Fact("end of the first task: events", ended)
	q.Fact("delete event of the first task: exit status", deleted.ExitStatus)
	assert.Check(q, proc.Snapshot(q, shim.PID).Same(shim.Identity), "the shim is another one")
	assert.Check(q, cmp.DeepEqual(proc.Children(q, shim.PID), []proc.PID{tasks[1].PID}))
	cwd := proc.Cwd(q, shim.PID) // containerd renames a bundle before it removes it
	assert.Check(q, strings.HasSuffix(cwd, ids[0]+" (deleted)"), "the shim's working directory is %s", cwd)
	hello := d.Ctr("tasks", "exec", "--fifo-dir", d.FifoDir, "--exec-id", "second", ids[1], "echo", "still here")
	assert.Check(q, cmp.Equal(strings.TrimSpace(hello.Stdout), "still here"))
	q.Fact("after the first task: children of its shim", proc.Children(q, shim.PID))
}

// removeStaleSocket removes the socket of a shim that has ended without removing it.
func removeStaleSocket(q *lab.Q, socket string) {
	q.Helper()
	if errors.Is(check.Dial(socket), unix.ECONNREFUSED) {
		q.LogCommand("rm %s", socket)
		file.Remove(q, socket)
	}
}

// A pod is a sandbox and its containers. The sandbox is a task that only waits, and the containers are tasks that join its network, IPC and
// UTS namespaces. They have one shim, and each has a cgroup of its own below the pod's.
//
// The sandbox's process (the pause container) only waits. It keeps the IPC and UTS namespaces, so that containers can come and go, and
// here the network namespace as well: the CRI plugin makes that one first, and keeps it by a mount. Where pids are shared,
// Kubernetes' pause also reaps orphans, which this question's sleep does not.
//
// config.json of a container names the namespaces to join as /proc/PID/ns/… of the sandbox's process. Each container has its own mount
// and pid namespace. All tasks of the pod have the sandbox's id as the annotation io.kubernetes.cri.sandbox-id. By it `shim start` finds
// the pod's shim, as for the CRI plugin of containerd 1.7. Since 2.0 that plugin names the sandbox in the container's record, and
// containerd itself connects to the sandbox's shim. Only the first way can split a pod on a busy machine:
// TestTask_CanTwoTasksShareAShim.
//
// A container that dies leaves the others running. If the sandbox's process dies, the containers run on in its namespaces, but no new
// container can join them. A new sandbox has new namespaces, so the kubelet replaces the whole pod. With a shared pid namespace the
// sandbox's process is pid 1, and when it dies, the kernel kills all containers.
//
// On a node, the CRI plugin makes the pod when the kubelet asks for it. The lab's containerd has neither a CRI plugin nor a network plugin.
// So this question makes the pod by the Go client, and the pod has only a loopback device.
//
// Hint: /proc/PID/ns of the processes of a pod; `ctr -n k8s.io containers info` of one of its containers, on a node.
// Spec: https://github.com/containerd/containerd/blob/main/docs/cri/architecture.md#architecture-of-the-cri-plugin
// Kernel: https://man7.org/linux/man-pages/man7/namespaces.7.html, "Namespace lifetime"
func TestTask_WhatIsAPodMadeOf(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What is a pod made of?")
	defer q.Recover()
	p := &podMaker{q: q, parent: q.Cgroup + "/pod"}
	cgroup.Of(q, p.parent).Make()   // first, because it is removed last: the tasks' cgroups are below it
	q.Cleanup(p.removeStaleSockets) // registered before the daemon's cleanup, so that it runs when no task is left
	d := ctrd.Shared(q)
	p.d, p.ref = d, d.PullImage()
	shared := []specs.LinuxNamespaceType{specs.NetworkNamespace, specs.IPCNamespace, specs.UTSNamespace}
	host := proc.Self(q)

	q.Step("start a sandbox and two containers that join its namespaces: they have one shim, whose socket is named after the sandbox's id")
	pod := q.ID("cdb-pod")
	_, pause := p.start(pod, "cdb-pod", "sandbox", 0)
	ids, members := []string{pod}, []proc.Process{pause}
	for _, name := range []string{"cdb-web", "cdb-helper"} {
		id, container := p.start(pod, name, "container", pause.PID, shared...)
		ids, members = append(ids, id), append(members, container)
	}
	shims := d.Shims()
	assert.Assert(q, cmp.Len(shims, 1), "shims of the pod")
	shim := proc.Snapshot(q, shims[0])
	q.Fact("pod: shims", len(shims))
	p.recordParts(pod, ids, members, shim)

	q.Step("compare the namespaces: network, IPC and UTS are the sandbox's, mount and pid are each container's own")
	inPod := slices.DeleteFunc(members[1].SharedNamespaces(pause.Identity), func(ns string) bool { return pause.NS[ns] == host.NS[ns] })
	assert.Check(q, cmp.DeepEqual(inPod, []string{"ipc", "net", "uts"}), "namespaces of the sandbox in which a container is")
	assert.Check(q, cmp.DeepEqual(members[1].OwnNamespaces(members[2].Identity), members[1].OwnNamespaces(pause.Identity)))
	own := members[1].OwnNamespaces(members[2].Identity)
	assert.Check(q, cmp.DeepEqual(own, []string{"mnt", "pid"}), "namespaces of a container in which the other one is not")
	hostname := strings.TrimSpace(d.Ctr("tasks", "exec", "--fifo-dir", d.FifoDir, "--exec-id", "name", ids[1], "hostname").Stdout)
	assert.Check(q, cmp.Equal(hostname, pod), "the host name in a container, and that of the sandbox's config.json")
	q.Fact("pod: namespaces", inPod)
	q.Fact("each container: namespaces of its own", own)

	q.Step("kill the first container: the sandbox and the second container run on, and a new task joins the same namespaces")
	q.KillProcess(members[1])
	proc.WaitFor(q, proc.Dead(members[1].Identity))
	proc.WaitFor(q, d.TaskStopped(ids[1]))
	left := livingMembers(members)
	assert.Check(q, cmp.DeepEqual(left, []string{"sandbox", "second container"}), "alive after the death of the first container")
	q.Fact("after the death of the first container: alive", left)
	d.DeleteTask(ids[1])
	again := d.StartTaskAndWait(ids[1])
	for _, ns := range inPod {
		assert.Check(q, cmp.Equal(again.NS[ns], pause.NS[ns]), "the %s namespace of the new task, and the sandbox's", ns)
	}
	members[1] = again

	q.Step("kill the sandbox's process: the containers run on in its namespaces, but no new container can join them")
	q.KillProcess(pause)
	proc.WaitFor(q, proc.Dead(pause.Identity))
	proc.WaitFor(q, d.TaskStopped(pod))
	left = livingMembers(members)
	assert.Check(q, cmp.DeepEqual(left, []string{"first container", "second container"}), "alive after the death of the sandbox")
	now := proc.Snapshot(q, again.PID)
	assert.Check(q, cmp.DeepEqual(now.NS, again.NS), "namespaces of a container after the death of the sandbox")
	assert.Check(q, shim.Alive(), "the shim has ended with the sandbox")
	q.Fact("after the death of the sandbox: alive", left)
	p.assertCannotJoin(pod, pause.PID, shared)
	d.DeleteTask(pod)
	anew := d.StartTaskAndWait(pod)
	common := slices.DeleteFunc(anew.SharedNamespaces(again.Identity), func(ns string) bool { return anew.NS[ns] == host.NS[ns] })
	assert.Check(q, cmp.Len(common, 0), "namespaces of the pod that the new sandbox has in common with the containers")
	q.Fact("a new sandbox: namespaces in common with the containers", common)

	q.Control("a pod with one pid namespace: the sandbox's process is pid 1 there, and its death ends the container")
	podOfOne := q.ID("cdb-pod-2")
	_, first := p.start(podOfOne, "cdb-pod-2", "sandbox", 0)
	web, second := p.start(podOfOne, "cdb-web-2", "container", first.PID, append(shared, specs.PIDNamespace)...)
	assert.Check(q, cmp.Equal(second.NS["pid"], first.NS["pid"]), "pid namespaces of sandbox and container")
	inner := []int{proc.InnerPID(q, first.PID), proc.InnerPID(q, second.PID)}
	assert.Check(q, inner[0] == 1 && inner[1] > 1, "pids of sandbox and container in their pid namespace: %v, want 1 and another one", inner)
	q.KillProcess(first)
	proc.WaitFor(q, proc.Dead(second.Identity))
	proc.WaitFor(q, d.TaskStopped(web))
	status := d.TaskStatus(web)
	assert.Check(q, cmp.Equal(status.ExitStatus, uint32(128+9)), "exit status of the container")
	q.Fact("one pid namespace: pid of the sandbox's process in it", inner[0])
	q.Fact("one pid namespace: exit status of the container after the death of the sandbox", status.ExitStatus)

	q.TearDown("delete all tasks: no shim is left", func() {
		p.unpinSockets()
		d.KillAndDeleteTask(pod)
		d.KillAndDeleteTask(ids[1])
		d.KillAndDeleteTask(ids[2])
		proc.WaitFor(q, d.TaskStopped(podOfOne))
		d.DeleteTask(podOfOne)
		d.DeleteTask(web)
		proc.WaitFor(q, d.HasShims(0))
		q.Fact("after the last delete: shims", len(d.Shims()))
		p.recordLeftoverSockets()
	})

	q.Answer("A pod is a sandbox and its containers. The sandbox is a task that only waits, and the containers are tasks that join its " +
		"network, IPC and UTS namespaces. They share one shim, and when the sandbox's process dies, the containers run on, unless they share " +
		"its pid namespace.")
}

// podMaker makes pods as the CRI plugin does, by the Go client.
type podMaker struct {
	q       *lab.Q
	d       *ctrd.Daemon
	ref     string
	parent  string   // the cgroup of the pods
	sockets []string // of the pods' shims, in the order in which the pods were made
	unpins  []func()
}

// start creates a container of a pod, starts its task and waits for its program. kind is "sandbox" or "container". A container joins
// namespaces of the sandbox's process.
func (p *podMaker) start(
	pod, name, kind string, sandbox proc.PID, join ...specs.LinuxNamespaceType,
) (id string, task proc.Process) {
	d := p.d
	p.q.Helper()
	id = p.q.ID(name)
	d.CreateContainerByClient(ctrd.ClientOptions{Spec: p.spec(pod, id, kind, sandbox, join...)}, p.ref, id, "sleep", "3600")
	task = d.StartTaskAndWait(id)
	if kind == "sandbox" { // the pod's next tasks find this shim, also where the machine is busy
		socket := filepath.Join(d.SocketDir, d.SocketName(pod))
		p.sockets = append(p.sockets, socket)
		p.unpins = append(p.unpins, d.PinSocket(socket))
	}
	return id, task
}

// recordParts asserts that all tasks of a pod are children of its shim, name its one socket, and have cgroups of their own below the pod's.
func (p *podMaker) recordParts(pod string, ids []string, members []proc.Process, shim proc.Process) {
	q, d := p.q, p.d
	named := map[string]bool{}
	for i, id := range ids {
		assert.Check(q, cmp.Equal(members[i].Parent, shim.PID), "the parent of %s, and the pod's shim", id)
		named[filepath.Base(d.ShimSocket(id))] = true
		check.OnlyProcessInCgroup(q, members[i].Identity, p.parent+"/"+id)
	}
	assert.Check(q, cmp.DeepEqual(named, map[string]bool{d.SocketName(pod): true}), "sockets that the bundles name")
	below := cgroupsBelow(q, p.parent)
	assert.Check(q, cmp.DeepEqual(below, slices.Sorted(slices.Values(ids))), "cgroups below the pod's")
	q.Fact("pod: sockets", len(named))
	q.Fact("pod: cgroups below its own", len(below))
}

// spec returns what the CRI plugin writes into config.json: annotations, the cgroup below the pod's, and the namespaces to join.
func (p *podMaker) spec(pod, id, kind string, sandbox proc.PID, join ...specs.LinuxNamespaceType) []oci.SpecOpts {
	out := []oci.SpecOpts{
		oci.WithAnnotations(map[string]string{"io.kubernetes.cri.container-type": kind, "io.kubernetes.cri.sandbox-id": pod}),
		oci.WithCgroup(p.parent + "/" + id),
	}
	if kind == "sandbox" {
		out = append(out, oci.WithHostname(pod)) // a container that has one would rename the pod
	}
	for _, ns := range join {
		path := fmt.Sprintf("/proc/%d/ns/%s", sandbox, proc.NamespaceName(string(ns)))
		out = append(out, oci.WithLinuxNamespace(specs.LinuxNamespace{Type: ns, Path: path}))
	}
	return out
}

// assertCannotJoin asserts that no new container can join the namespaces of a sandbox whose process is dead.
func (p *podMaker) assertCannotJoin(pod string, sandbox proc.PID, shared []specs.LinuxNamespaceType) {
	q, d := p.q, p.d
	late := q.ID("cdb-late")
	d.CreateContainerByClient(ctrd.ClientOptions{Spec: p.spec(pod, late, "container", sandbox, shared...)}, p.ref, late, "sleep", "3600")
	refused := d.TryStartTask(late)
	assert.Check(q, refused.Code != 0, "a container has joined namespaces of a dead sandbox:\n%s", refused)
	missing := fmt.Sprintf("/proc/%d/ns/", sandbox)
	assert.Check(q, cmp.Contains(refused.Stderr, missing), "the error of ctr names the path that the runtime has not found")
	q.Fact("after the death of the sandbox: another container can join", refused.Code == 0)
}

// unpinSockets lets the shims themselves remove their sockets.
func (p *podMaker) unpinSockets() {
	for _, unpin := range p.unpins {
		unpin()
	}
}

// recordLeftoverSockets asserts that no process listens on the sockets of both pods, and records which are left over.
func (p *podMaker) recordLeftoverSockets() {
	for i, name := range []string{"the pod", "the pod with one pid namespace"} {
		// A shim since 2.3 finds the directory of its socket by a link in the bundle of the first task, which was deleted before.
		left := check.Dial(p.sockets[i])
		assert.Check(p.q, errors.Is(left, unix.ECONNREFUSED) || errors.Is(left, unix.ENOENT), "the socket of %s: %v", name, left)
		p.q.Fact("socket of "+name+" after the last delete: left over", errors.Is(left, unix.ECONNREFUSED))
	}
}

func (p *podMaker) removeStaleSockets() {
	for _, socket := range p.sockets {
		removeStaleSocket(p.q, socket)
	}
}

// cgroupsBelow returns the names of the cgroups below a cgroup.
func cgroupsBelow(q *lab.Q, parent string) []string {
	below, err := filepath.Glob(filepath.Join(cgroup.Of(q, parent).Dir("pids"), "*", "cgroup.procs"))
	assert.NilError(q, err)
	for i := range below {
		below[i] = filepath.Base(filepath.Dir(below[i]))
	}
	return below
}

// livingMembers returns which of the pod's processes are alive.
func livingMembers(members []proc.Process) (alive []string) {
	for i, name := range []string{"sandbox", "first container", "second container"} {
		if members[i].Alive() {
			alive = append(alive, name)
		}
	}
	return alive
}
