//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"cdblab/helpers/file"
	"cdblab/helpers/strace"

	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/poll"

	"cdblab/helpers/bundle"
	"cdblab/helpers/check"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// From the shim's helper to the program, clone and execve lead through six processes: helper, shim, runc create, and three stages of runc
// init. A seventh, runc start, only opens the FIFO.
//
// The helper starts the shim and ends. The shim mounts the snapshot and calls runc create, which calls itself as `runc
// init`. That process (stage 0) clones stage 1, which unshares the namespaces. But a pid namespace is only for
// children, so stage 1 clones stage 2: pid 1 of the container. Stages 1 and 2 are cloned with CLONE_PARENT, as children
// of runc create. Stage 2 mounts what config.json lists, calls pivot_root, and opens exec.fifo, where it waits. runc
// start opens the other end, and stage 2 calls execve: the last call of runc, and the first of the program.
//
// Hint: strace -D leaves the program the child of its caller; `grep TracerPid /proc/PID/status` names the tracer.
// Spec: https://github.com/opencontainers/runc/blob/main/libcontainer/nsenter/nsexec.c
// Kernel: https://man7.org/linux/man-pages/man2/pivot_root.2.html
func TestEvents_WhatDoesStraceSee(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does strace see, from shim to runc to init?")
	defer q.Recover()
	strace.Require(q)
	dir, hostNetDir := q.Mkdir("trace"), q.Mkdir("trace-hostnet")
	d := ctrd.Shared(q)
	ref := d.PullImage()
	id := q.ID(ctrd.ContainerID)

	q.Step("start a task whose shim is called through strace: strace traces the program, too")
	d.CreateContainerByClient(ctrd.ClientOptions{Runtime: traceShim(q, dir)}, ref, id, "sleep", "3600")
	d.StartTask(id)
	pid := d.TaskPID(id)
	proc.WaitFor(q, proc.Runs(pid, "sleep"))
	proc.WaitFor(q, file.Contains(strace.File(dir, pid), `["sleep", "3600"]`)) // strace writes when execve has returned
	task, self := proc.Snapshot(q, pid), proc.Self(q)
	recordTracer(q, dir, pid)

	tr := strace.Read(q, dir)
	q.Step("look at the shim's helper: it starts the shim, and ends")
	helper := tr.Next("the helper's execve", strace.AnyProcess, `^execve\(".*containerd-shim.*"start"`)
	cloneShim := tr.Next("its clone", helper.PID, `^clone.*`+strace.CreatesProcess)
	shim := tr.Next("the shim's execve", strace.AnyProcess, `^execve\(".*containerd-shim.*"`+id+`"`)
	assert.Check(q, cmp.Equal(shim.PID, task.Parent), "process that execs the shim, and parent of the program")
	assert.Check(q, cloneShim.Time < shim.Time)
	assert.Check(q, !proc.Alive(helper.PID), "the helper %d is alive", helper.PID)
	q.Fact("execve of the shim, and the program's parent", task.Parent)

	q.Step("look at the shim: it mounts the snapshot, and calls runc create")
	tr.Next("the shim's mount", shim.PID, `^mount\("[^"]*", "`+d.Bundle(id)+`/rootfs"`)
	execCreate := tr.Next("runc's execve", strace.AnyProcess, `^execve\(".*"create"`)
	assert.Check(q, cmp.Equal(tr.Parent(execCreate.PID), shim.PID), "process that cloned runc create")
	q.Fact("process that cloned runc create", tr.Parent(execCreate.PID))
	q.Fact("runc create", execCreate.PID)

	q.Step("look at runc create: it calls itself as init, which is stage 0 and clones stage 1")
	const execInit = `^execve\("[^"]*", \["[^"]*", "init"\]`
	if !runc.IsRunc(q) && !tr.Has(execInit) {
		q.Skipf("this runtime does not call itself as init, as runc does, so it has no stages: run the question with runc (unset CDB_RUNC)")
	}
	stage0 := tr.Next("stage 0's execve", strace.AnyProcess, execInit)
	assert.Check(q, cmp.Equal(tr.Parent(stage0.PID), execCreate.PID), "process that cloned stage 0")
	cloneStage1 := tr.Next("stage 0's clone", stage0.PID, `^clone.*CLONE_PARENT.*`+strace.CreatesProcess)
	stage1 := proc.PID(cloneStage1.Result())
	q.Fact("process that cloned stage 0", tr.Parent(stage0.PID))
	q.Fact("stage 0's execve: arguments", regexp.MustCompile(`\[[^\]]*\]`).FindString(stage0.Text))

	q.Step("look at stage 1: it unshares exactly the namespaces that the program does not share with the host")
	unshare := tr.Next("stage 1's unshare", stage1, `^unshare\(.*CLONE_NEW`)
	cloneStage2 := tr.Next("stage 1's clone", stage1, `^clone.*CLONE_PARENT.*`+strace.CreatesProcess)
	assert.Check(q, cmp.DeepEqual(tr.NewNamespaces(), task.OwnNamespaces(self.Identity)))
	q.Fact("stage 1", unshare.Text)
	q.Fact("namespaces unshared, and the program's own", tr.NewNamespaces())

	q.Step("look at stage 2: it is the process that will be the program")
	assert.Check(q, cmp.Equal(proc.PID(cloneStage2.Result()), pid), "the clone's result, and the task's pid")
	assert.Check(q, cmp.Equal(proc.InnerPID(q, pid), 1))
	q.Fact("result of stage 1's clone, and the task's pid", pid)

	q.Step("look at the mounts of stage 2: it mounts what config.json lists, in that order, and changes the root")
	firstMount := tr.Next("stage 2's first mount", pid, `^mount\(`)
	pivot := tr.Next("stage 2's pivot_root", pid, `^pivot_root\(.*= 0$`)
	recordFileSystems(q, task, bundle.Read(q, d.Bundle(id)), newFileSystems(tr, pid, pivot))
	assert.Check(q, firstMount.Time < pivot.Time)

	q.Step("look at runc start: stage 2 waits at exec.fifo, runc start opens the other end, and the last call of stage 2 is execve")
	// runc create may return before stage 2 is at the FIFO. So on a busy machine runc start may be called first.
	openFIFO := tr.First("stage 2's open of exec.fifo", pid, `^openat\(.*O_WRONLY.*exec\.fifo>?`)
	execStart := tr.Next("runc start's execve", strace.AnyProcess, `^execve\(".*"start"`)
	assert.Check(q, cmp.Equal(tr.Parent(execStart.PID), shim.PID), "process that cloned runc start")
	tr.Next("runc start's open of exec.fifo", execStart.PID, `^openat\(.*exec\.fifo", O_RDONLY`)
	execProgram := tr.Next("the program's execve", pid, `^execve\("[^"]*sleep", \["sleep", "3600"\]`)
	assert.Check(q, pivot.Time < openFIFO.Time && openFIFO.Time < execProgram.Time)
	assert.Check(q, cmp.DeepEqual(task.Args, []string{"sleep", "3600"}))
	q.Fact("stage 2's last call", regexp.MustCompile(`^execve\([^\]]*\]`).FindString(execProgram.Text))
	q.Fact("in this order", tr.Found())

	q.Control("start a container in the host's network namespace: it makes the same calls, but CLONE_NEWNET is in none of them")
	hostNet := q.ID("cdb-hostnet")
	options := ctrd.ClientOptions{BinaryName: traceRunc(q, hostNetDir), Spec: []oci.SpecOpts{oci.WithHostNamespace(specs.NetworkNamespace)}}
	d.CreateContainerByClient(options, ref, hostNet, "sleep", "3600")
	d.StartTask(hostNet)
	hostNetTask := proc.Snapshot(q, d.TaskPID(hostNet))
	recordUnshared(q, strace.Read(q, hostNetDir), hostNetTask)

	q.TearDown("delete the tasks: their shims end, and then strace ends, because no process is left to trace", func() {
		for _, id := range []string{id, hostNet} {
			d.KillAndDeleteTask(id)
		}
		proc.WaitFor(q, d.HasShims(0))
		for _, dir := range []string{dir, hostNetDir} {
			proc.WaitFor(q, hasNoTracers(q, dir))
		}
	})

	q.Answer("strace sees the shim's helper, the shim, runc create, and three stages of runc init. These call unshare, mount and " +
		"pivot_root, wait at the FIFO, and call execve, in this order.")
}

// traceShim writes a shim that is called through strace where it starts. strace writes the trace into the directory.
func traceShim(q *lab.Q, dir string) string {
	// strace would hold the caller's pipes as long as the container lives. So strace gets no pipe, and the program that it
	// runs gets the caller's pipes back.
	return q.WriteWrapper("strace-shim", `case " $* " in *" start "*)
	exec `+strace.CommandLine(dir, "openat,mount,pivot_root,execve")+` sh -c 'exec "$@" 2>&1' sh "$SHIM" "$@" 2>/dev/null;; esac
exec "$SHIM" "$@"`)
}

// traceRunc writes a runtime whose create is called through strace. strace writes the trace into the directory.
func traceRunc(q *lab.Q, dir string) string {
	return q.WriteWrapper("strace-runc", `case " $* " in *" create "*) exec `+strace.CommandLine(dir, "execve")+` "$RUNC" "$@";; esac
exec "$RUNC" "$@"`)
}

// recordTracer asserts that one strace traces, and that it traces the program.
func recordTracer(q *lab.Q, dir string, pid proc.PID) {
	tracers := strace.Tracers(q, dir)
	assert.Assert(q, cmp.Len(tracers, 1), "processes of strace")
	assert.Check(q, cmp.Equal(proc.Status(q, pid, "TracerPid"), fmt.Sprint(tracers[0])))
	q.Fact("TracerPid of the program", tracers[0])
}

// recordUnshared asserts that the calls of a container in the host's network namespace unshare all namespaces of its own, and no network.
func recordUnshared(q *lab.Q, tr *strace.Trace, hostNetTask proc.Process) {
	assert.Check(q, cmp.DeepEqual(tr.NewNamespaces(), hostNetTask.OwnNamespaces(proc.Self(q).Identity)))
	assert.Check(q, !slices.Contains(tr.NewNamespaces(), "net"), "unshared: %v", tr.NewNamespaces())
	assert.Check(q, cmp.Contains(tr.NewNamespaces(), "mnt"))
	q.Fact("with the host's network: namespaces unshared, and its own", tr.NewNamespaces())
}

// newFileSystems returns the types of the file systems that a process has mounted before it called pivot_root, in order.
func newFileSystems(tr *strace.Trace, pid proc.PID, pivot strace.Call) []string {
	// A new file system has a type, which a bind mount, a remount and a change of propagation do not have.
	newMount := regexp.MustCompile(`^mount\("[^"]*", "[^"]*", "([a-z0-9]+)", .* = 0$`)
	var types []string
	for _, c := range tr.Calls {
		m := newMount.FindStringSubmatch(c.Text)
		if c.PID == pid && c.Time < pivot.Time && m != nil && !strings.Contains(c.Text, "MS_BIND") && !strings.Contains(c.Text, "MS_REMOUNT") {
			types = append(types, m[1])
		}
	}
	return types
}

// recordFileSystems asserts that the attempted file systems are those of config.json, and that they are mounted in the task.
func recordFileSystems(q *lab.Q, task proc.Process, config *specs.Spec, attempted []string) {
	q.Helper()
	var configured, mounted []string
	taskMounts := check.Mounts(q, task)
	for _, m := range config.Mounts {
		configured = append(configured, m.Type)
		mounted = append(mounted, check.TopMount(q, taskMounts, m.Destination).FSType)
	}
	assert.Check(q, cmp.DeepEqual(attempted, configured), "new file systems in the trace, mounts in config.json")
	assert.Check(q, cmp.DeepEqual(attempted, mounted), "new file systems in the trace, at their places in mountinfo")
	q.Fact("new file systems, and those in mountinfo", attempted)
}

// hasNoTracers returns a check that succeeds when no strace runs any more that writes into the directory.
func hasNoTracers(q *lab.Q, dir string) poll.Check {
	return func(poll.LogT) poll.Result {
		if tracers := strace.Tracers(q, dir); len(tracers) > 0 {
			return poll.Continue("processes of strace still run: %v", tracers)
		}
		return poll.Success()
	}
}
