//go:build linux && vmlab

package cdblab

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/bundle"
	"cdblab/helpers/check"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// Create builds the room; start lets the program in.
//
// Create returns with namespaces, cgroup and mounts in place and with a stand-in in them: a process of the runtime
// itself, blocked in open(2) on the FIFO exec.fifo. Start opens the FIFO's other end; the stand-in goes on and calls
// execve(2). The program changes, the process does not: pid, start time, namespaces, cgroup and mounts stay.
//
// Hint: compare /proc/PID/{comm,exe,stat,ns,cgroup,mountinfo} before and after start.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/runtime.md#lifecycle
// Kernel: https://man7.org/linux/man-pages/man7/fifo.7.html, https://man7.org/linux/man-pages/man2/execve.2.html
func TestLifecycle_WhatIsTheDifferenceBetweenCreateAndStart(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What is the difference between create and start?")
	c := runc.New(q, bundle.Busybox(q, "sleep", "300"))

	q.Step("create: the room is built, and a stand-in waits in it")
	c.Create()
	state := c.State()
	pid := state.Pid
	created := proc.Snapshot(q, proc.PID(pid))
	assert.Equal(q, state.Status, specs.StateCreated)
	q.Fact("runc says", state.Status)
	q.Fact("pid", created.PID)
	q.Clause("Create: This operation MUST create a new container.", lab.Met)

	own := created.OwnNamespaces(proc.Self(q).Identity)
	for _, ns := range []string{"ipc", "mnt", "net", "pid", "uts"} {
		assert.Check(q, cmp.Contains(own, ns), "the container shares the host's %s namespace", ns)
	}
	q.Fact("namespaces of its own", own)
	q.Fact("inodes", created.NS)
	check.OnlyProcessInCgroup(q, created.Identity, c.Bundle.Spec.Linux.CgroupsPath)
	q.Fact("cgroup", c.Bundle.Spec.Linux.CgroupsPath)
	q.Clause("Lifecycle: The container's runtime environment MUST be created according to the configuration in config.json.", lab.Met)
	assert.Check(q, !check.SeesHostMounts(created), "a mount of the host is still visible after pivot_root: %q", created.Mounts)
	q.Fact("mounts it sees", len(created.Mounts))

	q.Step("the program of config.json does not run yet: the stand-in is the runtime itself")
	assert.Check(q, created.Comm != "sleep", "comm is already the program's")
	q.Fact("comm", created.Comm)
	assert.Check(q, cmp.DeepEqual(created.Args[len(created.Args)-1:], []string{"init"}))
	q.Fact("cmdline", created.Args)
	assert.Check(q, !strings.HasPrefix(created.Exe, "/bin/"), "exe is already a program of the rootfs: %s", created.Exe)
	assert.Check(q, cmp.Equal(proc.ExeDigest(q, proc.PID(pid)), q.UnderTest("runc").Digest), "its program, byte for byte, is runc's")
	q.Fact("exe", created.Exe+", the same bytes as runc")
	assert.Check(q, created.Threads > 1, "a Go program has several threads, this one %d", created.Threads)
	assert.Check(q, !cmp.Contains(strings.Join(created.Env, " "), "TERM=xterm")().Success(), "it has the program's environment: %q", created.Env)

	q.Step("it waits at the FIFO, in open(2)")
	fifo, err := os.Lstat(c.Fifo())
	assert.NilError(q, err, "created, and no FIFO")
	assert.Check(q, fifo.Mode()&os.ModeNamedPipe != 0, "%s is no FIFO: %v", c.Fifo(), fifo.Mode())
	q.Fact("exec.fifo", fifo.Mode())
	proc.WaitFor(q, proc.SleepsIn(proc.PID(pid), unix.SYS_OPENAT))
	call := proc.CurrentSyscall(q, proc.PID(pid))
	opened := proc.CString(q, proc.PID(pid), call.Args[1])
	assert.Check(q, cmp.Equal(call.Args[2]&unix.O_ACCMODE, uint64(unix.O_WRONLY)))
	assert.Check(q, cmp.Equal(filepath.Base(runc.ResolveFD(created, opened)), "exec.fifo"), "it opens %q of its descriptors %v", opened, created.FDs)
	q.Fact("blocked in", "openat("+runc.ResolveFD(created, opened)+", O_WRONLY)")
	q.Fact("asleep in the kernel's", proc.WaitChannel(q, proc.PID(pid)))
	document, err := os.Stat(filepath.Join(c.StateDir(), "state.json"))
	assert.NilError(q, err)

	q.Step("start: the FIFO's other end is opened, and the stand-in calls execve")
	c.Start()
	proc.WaitFor(q, proc.Runs(proc.PID(pid), "sleep"))
	running := proc.Snapshot(q, proc.PID(pid))
	assert.Equal(q, c.State().Status, specs.StateRunning)
	q.Fact("runc says", c.State().Status)
	_, err = os.Lstat(c.Fifo())
	assert.Check(q, os.IsNotExist(err), "the FIFO is still there after start: %v", err)
	q.Fact("exec.fifo", "gone")
	after, err := os.Stat(filepath.Join(c.StateDir(), "state.json"))
	assert.NilError(q, err)
	assert.Check(q, os.SameFile(document, after) && document.ModTime().Equal(after.ModTime()), "start wrote state.json again")

	q.Step("another program …")
	assert.Check(q, cmp.DeepEqual(running.Args, []string{"sleep", "300"}))
	q.Fact("cmdline", running.Args)
	assert.Check(q, cmp.Equal(running.Exe, "/bin/busybox"))
	assert.Check(q, cmp.Equal(proc.ExeDigest(q, proc.PID(pid)), q.UnderTest("busybox").Digest))
	q.Fact("exe", running.Exe)
	assert.Check(q, cmp.Contains(running.Env, "TERM=xterm"))
	q.Fact("environ", running.Env)
	assert.Check(q, cmp.Equal(running.Threads, 1))
	assert.Check(q, cmp.Len(running.FDs, 3))
	q.Fact("descriptors left of the stand-in's", []int{len(running.FDs), len(created.FDs)})

	q.Step("… in the same process: pid, start time, parent, namespaces, cgroup and mounts")
	assert.DeepEqual(q, running.Identity, created.Identity)
	q.Fact("pid", running.PID)
	q.Fact("start time", running.Start)
	q.Fact("inodes", running.NS)

	q.Control("a program that leaves a mark: there is none after create, there is one after start")
	nonce := filepath.Base(q.Dir) + "-was-here"
	m := runc.Named(q, bundle.New(q, "mark", "cdb-runc-mark",
		bundle.Args("sh", "-c", "echo $NONCE > /mark; exec sleep 300"),
		func(s *specs.Spec) {
			s.Root.Readonly = false
			s.Process.Env = append(s.Process.Env, "NONCE="+nonce)
		}), "root-mark", "cdb-runc-mark")
	m.Create()
	_, err = os.Stat(m.Bundle.Rootfs("mark"))
	assert.Assert(q, os.IsNotExist(err), "the program ran before start: %v", err)
	q.Fact("mark after create", "none")
	q.Clause("Lifecycle: While the resources requested in the config.json MUST be created, the user-specified program (from process) MUST NOT be run at this time.", lab.Met)
	q.Clause("Create: process.args MUST NOT be applied until triggered by the start operation.", lab.Met)
	m.Start()
	marked := m.State().Pid
	proc.WaitFor(q, proc.Runs(proc.PID(marked), "sleep"))
	mark, err := os.ReadFile(m.Bundle.Rootfs("mark"))
	assert.NilError(q, err, "the program did not run after start")
	assert.Equal(q, strings.TrimSpace(string(mark)), nonce)
	q.Fact("mark after start", "there")
	q.Clause("Start: This operation MUST run the user-specified program as specified by process.", lab.Met)
	q.Clause("Lifecycle: The runtime MUST run the user-specified program, as specified by process.", lab.Met)
	m.KillAndDelete(proc.Snapshot(q, proc.PID(marked)))

	q.TearDown("kill and delete: the room is torn down, and state fails, which is how one sees that it is clean", func() {
		c.KillAndDelete(running)
		check.NoCgroup(q, c.Bundle.Spec.Linux.CgroupsPath)
		_, err := os.Stat(c.StateDir())
		assert.Check(q, os.IsNotExist(err), "the state directory is still there: %v", err)
		gone := c.Try("state")
		assert.Check(q, gone.Code != 0, "state of a deleted container succeeds:\n%s", gone)
		assert.Check(q, cmp.Contains(gone.Stderr, "does not exist"))
		q.Fact("state after delete", "container does not exist")
		q.Clause("Query State: Attempting to query a container that does not exist MUST generate an error.", lab.Met)
	})

	q.Answer("Create builds the room, with a stand-in waiting in it. Start swaps the program, not the process.")
}

// For somebody to open the FIFO's other end. That is all that start does to it.
//
// The created process is blocked in open(2) of a FIFO for writing, and such an open ends when somebody opens the FIFO
// for reading. Whoever does that starts the program, with or without the runtime. The runtime derives the state "created"
// from the FIFO's presence, so after a start by hand it is wrong until the FIFO is gone.
//
// Hint: what does open(2) do with a FIFO that nobody reads? What is left of runc between create and start?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/runtime.md#start
// Kernel: https://man7.org/linux/man-pages/man7/fifo.7.html
func TestLifecycle_WhatIsTheCreatedProcessWaitingFor(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What is the created process waiting for?")
	b := bundle.Busybox(q, "sleep", "300")
	c, untouched := runc.Variant(q, b, "opened"), runc.Variant(q, b, "untouched")

	q.Step("two containers are created, and both wait in open(2) of their FIFO")
	var waiting []proc.Process
	for _, c := range []*runc.Container{c, untouched} {
		c.Create()
		pid := c.State().Pid
		proc.WaitFor(q, proc.SleepsIn(proc.PID(pid), unix.SYS_OPENAT))
		p := proc.Snapshot(q, proc.PID(pid))
		call := proc.CurrentSyscall(q, proc.PID(pid))
		path := proc.CString(q, proc.PID(pid), call.Args[1])
		assert.Check(q, cmp.Equal(runc.ResolveFD(p, path), c.Fifo()), "it opens %q", path)
		assert.Check(q, cmp.Equal(call.Args[2]&unix.O_ACCMODE, uint64(unix.O_WRONLY)), "the mode in which it opens the FIFO")
		waiting = append(waiting, p)
	}
	q.Fact("both are blocked in", "openat(exec.fifo, O_WRONLY)")
	q.Fact("the kernel's word for it", proc.WaitChannel(q, waiting[0].PID))

	q.Step("the other end is opened, by cat and not by the runtime: the program runs")
	written := q.Must("cat", c.Fifo()).Stdout
	assert.Check(q, cmp.Equal(written, "0"), "what was written to the FIFO")
	proc.WaitFor(q, proc.Runs(waiting[0].PID, "sleep"))
	started := proc.Snapshot(q, waiting[0].PID)
	assert.Check(q, cmp.DeepEqual(started.Identity, waiting[0].Identity))
	assert.Check(q, cmp.DeepEqual(started.Args, []string{"sleep", "300"}))
	q.Fact("cat prints", written)
	q.Fact("cmdline", started.Args)

	q.Control("the one whose FIFO nobody opened waits on")
	still := proc.Snapshot(q, waiting[1].PID)
	assert.Check(q, cmp.DeepEqual(still.Identity, waiting[1].Identity))
	assert.Check(q, still.Comm != "sleep", "it runs %q although nobody opened its FIFO", still.Comm)
	assert.Check(q, cmp.Equal(proc.CurrentSyscall(q, still.PID).Number, unix.SYS_OPENAT))
	q.Fact("comm", still.Comm)

	q.Step("the runtime derives its word from the FIFO: it still says created, until the FIFO is gone")
	assert.Check(q, file.Exists(c.Fifo()), "who opened the FIFO did not remove it, and yet it is gone")
	assert.Check(q, cmp.Equal(c.State().Status, specs.StateCreated))
	assert.NilError(q, os.Remove(c.Fifo()))
	q.LogCommand("rm %s", c.Fifo())
	assert.Check(q, cmp.Equal(c.State().Status, specs.StateRunning))
	q.Fact("with the FIFO, and without", []specs.ContainerState{specs.StateCreated, specs.StateRunning})
	c.KillAndDelete(started)

	q.Answer("For a reader of exec.fifo. Start opens it, and whoever else opens it starts the program too.")
}
