//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
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
	_ "cdblab/helpers/containerinit" // in the container, runc init is this program with the argument "init"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// To the kernel, a container of runc is a container of the library libcontainer, and any program can make one with it.
//
// The names are a trap: libcontainer's Start is the specification's create, and its Exec is start. The init process that waits at
// exec.fifo is the calling program itself, executed again with the argument "init": runc, or this test. runc adds what a command
// line needs: it reads config.json and checks its process (an absolute cwd, for instance), prints the state document, writes a pid file
// and a log, and exits. libcontainer checks the rest of config.json. A caller of the library stays. It is the parent, so it has to wait
// for the container's process.
//
// Hint: compare /proc/PID/exe and the parent of a created container's process; read libcontainer's state with runc state.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/runtime.md#lifecycle
// Kernel: https://man7.org/linux/man-pages/man7/namespaces.7.html, https://man7.org/linux/man-pages/man2/wait.2.html
func TestLifecycle_IsRuncMoreThanLibcontainer(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Is runc more than libcontainer?")
	defer q.Recover()
	runc.SkipUnlessRunc(q, "libcontainer")
	b := bundle.Busybox(q, "sleep", "3600")
	b.Spec.Process.Capabilities.Ambient = nil // an older runc spec asks for some, without what they need

	q.Step("take a container from create to delete with runc: create, start, kill, delete")
	c := runc.Variant(q, b, "command")
	pidFile := filepath.Join(q.Dir, "root-command", "pid")
	byCommand := observeLifecycle(q, c, operations{
		create:        func() proc.PID { c.Must("create", "--pid-file", pidFile); return c.PID() },
		start:         c.Start,
		kill:          func() { c.Kill("KILL") },
		wait:          func() {},
		delete:        c.Delete,
		status:        func() string { return string(c.State().Status) },
		assertCreator: func(digest string) { q.Helper(); runc.AssertIsRuntime(q, b, digest) },
	})
	q.Fact("pid, runc", byCommand.pid)

	q.Step("take a second one from create to delete with libcontainer, in this process: Create and Start, Exec, Signal, Wait, Destroy")
	l := runc.Variant(q, b, "library")
	container, process := prepareWithLibcontainer(q, l)
	assert.Check(q, file.Exists(l.StateDir()), "libcontainer's Create makes no state directory")
	assert.Check(q, !file.Exists(l.Fifo()), "libcontainer's Create has made the FIFO already")
	_, noProcess := process.Pid()
	assert.Check(q, noProcess != nil, "libcontainer's Create has made a process already")
	q.Fact("libcontainer's Create: state directory and FIFO exist", []bool{file.Exists(l.StateDir()), file.Exists(l.Fifo())})
	byLibrary := observeLifecycle(q, l, operations{
		create: func() proc.PID {
			q.LogCommand("# container.Start(process)")
			assert.NilError(q, container.Start(process))
			pid, err := process.Pid()
			assert.NilError(q, err)
			return proc.PID(pid)
		},
		start: func() { q.LogCommand("# container.Exec()"); assert.NilError(q, container.Exec()) },
		kill: func() {
			q.LogCommand("# container.Signal(SIGKILL)")
			assert.NilError(q, container.Signal(unix.SIGKILL))
		},
		wait:   func() { waitForKilled(q, process) },
		delete: func() { q.LogCommand("# container.Destroy()"); assert.NilError(q, container.Destroy()) },
		status: func() string {
			status, err := container.Status()
			assert.NilError(q, err)
			return status.String()
		},
		assertCreator: func(digest string) {
			q.Helper()
			assert.Check(q, cmp.Equal(digest, proc.ExeDigest(q, proc.PID(os.Getpid()))), "libcontainer's init is not this program")
		},
	})
	q.Fact("pid, libcontainer", byLibrary.pid)

	q.Step("compare what the kernel showed of both containers: it is the same")
	// The runtime under test may be another version than the libcontainer of this process. The facts are the same from runc 1.1.12 to
	// runc 1.5.2.
	for _, fact := range slices.Sorted(maps.Keys(byCommand.facts)) {
		assert.Check(q, cmp.Equal(byLibrary.facts[fact], byCommand.facts[fact]), "%s: libcontainer's container, and runc's", fact)
		q.Fact(fact, byCommand.facts[fact])
	}
	assert.Check(q, cmp.DeepEqual(byLibrary.mounts, byCommand.mounts), "mounts of libcontainer's container, and of runc's")
	q.Fact("mounts", len(byCommand.mounts))
	assert.Check(q, cmp.DeepEqual(byLibrary.settings, byCommand.settings), "settings of libcontainer's process, and of runc's")
	q.Fact("settings of the process, such as limits and capabilities", len(byCommand.settings))

	q.Step("two things differ: the program that waits in the created container, and the parent of its process")
	assert.Check(q, cmp.Equal(byLibrary.parent, proc.PID(os.Getpid())), "the parent of libcontainer's process")
	assert.Check(q, byCommand.parent != byLibrary.parent, "runc's process has the same parent: %d", byCommand.parent)
	assert.Check(q, byLibrary.initDigest != byCommand.initDigest, "both init processes are the same program")
	q.Fact("libcontainer: the parent of the container's process is the caller", byLibrary.parent == proc.PID(os.Getpid()))
	q.Fact("runc: the parent of the container's process is the caller", byCommand.parent == proc.PID(os.Getpid()))
	q.Fact("both init processes are the same program", byLibrary.initDigest == byCommand.initDigest)

	q.Step("runc adds a pid file …")
	assert.Check(q, cmp.Equal(file.Read(q, pidFile), fmt.Sprint(byCommand.pid)))
	q.Fact("pid file", byCommand.pid)
	assert.NilError(q, os.Remove(pidFile))

	q.Step("… and checks of process in config.json: runc refuses a relative cwd, and libcontainer accepts it")
	relativeCwd := func(s *specs.Spec) { s.Process.Cwd = "tmp" }
	runc.AssertCreateRefused(q, runc.Variant(q, b, "cwd-command", relativeCwd), "absolute path")
	cwd := runWithLibcontainer(q, runc.Variant(q, b, "cwd-library", relativeCwd))
	assert.Check(q, cmp.Equal(cwd, "/tmp"))
	q.Fact("cwd tmp, with libcontainer", cwd)

	q.Step("libcontainer loads a container that runc made, and runc sees what libcontainer does to it")
	both := runc.Variant(q, b, "both")
	destroyWithLibcontainer(q, both)

	q.Answer("To the kernel, no: the containers of runc and of libcontainer are the same. runc adds a command line: it reads config.json " +
		"and checks its process, writes a pid file, and runc create exits before the program runs.")
}

// operations are the operations of the specification, by the command line or by the library.
type operations struct {
	create                    func() proc.PID
	start, kill, wait, delete func()
	status                    func() string
	assertCreator             func(digest string) // that the digest is of the program that creates the container
}

// observations are what the kernel showed of a container from create to delete.
type observations struct {
	facts       map[string]string // expected to be the same for runc and libcontainer
	pid, parent proc.PID
	initDigest  string            // digest of the program that waits in the created container
	mounts      []string          // mounts that the program sees
	settings    map[string]string // what the program has from its runtime
}

// observeLifecycle takes a container from create to delete, and returns what the kernel shows of it on the way.
func observeLifecycle(q *lab.Q, c *runc.Container, do operations) observations {
	q.Helper()
	facts := map[string]string{}
	cgroupsPath := c.Bundle.Spec.Linux.CgroupsPath

	pid := do.create()
	created := proc.Snapshot(q, pid)
	facts["created: status"] = do.status()
	hostname := q.Must("nsenter", "-t", strconv.Itoa(int(pid)), "-u", "hostname")
	facts["created: hostname"] = strings.TrimSpace(hostname.Stdout)
	facts["created: namespaces of its own"] = strings.Join(created.OwnNamespaces(proc.Self(q).Identity), " ")
	check.OnlyProcessInCgroup(q, created.Identity, cgroupsPath)
	assert.Assert(q, len(created.Args) > 0, "the process has no command line: its state is %s", created.State)
	facts["created: last argument"] = created.Args[len(created.Args)-1]
	facts["created: a mount of the host is visible"] = fmt.Sprint(check.SeesHostMounts(created))
	opened, _ := runc.BlockedOpen(q, created)
	facts["created: waits at"] = filepath.Base(opened)
	initDigest := proc.ExeDigest(q, pid)
	do.assertCreator(initDigest)

	do.start()
	proc.WaitFor(q, proc.Runs(pid, "sleep"))
	p := proc.Snapshot(q, pid)
	facts["running: status"] = do.status()
	facts["running: program"] = p.Exe + " " + strings.Join(p.Args, " ")
	facts["running: environment"] = strings.Join(p.Env, " ")
	facts["running: threads and descriptors"] = fmt.Sprint(p.Threads, " ", len(p.FDs))
	settings := proc.Settings(q, pid)
	for _, key := range []string{"CapBnd", "CapEff", "NoNewPrivs", "Umask", "Uid"} {
		facts["running: "+key] = settings[key]
	}
	// Whole: pid, start time, parent, namespaces, cgroups and mounts.
	assert.Check(q, cmp.DeepEqual(p.Identity, created.Identity), "start has made another process")
	assert.Check(q, !file.Exists(c.Fifo()), "the FIFO still exists after start")

	do.kill()
	proc.WaitFor(q, proc.Dead(p.Identity))
	do.wait()
	facts["stopped: status"] = do.status()
	facts["stopped: state.json"] = fmt.Sprint(file.Exists(c.StateFile()))
	do.delete()
	check.NoCgroup(q, cgroupsPath)
	facts["deleted: state directory"] = fmt.Sprint(file.Exists(c.StateDir()))
	assert.Check(q, cmp.Equal(facts["deleted: state directory"], "false"))
	return observations{facts, p.PID, p.Parent, initDigest, p.Mounts, settings}
}

// prepareWithLibcontainer makes a container with libcontainer, in this process. It returns also the process that is to run
// in it, as runc would take it from config.json, as far as the lab's bundle needs it.
func prepareWithLibcontainer(q *lab.Q, c *runc.Container) (*libcontainer.Container, *libcontainer.Process) {
	q.Helper()
	config, err := specconv.CreateLibcontainerConfig(&specconv.CreateOpts{CgroupName: c.ID, Spec: c.Bundle.Spec})
	assert.NilError(q, err)
	// The conversion takes the working directory for the bundle, because runc works in the bundle.
	config.Labels = []string{"bundle=" + c.Bundle.Dir}
	container, err := libcontainer.Create(c.Root, c.ID, config)
	assert.NilError(q, err)
	q.LogCommand("# libcontainer.Create(%q, %q, config)", filepath.Base(c.Root), c.ID)
	p := c.Bundle.Spec.Process
	capabilities := configs.Capabilities(*p.Capabilities)
	process := &libcontainer.Process{
		Init: true, Args: p.Args, Env: slices.Clone(p.Env), Cwd: p.Cwd,
		UID: int(p.User.UID), GID: int(p.User.GID),
		Capabilities: &capabilities, NoNewPrivileges: &p.NoNewPrivileges,
	}
	for _, limit := range p.Rlimits { // runc spec sets this one alone
		assert.Assert(q, cmp.Equal(limit.Type, "RLIMIT_NOFILE"), "a limit in config.json that this question does not translate")
		process.Rlimits = append(process.Rlimits, configs.Rlimit{Type: unix.RLIMIT_NOFILE, Hard: limit.Hard, Soft: limit.Soft})
	}
	q.Cleanup(func() {
		if file.Exists(c.StateDir()) {
			_ = container.Signal(unix.SIGKILL)
			_, _ = process.Wait()
			_ = container.Destroy()
		}
	})
	return container, process
}

// waitForKilled asserts that libcontainer's Wait returns how the process has ended.
func waitForKilled(q *lab.Q, process *libcontainer.Process) {
	q.Helper()
	q.LogCommand("# process.Wait()")
	state, _ := process.Wait() // it returns an error, because the process was killed
	signaled := state != nil && state.Sys().(interface{ Signaled() bool }).Signaled()
	assert.Check(q, signaled, "Wait returns %v, but SIGKILL ended the process", state)
}

// runWithLibcontainer runs a container with libcontainer, and destroys it when its program runs. It returns the program's cwd.
func runWithLibcontainer(q *lab.Q, c *runc.Container) string {
	q.Helper()
	container, process := prepareWithLibcontainer(q, c)
	assert.NilError(q, container.Run(process), "libcontainer refuses a relative cwd, too")
	pid, err := process.Pid()
	assert.NilError(q, err)
	proc.WaitFor(q, proc.Runs(proc.PID(pid), "sleep"))
	cwd := proc.Cwd(q, proc.PID(pid))
	assert.NilError(q, container.Signal(unix.SIGKILL))
	_, _ = process.Wait() // it returns an error, because the process was killed
	assert.NilError(q, container.Destroy())
	return cwd
}

// destroyWithLibcontainer creates and starts a container with runc. It loads the container with libcontainer, kills and destroys it.
func destroyWithLibcontainer(q *lab.Q, c *runc.Container) {
	q.Helper()
	p := c.CreateAndStart()
	loaded, err := libcontainer.Load(c.Root, c.ID)
	assert.NilError(q, err, "libcontainer has to read the state.json of each runc since 1.1.12")
	state, err := loaded.OCIState()
	assert.NilError(q, err)
	assert.Check(q, cmp.Equal(state.Pid, int(p.PID)))
	assert.Check(q, cmp.Equal(state.Status, specs.StateRunning))
	q.Fact("runc's container, loaded by libcontainer", state.Status)
	assert.NilError(q, loaded.Signal(unix.SIGKILL))
	proc.WaitFor(q, proc.Dead(p.Identity))
	assert.Check(q, cmp.Equal(c.State().Status, specs.StateStopped))
	assert.NilError(q, loaded.Destroy())
	destroyed := c.Try("state")
	assert.Check(q, destroyed.Code != 0, "runc state succeeds after libcontainer's Destroy:\n%s", destroyed)
	q.Fact("runc state, after libcontainer's Destroy", runc.LastLogMessage(destroyed))
}
