//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/bundle"
	"cdblab/helpers/check"
	_ "cdblab/helpers/containerinit" // runc init is this program, with the argument "init"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// Hardly, as the kernel sees it: the container is libcontainer's, and any program can make one with it.
//
// A trap is in the names: libcontainer's Start is the specification's create, and its Exec is start. The stand-in that
// waits at exec.fifo is the calling program itself, executed again with the argument "init": runc, or this test. runc adds
// what a command line needs: config.json and its checks, the state document, pid file, log, and that it goes away; who
// calls the library stays, as the parent that has to wait for the container's process.
//
// Hint: compare /proc/PID/exe and the parent of a created container's process; read the other's state with runc state.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/runtime.md#lifecycle
// Kernel: https://man7.org/linux/man-pages/man7/namespaces.7.html, https://man7.org/linux/man-pages/man2/wait.2.html
func TestLifecycle_IsRuncMoreThanLibcontainer(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Is runc more than libcontainer?")
	b := bundle.Busybox(q, "sleep", "300")
	b.Spec.Process.Capabilities.Ambient = nil // an older runc spec asks for some, without what they need

	q.Step("runc: create, start, kill, delete")
	c := runc.Variant(q, b, "command")
	pidFile := filepath.Join(q.Dir, "root-command", "pid")
	byCommand := wholeLifecycle(q, c, operations{
		create: func() int { c.Must("create", "--pid-file", pidFile); return c.State().Pid },
		start:  c.Start,
		kill:   func() { c.Kill("KILL") },
		wait:   func() {},
		delete: c.Delete,
		status: func() string { return string(c.State().Status) },
		self:   q.UnderTest("runc").Digest,
	})

	q.Step("libcontainer, in this process: Create and Start, Exec, Signal, Wait, Destroy")
	l := runc.Variant(q, b, "library")
	container, process := libraryContainer(q, l)
	assert.Check(q, file.Exists(l.StateDir()), "libcontainer's Create makes no state directory")
	assert.Check(q, !file.Exists(l.Fifo()), "libcontainer's Create has made the FIFO already")
	q.Fact("libcontainer's Create", "a state directory, and no process yet")
	byLibrary := wholeLifecycle(q, l, operations{
		create: func() int {
			q.LogCommand("# container.Start(process)")
			assert.NilError(q, container.Start(process))
			pid, err := process.Pid()
			assert.NilError(q, err)
			return pid
		},
		start: func() { q.LogCommand("# container.Exec()"); assert.NilError(q, container.Exec()) },
		kill: func() {
			q.LogCommand("# container.Signal(SIGKILL)")
			assert.NilError(q, container.Signal(unix.SIGKILL))
		},
		wait: func() {
			q.LogCommand("# process.Wait()")
			state, _ := process.Wait() // that it was killed is an error
			assert.Check(q, state != nil && state.Sys().(interface{ Signaled() bool }).Signaled(), "Wait says %v", state)
		},
		delete: func() { q.LogCommand("# container.Destroy()"); assert.NilError(q, container.Destroy()) },
		status: func() string {
			status, err := container.Status()
			assert.NilError(q, err)
			return status.String()
		},
		self: proc.ExeDigest(q, proc.PID(os.Getpid())),
	})

	q.Step("the same facts of both, read from the kernel")
	for _, fact := range slices.Sorted(maps.Keys(byCommand.facts)) {
		if !q.UnderTest("runc").Pinned && byLibrary.facts[fact] != byCommand.facts[fact] {
			q.Fact(fact+", of another runc", byCommand.facts[fact]) // its libcontainer is not the one in this process
			continue
		}
		assert.Check(q, cmp.Equal(byLibrary.facts[fact], byCommand.facts[fact]), "%s: libcontainer's container, and runc's", fact)
		q.Fact(fact, byCommand.facts[fact])
	}
	if q.UnderTest("runc").Pinned {
		assert.Check(q, cmp.DeepEqual(byLibrary.mounts, byCommand.mounts), "mounts of libcontainer's container, and of runc's")
	}
	q.Fact("mounts", len(byCommand.mounts))

	q.Step("what differs: who waits in the container, and who is its parent")
	assert.Check(q, cmp.Equal(byLibrary.parent, proc.PID(os.Getpid())), "the parent of libcontainer's process")
	assert.Check(q, byCommand.parent != byLibrary.parent, "runc's process has the same parent: %d", byCommand.parent)
	assert.Check(q, byLibrary.standIn != byCommand.standIn, "both stand-ins are the same program")
	q.Fact("stand-in and parent, runc", "runc itself; the parent is not runc, which has ended")
	q.Fact("stand-in and parent, libcontainer", "this test itself, and it is the parent")

	q.Step("what runc adds: the pid file …")
	written := file.Read(q, pidFile)
	assert.Check(q, cmp.Equal(written, fmt.Sprint(byCommand.pid)))
	q.Fact("pid file", "the process's pid")
	assert.NilError(q, os.Remove(pidFile))

	q.Step("… and checks: a relative cwd is refused by runc; libcontainer takes it")
	relative := func(s *specs.Spec) { s.Process.Cwd = "tmp" }
	runc.AssertCreateRefused(q, runc.Variant(q, b, "cwd-command", relative), "absolute path")
	u := runc.Variant(q, b, "cwd-library", relative)
	unchecked, process := libraryContainer(q, u)
	assert.NilError(q, unchecked.Run(process), "libcontainer refuses a relative cwd, too")
	pid, err := process.Pid()
	assert.NilError(q, err)
	proc.WaitFor(q, proc.Runs(proc.PID(pid), "sleep"))
	assert.Check(q, cmp.Equal(proc.Cwd(q, proc.PID(pid)), "/tmp"))
	q.Fact("cwd tmp, with libcontainer", proc.Cwd(q, proc.PID(pid)))
	assert.NilError(q, unchecked.Signal(unix.SIGKILL))
	_, _ = process.Wait() // that it was killed is an error
	assert.NilError(q, unchecked.Destroy())

	q.Step("each reads what the other has recorded: it is the same state.json")
	d := runc.Variant(q, b, "both")
	p := d.CreateAndStart()
	loaded, err := libcontainer.Load(d.Root, d.ID)
	if q.UnderTest("runc").Pinned {
		assert.NilError(q, err)
	}
	if err == nil {
		state, err := loaded.OCIState()
		assert.NilError(q, err)
		assert.Check(q, cmp.Equal(state.Pid, int(p.PID)))
		assert.Check(q, cmp.Equal(state.Status, specs.StateRunning))
		q.Fact("runc's container, loaded by libcontainer", state.Status)
		assert.NilError(q, loaded.Signal(unix.SIGKILL))
		proc.WaitFor(q, proc.Dead(p.Identity))
		assert.Check(q, cmp.Equal(d.State().Status, specs.StateStopped))
		assert.NilError(q, loaded.Destroy())
		gone := d.Try("state")
		assert.Check(q, gone.Code != 0, "runc still knows it:\n%s", gone)
		q.Fact("runc state, after libcontainer's Destroy", runc.LastLogMessage(gone))
	} else {
		q.Fact("runc's container, loaded by libcontainer", err)
		d.KillAndDelete(p)
	}

	q.Answer("As the kernel sees it, no. runc is libcontainer with a command line: config.json, checks, pid file, and an end.")
}

// operations are those of the specification.
type operations struct {
	create                    func() int // returns the pid
	start, kill, wait, delete func()
	status                    func() string
	self                      string // digest of the program that makes the container
}

// lived is what was seen of a container's life.
type lived struct {
	facts       map[string]string // on these two agree
	pid, parent proc.PID
	standIn     string   // digest of what waited in it
	mounts      []string // that it sees
}

// wholeLifecycle takes a container through its life, and notes what the kernel shows of it on the way.
func wholeLifecycle(q *lab.Q, c *runc.Container, do operations) lived {
	q.Helper()
	facts := map[string]string{}
	cgroup := c.Bundle.Spec.Linux.CgroupsPath

	pid := do.create()
	created := proc.Snapshot(q, proc.PID(pid))
	facts["created: status"] = do.status()
	facts["created: namespaces of its own"] = strings.Join(created.OwnNamespaces(proc.Self(q).Identity), " ")
	check.OnlyProcessInCgroup(q, created.Identity, cgroup)
	facts["created: last argument"] = created.Args[len(created.Args)-1]
	facts["created: a mount of the host is visible"] = fmt.Sprint(check.SeesHostMounts(created))
	proc.WaitFor(q, proc.SleepsIn(proc.PID(pid), unix.SYS_OPENAT))
	call := proc.CurrentSyscall(q, proc.PID(pid))
	facts["created: waits at"] = filepath.Base(runc.ResolveFD(created, proc.CString(q, proc.PID(pid), call.Args[1])))
	standIn := proc.ExeDigest(q, proc.PID(pid))
	assert.Check(q, cmp.Equal(standIn, do.self), "the stand-in is another program than the one that made the container")
	q.Fact("created", created.PID)

	do.start()
	proc.WaitFor(q, proc.Runs(proc.PID(pid), "sleep"))
	p := proc.Snapshot(q, proc.PID(pid))
	facts["running: status"] = do.status()
	facts["running: program"] = p.Exe + " " + strings.Join(p.Args, " ")
	facts["running: environment"] = strings.Join(p.Env, " ")
	facts["running: threads and descriptors"] = fmt.Sprint(p.Threads, " ", len(p.FDs))
	for _, key := range []string{"CapBnd", "CapEff", "NoNewPrivs", "Umask", "Uid"} {
		facts["running: "+key] = proc.Status(q, proc.PID(pid), key)
	}
	// Whole: pid, start time, parent, namespaces, cgroups and mounts.
	assert.Check(q, cmp.DeepEqual(p.Identity, created.Identity), "start has made another process")
	assert.Check(q, !file.Exists(c.Fifo()), "the FIFO is still there after start")

	do.kill()
	proc.WaitFor(q, proc.Dead(p.Identity))
	do.wait()
	facts["stopped: status"] = do.status()
	facts["stopped: state.json"] = fmt.Sprint(file.Exists(filepath.Join(c.StateDir(), "state.json")))
	do.delete()
	check.NoCgroup(q, cgroup)
	facts["deleted: state directory"] = fmt.Sprint(file.Exists(c.StateDir()))
	assert.Check(q, cmp.Equal(facts["deleted: state directory"], "false"))
	return lived{facts, p.PID, p.Parent, standIn, p.Mounts}
}

// libraryContainer has libcontainer make a container, in this process, and prepares what is to run in it.
func libraryContainer(q *lab.Q, c *runc.Container) (*libcontainer.Container, *libcontainer.Process) {
	q.Helper()
	config, err := specconv.CreateLibcontainerConfig(&specconv.CreateOpts{CgroupName: c.ID, Spec: c.Bundle.Spec})
	assert.NilError(q, err)
	config.Labels = []string{"bundle=" + c.Bundle.Dir} // the conversion takes the working directory, as runc is in the bundle
	container, err := libcontainer.Create(c.Root, c.ID, config)
	assert.NilError(q, err)
	q.LogCommand("# libcontainer.Create(%q, %q, config)", filepath.Base(c.Root), c.ID)
	process := processOf(c.Bundle.Spec.Process)
	q.Cleanup(func() {
		if file.Exists(c.StateDir()) {
			_ = container.Signal(unix.SIGKILL)
			_, _ = process.Wait()
			_ = container.Destroy()
		}
	})
	return container, process
}

// processOf does what runc does to hand config.json's process to libcontainer, as far as the lab's bundle needs it.
func processOf(p *specs.Process) *libcontainer.Process {
	caps := configs.Capabilities(*p.Capabilities)
	return &libcontainer.Process{
		Init: true, Args: p.Args, Env: slices.Clone(p.Env), Cwd: p.Cwd,
		UID: int(p.User.UID), GID: int(p.User.GID),
		Capabilities: &caps, NoNewPrivileges: &p.NoNewPrivileges,
		Rlimits: []configs.Rlimit{{Type: unix.RLIMIT_NOFILE, Hard: p.Rlimits[0].Hard, Soft: p.Rlimits[0].Soft}},
	}
}
