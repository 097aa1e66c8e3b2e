//go:build linux && vmlab

package cdblab

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
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

// Create builds the namespaces, the cgroup and the mounts, and leaves `runc init` waiting in them. Start makes `runc init`
// execute the program of config.json: the program changes, the process stays.
//
// `runc init` is a process of the runtime itself, blocked in open(2) on the FIFO exec.fifo. Start opens the other end of the
// FIFO, and `runc init` goes on to execve(2). Pid, start time, namespaces, cgroup and mounts stay the same. `runc init` runs in the
// container, so its program file is runc on a read-only mount, or a sealed copy of runc: a program in the container once wrote into the
// host's runc through /proc/PID/exe (CVE-2019-5736). The program begins with three open files: stdin, stdout and stderr. Others reach it
// only if the caller passes them: as LISTEN_FDS, or by --preserve-fds.
//
// Hint: compare /proc/PID/{comm,exe,stat,ns,cgroup,mountinfo,fd} before and after start.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/runtime.md#lifecycle,
// https://github.com/opencontainers/runtime-spec/blob/main/runtime-linux.md#file-descriptors
// Kernel: https://man7.org/linux/man-pages/man7/fifo.7.html, https://man7.org/linux/man-pages/man2/execve.2.html
func TestLifecycle_WhatIsTheDifferenceBetweenCreateAndStart(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What is the difference between create and start?")
	defer q.Recover()
	runc.SkipUnlessRunc(q, "how `runc init` waits for start")
	container := runc.New(q, bundle.Busybox(q, "sleep", "3600"))

	q.Step("create the container: runc builds its namespaces, cgroup and mounts, and `runc init` waits in them")
	container.Create()
	state := container.State()
	created := proc.Snapshot(q, proc.PID(state.Pid))
	assert.Equal(q, state.Status, specs.StateCreated)
	q.Fact("status after create", state.Status)
	q.Fact("pid after create", created.PID)
	q.Clause("Create: This operation MUST create a new container.", lab.Met)

	own := created.OwnNamespaces(proc.Self(q).Identity)
	for _, ns := range []string{"ipc", "mnt", "net", "pid", "uts"} {
		assert.Check(q, cmp.Contains(own, ns), "the container shares the host's %s namespace", ns)
	}
	q.Fact("namespaces of its own", own)
	q.Fact("namespaces after create: inodes", created.NS)
	q.Fact("compared with config.json", container.AssertEnvironment(created))
	q.Fact("cgroup", container.Bundle.Spec.Linux.CgroupsPath)
	q.Clause("Lifecycle: The container's runtime environment MUST be created according to the configuration in config.json.", lab.Met)
	assert.Check(q, !check.SeesHostMounts(created), "a mount of the host is still visible after pivot_root: %q", created.Mounts)
	q.Fact("mounts it sees", len(created.Mounts))

	q.Step("look at the process: it is `runc init`; the program of config.json does not run yet")
	assertIsRuncInit(q, container.Bundle, created)

	q.Step("look where it waits: in open(2) of exec.fifo")
	assertWaitsAtFIFO(q, container, created)

	q.Step("look at its open files: each has a purpose and is closed by execve; no directory of the host is among them")
	open, unexpected := container.InitDescriptors(created)
	assert.Check(q, cmp.Len(unexpected, 0),
		"descriptors that runc init must not have, because the program could use them to reach the host: %q", unexpected)
	q.Fact("open files of runc init, besides stdin, stdout and stderr", open)
	stateFile := file.VersionOf(q, container.StateFile())

	q.Step("start the container: runc opens the other end of the FIFO, and `runc init` executes the program")
	container.Start()
	proc.WaitFor(q, proc.Runs(created.PID, "sleep"))
	running := proc.Snapshot(q, created.PID)
	assert.Equal(q, container.State().Status, specs.StateRunning)
	q.Fact("status after start", container.State().Status)
	assert.Check(q, !file.Exists(container.Fifo()), "the FIFO still exists after start")
	q.Fact("exec.fifo after start: exists", file.Exists(container.Fifo()))
	assert.Check(q, cmp.DeepEqual(file.VersionOf(q, container.StateFile()), stateFile), "start wrote state.json again")

	q.Step("look at the program: arguments, executable and environment have changed")
	assert.Check(q, cmp.DeepEqual(running.Args, []string{"sleep", "3600"}))
	q.Fact("cmdline after start", running.Args)
	assert.Check(q, cmp.Equal(running.Exe, "/bin/busybox"))
	assert.Check(q, cmp.Equal(proc.ExeDigest(q, created.PID), q.UnderTest("busybox").Digest))
	q.Fact("exe after start", running.Exe)
	assert.Check(q, cmp.Contains(running.Env, "TERM=xterm"))
	q.Fact("environ", running.Env)
	assert.Check(q, cmp.Equal(running.Threads, 1))
	assert.Check(q, cmp.Equal(container.Exec("hostname").Stdout, container.Bundle.Spec.Hostname+"\n"), "hostname in the container")

	q.Step("look at its open files: only stdin, stdout and stderr, as the lab gave them to `runc create`")
	given := map[int]string{0: "/dev/null", 1: "/memfd:stdout (deleted)", 2: "/memfd:stderr (deleted)"}
	assert.Check(q, cmp.DeepEqual(running.FDs, given), "descriptors of the program")
	q.Fact("descriptors of the program", slices.Sorted(maps.Keys(running.FDs)))

	q.Step("look at the process: pid, start time, parent, namespaces, cgroup and mounts are the same")
	assert.DeepEqual(q, running.Identity, created.Identity)
	q.Fact("pid after start", running.PID)
	q.Fact("start time", running.Start)
	q.Fact("namespaces after start: inodes", running.NS)

	q.Control("a program that writes a file: the file does not exist after create, and exists after start")
	nonce := filepath.Base(q.Dir) + "-was-here"
	marking := runc.Named(q, bundle.New(q, "mark", "cdb-runc-mark", bundle.WritableRootfs,
		bundle.Args("sh", "-c", "echo "+nonce+" > /mark; exec sleep 3600")), "root-mark", "cdb-runc-mark")
	assertRunsAfterStart(q, marking, nonce)
	q.Clause("Lifecycle: While the resources requested in the config.json MUST be created, the "+
		"user-specified program (from process) MUST NOT be run at this time.", lab.Met)
	q.Clause("Create: process.args MUST NOT be applied until triggered by the start operation.", lab.Met)
	q.Clause("Start: This operation MUST run the user-specified program as specified by process.", lab.Met)
	q.Clause("Lifecycle: The runtime MUST run the user-specified program, as specified by process.", lab.Met)

	q.Control("a caller with other open files: the program has none of them, unless the caller passes them, here as LISTEN_FDS")
	startWithOpenFiles(q, container.Bundle, given)

	q.TearDown("kill and delete the container: nothing of it is left, and state fails", func() {
		container.KillAndDelete(running)
		check.NoCgroup(q, container.Bundle.Spec.Linux.CgroupsPath)
		assert.Check(q, !file.Exists(container.StateDir()), "the state directory still exists after delete")
		deleted := container.Try("state")
		assert.Check(q, deleted.Code != 0, "state of a deleted container succeeds:\n%s", deleted)
		assert.Check(q, cmp.Contains(deleted.Stderr, "does not exist"))
		q.Fact("state after delete: error", runc.LastLogMessage(deleted))
		q.Clause("Query State: Attempting to query a container that does not exist MUST generate an error.", lab.Met)
	})

	q.Answer("Create builds the namespaces, the cgroup and the mounts, and leaves runc init waiting in them. " +
		"Start makes runc init execute the program of config.json: the program changes, the process stays.")
}

// assertIsRuncInit asserts that the process is `runc init`: nothing of it is the program's yet. Its own program file has the bytes of runc,
// and no program in the container can write into it.
func assertIsRuncInit(q *lab.Q, b *bundle.Bundle, init proc.Process) {
	q.Helper()
	assert.Check(q, init.Comm != "sleep", "the process runs sleep before start")
	q.Fact("comm", init.Comm)
	assert.Assert(q, len(init.Args) > 0, "the process has no command line: its state is %s", init.State)
	assert.Check(q, cmp.Equal(init.Args[len(init.Args)-1], "init"))
	q.Fact("cmdline after create", init.Args)
	assert.Check(q, !strings.HasPrefix(init.Exe, "/bin/"), "the process runs a program of the rootfs before start: %s", init.Exe)
	// runc executes itself by another path, or a copy of itself, so compare the bytes and not the path.
	runc.AssertIsRuntime(q, b, proc.ExeDigest(q, init.PID))
	q.Fact("exe after create, whose content is that of runc", init.Exe)
	isProtected := proc.ExeIsProtected(q, init.PID)
	assert.Check(q, isProtected, "a program in the container could write into %s, from which runc init was started", init.Exe)
	q.Fact("after create, the file of runc init is sealed or on a read-only mount", isProtected)
	assert.Check(q, init.Threads > 1, "a Go program has several threads, but runc init has %d", init.Threads)
	hasProgramEnv := cmp.Contains(strings.Join(init.Env, " "), "TERM=xterm")().Success()
	assert.Check(q, !hasProgramEnv, "runc init has the program's environment: %q", init.Env)
}

// assertWaitsAtFIFO asserts that `runc init` waits until another process opens exec.fifo.
func assertWaitsAtFIFO(q *lab.Q, c *runc.Container, init proc.Process) {
	q.Helper()
	fifo, err := os.Lstat(c.Fifo())
	assert.NilError(q, err, "the created container has no FIFO")
	assert.Check(q, fifo.Mode()&os.ModeNamedPipe != 0, "%s is no FIFO: %v", c.Fifo(), fifo.Mode())
	q.Fact("exec.fifo after create", fifo.Mode())
	opened, mode := runc.BlockedOpen(q, init)
	assert.Check(q, cmp.Equal(mode, uint64(unix.O_WRONLY)))
	assert.Check(q, cmp.Equal(filepath.Base(opened), "exec.fifo"), "runc init opens another file; its descriptors: %v", init.FDs)
	q.Fact("blocked in", "openat("+opened+", O_WRONLY)")
	q.Fact("kernel function in which it sleeps (0: the kernel does not show it)", proc.WaitChannel(q, init.PID))
}

// assertRunsAfterStart creates and starts a container whose program writes the nonce into /mark. Only start makes the file appear.
func assertRunsAfterStart(q *lab.Q, c *runc.Container, nonce string) {
	q.Helper()
	c.Create()
	pid, mark := c.PID(), c.Bundle.Rootfs("mark")
	markExists := file.Exists(mark)
	assert.Assert(q, !markExists, "the program ran before start")
	q.Fact("the file of the program after create: exists", markExists)
	c.Start()
	proc.WaitFor(q, proc.Runs(pid, "sleep"))
	markExists = file.Exists(mark)
	assert.Assert(q, markExists, "the program did not run after start")
	assert.Equal(q, file.Read(q, mark), nonce)
	q.Fact("the file of the program after start: exists", markExists)
	c.KillAndDelete(proc.Snapshot(q, pid))
}

// startWithOpenFiles starts two containers. The caller of `runc create` has the descriptors 3 and 9 open, besides the given ones. The first
// program has only the given ones. The second program has descriptor 3, too, because its caller passes one as LISTEN_FDS.
func startWithOpenFiles(q *lab.Q, b *bundle.Bundle, given map[int]string) {
	const opens = "exec 3< bundle/config.json 9< /"
	plain := runc.Variant(q, b, "plain")
	withoutListen := plain.StartAfter(opens)
	assert.Check(q, cmp.DeepEqual(withoutListen.FDs, given), "descriptors of the program; the caller has 3 and 9 too, which is the host's /")
	listening := runc.Variant(q, b, "listening")
	withListen := listening.StartAfter(opens + "; export LISTEN_FDS=1 LISTEN_PID=$$")
	given = maps.Clone(given)
	given[3] = b.Config()
	assert.Check(q, cmp.DeepEqual(withListen.FDs, given), "descriptors of the program; the caller passes one as LISTEN_FDS")
	q.Fact("descriptors of the program, if the caller has 3 and 9 open", slices.Sorted(maps.Keys(withoutListen.FDs)))
	q.Fact("descriptors of the program, if LISTEN_FDS=1", slices.Sorted(maps.Keys(withListen.FDs)))
	plain.KillAndDelete(withoutListen)
	listening.KillAndDelete(withListen)
}

// The created process waits until another process opens exec.fifo for reading. Start does that, and then removes the FIFO.
//
// The created process is blocked in open(2) of a FIFO for writing, and such an open ends when a process opens the FIFO
// for reading. Then `runc init` writes one byte, the character 0, and executes the program. Any process that reads the FIFO starts the
// program, be it the runtime or cat. runc reports a container whose process lives, and is not frozen, as created as long as the FIFO
// exists. After a start by cat the FIFO remains: runc reports a running program as created, until the FIFO is removed.
//
// This is runc's own way: the specification says only that start runs the program. The FIFO's path is shown as the host names it:
// `runc init` itself opens it again by a descriptor, /proc/self/fd/N.
//
// Hint: what does open(2) do with a FIFO that no process reads?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/runtime.md#start
// Kernel: https://man7.org/linux/man-pages/man7/fifo.7.html
func TestLifecycle_WhatIsTheCreatedProcessWaitingFor(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What is the created process waiting for?")
	defer q.Recover()
	runc.SkipUnlessRunc(q, "how `runc init` waits for start")
	b := bundle.Busybox(q, "sleep", "3600")
	startedByHand, untouched := runc.Variant(q, b, "opened"), runc.Variant(q, b, "untouched")

	q.Step("two containers are created, and both wait in open(2) of their FIFO for a reader")
	createAndWaitAtFIFO := func(c *runc.Container, name string) proc.Process {
		c.Create()
		pid := c.PID()
		proc.WaitFor(q, proc.SleepsIn(pid, unix.SYS_OPENAT))
		init := proc.Snapshot(q, pid)
		opened, mode := runc.BlockedOpen(q, init)
		assert.Check(q, cmp.Equal(opened, c.Fifo()), "the file that runc init opens")
		assert.Check(q, cmp.Equal(mode, uint64(unix.O_WRONLY)), "the mode in which it opens the FIFO")
		q.Fact(name+" is blocked in", "openat("+opened+", O_WRONLY)")
		return init
	}
	waiting := createAndWaitAtFIFO(startedByHand, "the first container")
	waitingUntouched := createAndWaitAtFIFO(untouched, "the second container")
	q.Fact("kernel function in which it sleeps (0: the kernel does not show it)", proc.WaitChannel(q, waiting.PID))

	q.Step("cat opens the other end of the first container's FIFO, without the runtime: the program runs")
	written := q.Must("cat", startedByHand.Fifo()).Stdout
	assert.Check(q, cmp.Equal(written, "0"), "the byte that runc init has written to the FIFO")
	proc.WaitFor(q, proc.Runs(waiting.PID, "sleep"))
	started := proc.Snapshot(q, waiting.PID)
	assert.Check(q, cmp.DeepEqual(started.Identity, waiting.Identity))
	assert.Check(q, cmp.DeepEqual(started.Args, []string{"sleep", "3600"}))
	q.Fact("cat prints", written)
	q.Fact("cmdline", started.Args)

	q.Control("the container whose FIFO was not opened waits on")
	stillWaiting := proc.Snapshot(q, waitingUntouched.PID)
	assert.Check(q, cmp.DeepEqual(stillWaiting.Identity, waitingUntouched.Identity))
	assert.Check(q, stillWaiting.Comm != "sleep", "it runs %q although no process opened its FIFO", stillWaiting.Comm)
	assert.Check(q, cmp.Equal(proc.CurrentSyscall(q, stillWaiting.PID).Number, unix.SYS_OPENAT))
	q.Fact("comm of the second container's process", stillWaiting.Comm)

	q.Step("runc start opens the second container's FIFO: the same happens, and start removes the FIFO")
	untouched.Start()
	proc.WaitFor(q, proc.Runs(waitingUntouched.PID, "sleep"))
	assert.Check(q, cmp.DeepEqual(proc.Snapshot(q, waitingUntouched.PID).Identity, waitingUntouched.Identity))
	assert.Check(q, !file.Exists(untouched.Fifo()), "the FIFO is still there after start")
	q.Fact("second container's FIFO after start: exists", file.Exists(untouched.Fifo()))

	q.Step("runc derives the status from the FIFO: it reports the first container as created until its FIFO is removed")
	assert.Check(q, file.Exists(startedByHand.Fifo()), "cat does not remove the FIFO, but it is gone")
	withFIFO := startedByHand.State().Status
	assert.Check(q, cmp.Equal(withFIFO, specs.StateCreated))
	assert.NilError(q, os.Remove(startedByHand.Fifo()))
	q.LogCommand("rm %s", startedByHand.Fifo())
	withoutFIFO := startedByHand.State().Status
	assert.Check(q, cmp.Equal(withoutFIFO, specs.StateRunning))
	q.Fact("status with the FIFO, and without", []specs.ContainerState{withFIFO, withoutFIFO})
	startedByHand.KillAndDelete(started)

	q.Answer("The created process waits in open(2) until another process opens exec.fifo for reading. Start does that and removes " +
		"the FIFO. Any other process that reads the FIFO starts the program, too.")
}
