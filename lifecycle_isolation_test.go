//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"al.essio.dev/pkg/shellescape"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/poll"

	"cdblab/helpers/bundle"
	"cdblab/helpers/cgroup"
	"cdblab/helpers/check"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/retry"
	"cdblab/helpers/runc"
	"cdblab/helpers/seccomp"
)

// A container lives in namespaces and in a cgroup of each hierarchy, and it sees a mount table of its own.
//
// Three sources show where it lives. config.json says what was wanted, the runtime's state.json says what was made, and /proc shows
// what there is. All three agree. A namespace that config.json does not list is the host's: the user and the time namespace, and on
// cgroup v1 the cgroup namespace.
//
// Hint: /proc/PID/{ns,cgroup,mountinfo}, and state.json in the runtime's root.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#namespaces
// Kernel: https://man7.org/linux/man-pages/man7/namespaces.7.html, https://man7.org/linux/man-pages/man7/cgroups.7.html
func TestLifecycle_WhereDoesItLiveWhileItRuns(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Where does it live while it runs?")
	defer q.Recover()
	c := runc.New(q, bundle.Busybox(q, "sleep", "3600"))
	p := c.CreateAndStart()
	self := proc.Self(q)

	q.Step("namespaces: the container has its own of each type that config.json lists, and shares the others with the host")
	var wanted []string
	for _, ns := range bundle.NamespaceTypes(c.Bundle.Spec) {
		wanted = append(wanted, proc.NamespaceName(ns))
	}
	slices.Sort(wanted)
	assert.Check(q, cmp.DeepEqual(p.OwnNamespaces(self.Identity), wanted))
	q.Fact("its own", p.OwnNamespaces(self.Identity))
	q.Fact("the host's", p.SharedNamespaces(self.Identity))
	q.Fact("test, on the host: namespaces", self.NS)
	q.Fact("container: namespaces", p.NS)

	var record runc.StateRecord
	if runc.IsRunc(q) {
		q.Step("state.json has the paths of these namespaces, and they lead to the same inodes")
		record = c.StateRecord()
		assert.Check(q, cmp.Equal(record.PID, p.PID))
		assert.Check(q, cmp.Equal(c.PID(), p.PID))
		assert.Check(q, cmp.Equal(record.Start, p.Start))
		compared := 0
		for _, path := range record.Namespaces {
			var st unix.Stat_t
			if err := unix.Stat(path, &st); err != nil {
				continue // a type that this kernel does not have
			}
			name := filepath.Base(path)
			assert.Check(q, cmp.Equal(proc.Inode(st.Ino), p.NS[name]), "namespace %s by state.json's path %s", name, path)
			compared++
		}
		assert.Check(q, compared >= len(wanted), "state.json has paths of %d namespaces, config.json %d", compared, len(wanted))
		q.Fact("namespaces in state.json", compared)
		assert.Check(q, cmp.Equal(record.Config.Rootfs, c.Bundle.Rootfs()))
	}

	q.Step("cgroup: in each hierarchy the process is in the cgroup of config.json, and no other process is in it")
	check.OnlyProcessInCgroup(q, p.Identity, c.Bundle.Spec.Linux.CgroupsPath)
	hierarchies, err := cgroup.Hierarchies()
	assert.NilError(q, err)
	recordedDirs := slices.Sorted(maps.Values(record.Cgroups))
	for _, h := range hierarchies {
		dir := h.Path(c.Bundle.Spec.Linux.CgroupsPath)
		if runc.IsRunc(q) && (!h.V2 || cgroup.ModeOf(hierarchies) == cgroup.ModeV2) {
			recorded := slices.ContainsFunc(recordedDirs, func(recorded string) bool { return file.Same(recorded, dir) })
			assert.Check(q, recorded, "state.json has no %s: %v", dir, record.Cgroups)
		}
	}
	q.Fact("hierarchies", len(hierarchies))
	q.Fact("cgroup", c.Bundle.Spec.Linux.CgroupsPath)

	q.Step("mounts: the first one is the rootfs, and the container sees no mount of the host")
	assert.Assert(q, len(p.Mounts) > 0, "the process sees no mount")
	assert.Check(q, strings.HasPrefix(p.Mounts[0], "/ "), "the first mount is %q", p.Mounts[0])
	assert.Check(q, !check.SeesHostMounts(p), "it sees a mount of the host: %q", p.Mounts)
	inside, err := os.Stat(filepath.Join("/proc", fmt.Sprint(p.PID), "root"))
	assert.NilError(q, err)
	outside, err := os.Stat(c.Bundle.Rootfs())
	assert.NilError(q, err)
	isRootfs := os.SameFile(inside, outside)
	assert.Check(q, isRootfs, "its / is not the bundle's rootfs")
	q.Covers("root.path")
	rootOptions := strings.Split(strings.Fields(p.Mounts[0])[2], ",")
	isReadonly := slices.Contains(rootOptions, "ro")
	assert.Check(q, cmp.Equal(isReadonly, c.Bundle.Spec.Root.Readonly), "its / is mounted read-only: %q", p.Mounts[0])
	q.Covers("root.readonly")
	q.Fact("its / is the inode of the bundle's rootfs, read-only", []bool{isRootfs, isReadonly})
	q.Fact("mounts that the container sees", len(p.Mounts))

	q.Control("a container whose config.json lists no network and no ipc namespace is in those of the host")
	sharing := runc.Variant(q, c.Bundle, "shared", bundle.WithoutNamespace("network"), bundle.WithoutNamespace("ipc"))
	other := sharing.CreateAndStart()
	assert.Check(q, cmp.Equal(other.NS["net"], self.NS["net"]))
	assert.Check(q, cmp.Equal(other.NS["ipc"], self.NS["ipc"]))
	assert.Check(q, other.NS["pid"] != p.NS["pid"], "two containers that each asked for a new pid namespace share one")
	q.Fact("the host's, of the other container", other.SharedNamespaces(self.Identity))
	q.Fact("container without entries for network and ipc: namespaces", other.NS)

	q.Answer("A container lives in the namespaces and the cgroup that config.json asks for, and its / is the rootfs. It shares the other " +
		"namespaces with the host.")
}

// After `runc create`, the parent of the container's process is the nearest subreaper above runc, or pid 1, because runc create has
// exited. Only `runc run` in the foreground stays, and is the parent.
//
// `runc create` is the parent at first: the children of its child are made with CLONE_PARENT, so they are its own. Then it exits, and
// the nearest subreaper adopts the orphan, or else pid 1. A container manager puts a process of its own there, such as containerd's
// shim or conmon. The kernel sends SIGCHLD to the parent, and wait(2) returns the exit code to it. Other processes have to ask: a
// pidfd becomes readable when its process ends.
//
// Hint: the parent is field 4 of /proc/PID/stat. Which processes of runc are there after create?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/runtime.md#lifecycle
// Kernel: https://man7.org/linux/man-pages/man2/pr_set_child_subreaper.2const.html,
// https://man7.org/linux/man-pages/man2/pidfd_open.2.html
func TestLifecycle_WhoIsTheParentOfTheContainersProcess(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Who is the parent of the container's process?",
		lab.Alone("its control makes the test's process a subreaper, which would adopt other questions' orphans"))
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "3600")
	adopter := proc.OrphanReaper(q)

	q.Step("after create: the parent of `runc init` is the process that adopts orphans, and no process of runc remains")
	c := runc.Variant(q, b, "orphan")
	c.Create()
	created := c.Process()
	assert.Check(q, cmp.Equal(created.Parent, adopter))
	remaining := proc.Find(q, func(pid proc.PID, _ string, args []string) bool {
		return slices.Contains(args, c.ID) && pid != created.PID
	})
	assert.Check(q, cmp.Len(remaining, 0), "processes of the runtime")
	q.Fact("parent", adopter)
	q.Fact("processes of runc", remaining)
	names := map[string]proc.PID{"runc init": created.PID, "adopter of orphans": adopter}
	q.Fact("after create: parents", proc.Parents(q, names))

	q.Step("start does not change the parent: it makes no process, and `runc init` executes the program")
	c.Start()
	proc.WaitFor(q, proc.Runs(created.PID, "sleep"))
	started := proc.Snapshot(q, created.PID)
	assert.Check(q, cmp.Equal(started.Parent, adopter))
	assert.Check(q, started.Same(created.Identity))
	names = map[string]proc.PID{"container's process": started.PID, "adopter of orphans": adopter}
	q.Fact("after start: parents", proc.Parents(q, names))
	c.KillAndDelete(started)

	q.Control("with a nearer subreaper, the orphan becomes its child, and wait(2) returns the exit code to the subreaper")
	assert.NilError(q, unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
	q.TB.Cleanup(func() { assert.Check(q, unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)) })
	adopted := runc.Variant(q, b, "adopted", bundle.Args("sh", "-c", "trap 'exit 7' TERM; while :; do sleep 3600 & wait $!; done"))
	adopted.Create()
	pid := adopted.PID()
	adopted.Start()
	assert.Check(q, cmp.Equal(proc.Snapshot(q, pid).Parent, proc.PID(os.Getpid())))
	names = map[string]proc.PID{"container's process": pid, "test, a subreaper": proc.PID(os.Getpid())}
	q.Fact("with a nearer subreaper: parents", proc.Parents(q, names))
	proc.WaitFor(q, proc.Catches(pid, "sh", unix.SIGTERM))
	pidfd, err := unix.PidfdOpen(int(pid), 0)
	assert.NilError(q, err)
	q.TB.Cleanup(func() { assert.Check(q, unix.Close(pidfd)) })
	poll := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	ready, err := unix.Poll(poll, 0)
	assert.NilError(q, err)
	assert.Check(q, cmp.Equal(ready, 0), "a pidfd of the process is readable while the process runs")
	q.Fact("pidfd of the process, before its end: readable", ready == 1)
	adopted.Kill("TERM")
	var status unix.WaitStatus
	reaped, err := unix.Wait4(int(pid), &status, 0, nil)
	assert.NilError(q, err)
	assert.Check(q, cmp.Equal(proc.PID(reaped), pid))
	assert.Check(q, cmp.Equal(status.ExitStatus(), 7))
	q.Fact("exit code, as wait(2) returns it to the subreaper", status.ExitStatus())
	ready, err = unix.Poll(poll, 0)
	assert.NilError(q, err)
	assert.Check(q, cmp.Equal(ready, 1), "a pidfd of the process does not become readable when the process ends")
	q.Fact("pidfd of the process, after its end: readable", ready == 1)
	document := adopted.Must("state").Stdout
	assert.Check(q, !strings.Contains(document, "exit"), "the state document has an exit code:\n%s", document)

	q.Answer("After runc has exited, the parent is the process that adopts orphans: the nearest subreaper, or else pid 1.")
}

// `runc init` runs inside of the container, where programs can open its file by /proc/PID/exe. So runc executes itself in a form that no
// process can write to, even after `runc init` has ended: through a read-only mount, or as a sealed copy in memory. Otherwise a
// container could replace the host's runc, as in CVE-2019-5736.
//
// While a program runs, the kernel refuses to write to its file (ETXTBSY; Linux 6.11 and 6.12 allowed it for a while). But a program in
// the container can open the file for reading, and wait until `runc init` has ended. Then it opens the same file for writing, by
// /proc/self/fd/N. CVE-2019-5736 replaced the host's runc in this way. Since then runc executes a protected form of itself. Up to 1.1.14 it
// first tried a temporary bind mount of its own file that is read-only. Otherwise it copied itself into a memfd, a file in memory, and
// sealed it: the kernel refuses every write. 1.1.15 always copies. Since 1.2.0 runc first tries an overlay mount of its own file that is
// read-only. That needs no copy: with the copy a start takes some 60 % longer. runc copies itself only where the overlay cannot be
// mounted. Any other program of the host that enters a container without such a protection can be replaced in the same way. The
// control is such a program: runc 1.0-rc6, the last release with the bug, has no go.mod, and does not build with today's dependencies.
//
// Hint: let another container share the pid namespace, and look at /proc/PID/exe of `runc init` from inside and from outside.
// Spec: https://github.com/advisories/GHSA-gxmr-w5mj-v8hh
// Kernel: https://man7.org/linux/man-pages/man2/memfd_create.2.html, https://man7.org/linux/man-pages/man5/proc_pid_exe.5.html
func TestLifecycle_WhyIsRuncInitASealedCopy(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Why is `runc init` a sealed copy?")
	defer q.Recover()
	runc.SkipUnlessRunc(q, "the program that `runc init` executes")
	b := bundle.Busybox(q, "sleep", "3600")
	c, sh, init := runc.StartWithShell(q, b, "entered", func(s *specs.Spec) {
		// The shell opens /proc/PID/exe of processes that have capabilities which it does not have. That needs CAP_SYS_PTRACE.
		ptrace := []string{"CAP_SYS_PTRACE"}
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: ptrace, Permitted: ptrace, Effective: ptrace}
	})
	// overwrite writes to a file from inside of the container. The file of a program that has just ended is busy for a moment.
	overwrite := func(path string) (reply runc.Reply) {
		retry.Until(proc.Patience, func() bool {
			reply = sh.Run("echo overwritten > " + path)
			return !strings.Contains(reply.Out, "busy")
		})
		return reply
	}

	q.Step("create a second container in the pid namespace of the first one: the first container can read the file of its `runc init`")
	waiting := runc.Variant(q, b, "waiting", bundle.NamespacePath(specs.PIDNamespace, fmt.Sprintf("/proc/%d/ns/pid", init.PID)))
	waiting.Create()
	entering := waiting.Process()
	runc.AssertIsRuntime(q, b, proc.ExeDigest(q, entering.PID))
	exe := fmt.Sprintf("/proc/%d/exe", proc.InnerPID(q, entering.PID))
	const head = "head -c 4 %s | od -An -c"
	read := strings.Join(strings.Fields(sh.Run(fmt.Sprintf(head, exe)).Out), " ")
	assert.Check(q, cmp.Equal(read, "177 E L F"), "what a program in the container reads of %s: the magic number of a program", exe)
	q.Fact("`runc init`: exe, whose content is that of runc", entering.Exe)
	q.Fact("`runc init`: first bytes that the container reads of its file", read)

	q.Step("look at the file from the host: it is sealed, or on a mount that is read-only")
	protection := proc.ExeProtection(q, entering.PID)
	// The lab does not try to overwrite a runc that is not protected.
	assert.Assert(q, protection != "", "a program in the container can overwrite %s, which is runc, when the process has ended", entering.Exe)
	q.Fact("`runc init`: protection of its file", protection)

	q.Step("a program in the container cannot write to the file: not while `runc init` runs nor, which matters, after its end")
	running := sh.Run("echo overwritten > " + exe)
	assert.Check(q, running.Code != 0, "a program in the container has written to runc while it runs: %s", running.Out)
	q.Fact("writing to runc while it runs: error", running.Failure())
	opened := sh.Run("exec 9< " + exe)
	assert.Assert(q, cmp.Equal(opened.Code, 0), opened.Out)
	waiting.Kill("KILL")
	proc.WaitFor(q, proc.Dead(entering.Identity))
	ended := overwrite("/proc/self/fd/9")
	assert.Check(q, ended.Code != 0, "a program in the container has written to runc after its end: %s", ended.Out)
	q.Fact("writing to runc after its end: error", ended.Failure())
	after := strings.Join(strings.Fields(sh.Run(fmt.Sprintf(head, "/proc/self/fd/9")).Out), " ")
	assert.Check(q, cmp.Equal(after, read), "the program file, after the attempts to write to it")

	q.Control("another program of the host enters the pid namespace without this protection: its file can be overwritten after its end")
	tool := filepath.Join(q.Mkdir("host"), "sleep")
	q.Must("cp", q.UnderTest("busybox").Path, tool)
	entered := q.StartBackground("busybox", "nsenter", "-t", strconv.Itoa(int(init.PID)), "-p", tool, "3601")
	retry.Until(proc.Patience, func() bool { return len(proc.Children(q, entered.PID())) > 0 })
	proc.WaitFor(q, proc.Runs(proc.FirstExcept(0, proc.Children(q, entered.PID())), "sleep"))
	child := proc.Snapshot(q, proc.FirstExcept(0, proc.Children(q, entered.PID())))
	assert.Check(q, cmp.Equal(proc.ExeProtection(q, child.PID), ""), "protection of %s, which is a plain file", tool)
	exe = fmt.Sprintf("/proc/%d/exe", proc.InnerPID(q, child.PID))
	// The kernel's part of the protection, which ends with the program. Here "true >>", which would not change the file.
	busy := sh.Run("true >> " + exe)
	var uts unix.Utsname
	assert.NilError(q, unix.Uname(&uts))
	kernel := unix.ByteSliceToString(uts.Release[:])
	mayWrite := strings.HasPrefix(kernel, "6.11.") || strings.HasPrefix(kernel, "6.12.") // 2a010c412853, until it was reverted
	assert.Check(q, busy.Code != 0 || mayWrite, "the kernel %s lets a program write to the file of a running program", kernel)
	q.Fact("another program: opening its file for writing while it runs: error", busy.Failure())
	opened = sh.Run("exec 9< " + exe)
	assert.Assert(q, cmp.Equal(opened.Code, 0), opened.Out)
	q.KillProcess(child)
	entered.ExitCode()
	written := overwrite("/proc/self/fd/9")
	assert.Check(q, cmp.Equal(written.Code, 0), "writing to the tool after its end: %s", written.Out)
	content := file.Read(q, tool)
	assert.Check(q, cmp.Equal(content, "overwritten"), "the tool's file on the host")
	q.Fact("another program: its file on the host, after its end", content)

	q.TearDown("delete the container of `runc init`, then kill and delete the first one", func() {
		waiting.Delete()
		c.KillAndDelete(init)
	})
	q.Answer("`runc init` runs inside of the container, where programs can open its file by /proc/PID/exe. So runc executes itself in a " +
		"form that no process can write to: through a read-only mount, or as a sealed copy in memory. Otherwise a container could replace the " +
		"host's runc, as in CVE-2019-5736.")
}

// An open directory of the host in `runc init` is a way out of the container: with /proc/self/fd/N as its working directory the program
// begins there, and `..` leads to each file of the host. runc up to 1.1.11 left /sys/fs/cgroup open (CVE-2024-21626).
//
// `runc init` inherits runc's open files. It enters the container's namespaces and root, but a descriptor still leads to the mount on which
// it was opened. chdir(2) to /proc/self/fd/N follows the descriptor, and not a path below the root. So an image's WORKDIR, or the argument
// of exec --cwd, could name a directory of the host. The program was still in its own namespaces, and in its rootfs. But it could read and
// write the host's files as root.
//
// Since 1.1.12, runc opens such directories with O_CLOEXEC, so that `runc init` does not have them. It also asks for its working directory
// before it executes the program. getcwd(2) reports a directory outside of the root as unreachable, and then runc gives up. It refuses even
// a directory that its caller passes on by --preserve-fds. That is no protection from such a descriptor: the program has it, and can
// use it by itself. With --preserve-fds and a number that is too large, releases up to 1.5.2 still pass on their own /sys/fs/cgroup:
// TestLifecycle_WhichOpenFilesOfItsCallerDoesRuncPassOn asks about it.
//
// Hint: which descriptors in /proc/PID/fd of `runc init` are directories? Compare /proc/PID/cwd with /proc/PID/root.
// Spec: https://github.com/opencontainers/runc/security/advisories/GHSA-xr7r-f8xq-vfvv
// Kernel: https://man7.org/linux/man-pages/man5/proc_pid_fd.5.html, https://man7.org/linux/man-pages/man2/getcwd.2.html
func TestLifecycle_WhatCanAProgramReachThroughAnOpenDirectory(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What can a program reach through an open directory of the host?")
	defer q.Recover()
	runc.SkipUnlessRunc(q, "the descriptors of `runc init`")
	e := &escape{b: bundle.Busybox(q, "sleep", "3600"), dir: q.Mkdir("host"), text: "a file of the host"}
	q.WriteLine(e.file(), e.text)
	c := runc.New(q, e.b)
	init := c.CreateAndStart()

	q.Step("create a container: its `runc init` has no descriptor of a directory of the host")
	waiting := runc.Variant(q, e.b, "waiting")
	e.create(q, waiting)
	directories := e.openDirectories(q, waiting)
	assert.Check(q, cmp.Len(directories, 0), "directories of the host that are open in `runc init`")
	q.Fact("`runc init`: open directories of the host", len(directories))

	q.Step("name the descriptors as the working directory, of create and of exec --cwd: each is refused, and no program begins")
	begun := e.tryDescriptors(q, c, "fd", usedDescriptors)
	for _, operation := range []string{"create", "exec"} {
		for fd, p := range begun[operation] {
			q.Errorf("%s with the working directory /proc/self/fd/%d begins a program in %s", operation, fd, proc.Cwd(q, p.PID))
		}
		q.Fact(operation+" with /proc/self/fd/N: programs that begin", len(begun[operation]))
	}

	q.Step("pass an open directory of the host on, and name it as the working directory: create and exec are refused")
	passed := runc.Variant(q, e.b, "passed", inDescriptor(3))
	for _, row := range []struct {
		operation string
		r         lab.Result
	}{
		{"create", e.withOpenDirectory(q, passed.Argv("create", "--preserve-fds", "1"))},
		{"exec", e.withOpenDirectory(q, append(c.Argv("exec", "--preserve-fds", "1", "--cwd", "/proc/self/fd/3"), "true"))},
	} {
		assert.Check(q, row.r.Code != 0, "%s with a working directory outside of the rootfs succeeds:\n%s", row.operation, row.r)
		runc.AssertMessage(q, row.r.Stderr, "current working directory is outside of container mount namespace root")
		q.Fact(row.operation+" with a directory that is passed on: error", runc.StableMessage(row.r.Stderr))
	}
	assert.Check(q, !file.Exists(passed.StateDir()), "a refused create left its state: %s", passed.StateDir())

	q.Control("the same descriptor, and / as the working directory: exec succeeds, and the program can use the directory that it was given")
	given := e.withOpenDirectory(q, append(c.Argv("exec", "--preserve-fds", "1", "--cwd", "/"), "cat", "/proc/self/fd/3/"+fileOfHost))
	assert.Check(q, cmp.Equal(given.Stdout, e.text+"\n"), "%s", given)
	q.Fact("exec with a directory that is passed on, and / as the working directory: reads", strings.TrimSpace(given.Stdout))

	q.Run("runc-1.1.11", func(q *lab.Q) {
		q.Control("runc 1.1.11 leaves a directory of the host open, and the same configurations lead to the host's files")
		q.Use(q.Earlier("runc", "1.1.11"))
		e.reachHost(q)
	})

	q.TearDown("delete the containers: nothing of them remains", func() {
		waiting.Delete()
		c.KillAndDelete(init)
	})
	q.Answer("Through an open directory of the host, a program can reach each file of the host: with /proc/self/fd/N as its working " +
		"directory it begins there, and `..` leads to the host's root. runc up to 1.1.11 left /sys/fs/cgroup open. Later releases leave " +
		"no directory of the host open in `runc init`, unless --preserve-fds counts more files than the caller has. They refuse a working " +
		"directory outside of the container's root.")
}

// escape tries to begin a program in a directory of the host.
type escape struct {
	b    *bundle.Bundle
	dir  string // on the host, with the file fileOfHost
	text string // of the file
}

const fileOfHost = "file-of-the-host"

func (e *escape) file() string { return filepath.Join(e.dir, fileOfHost) }

// fromAnywhere returns a relative path to a file of the host, for a working directory at any depth: the parent of / is / itself.
func (e *escape) fromAnywhere() string {
	return strings.Repeat("../", 16) + strings.TrimPrefix(e.file(), "/")
}

// inDescriptor makes a descriptor of `runc init` the working directory of the program.
func inDescriptor(fd int) func(*specs.Spec) {
	return func(s *specs.Spec) { s.Process.Cwd = fmt.Sprintf("/proc/self/fd/%d", fd) }
}

// openDirectories returns the directories that are open in a waiting `runc init`, except those of its own procfs: path → descriptor.
func (e *escape) openDirectories(q *lab.Q, c *runc.Container) map[string]int {
	q.Helper()
	init := c.PID()
	proc.WaitFor(q, proc.SleepsIn(init, unix.SYS_OPENAT)) // it opens exec.fifo: it opens and closes nothing any more
	open := map[string]int{}
	for _, d := range proc.Descriptors(q, init) {
		if d.Directory && !d.OnOwnProcfs(q) {
			open[d.Target] = d.FD
		}
	}
	return open
}

// usedDescriptors is the number of descriptors of runc's caller. runc puts the files for `runc init` at 3 to 5 (1.1.11), or at 3 to 7
// (1.5.2; for exec 3 to 6), over what it has there. So what it leaves open gets into `runc init` only above them. With the Go of its
// time, runc 1.1.11 had enough files open by itself: the advisory names descriptor 7. Built with today's Go, it has them only from its
// caller.
const usedDescriptors = 8

// byBusyCaller runs runc by a caller that has files open.
func (e *escape) byBusyCaller(q *lab.Q, argv []string) lab.Result {
	q.Helper()
	return q.Exec("sh", "-c", "exec 3< /dev/null 4<&3 5<&3 6<&3 7<&3; exec "+shellescape.QuoteCommand(argv))
}

// create creates a container that has to be there afterwards.
func (e *escape) create(q *lab.Q, c *runc.Container) {
	q.Helper()
	r := e.byBusyCaller(q, c.Argv("create"))
	assert.Assert(q, cmp.Equal(r.Code, 0), "%s", r)
}

// tryDescriptors begins programs in the working directories /proc/self/fd/N of seven descriptors, each by create and start, and by exec. It
// returns those that run, by operation and descriptor.
func (e *escape) tryDescriptors(q *lab.Q, running *runc.Container, name string, first int) map[string]map[int]proc.Process {
	q.Helper()
	begun := map[string]map[int]proc.Process{"create": {}, "exec": {}}
	for fd := first; fd < first+7; fd++ {
		c := runc.Variant(q, e.b, fmt.Sprintf("%s-%d", name, fd), inDescriptor(fd))
		if e.byBusyCaller(q, c.Argv("create")).Code == 0 {
			pid := c.PID()
			c.Start()
			proc.WaitFor(q, proc.Runs(pid, "sleep"))
			begun["create"][fd] = proc.Snapshot(q, pid)
		}
		pidFile := filepath.Join(q.Dir, c.ID+"-exec.pid")
		exec := running.Argv("exec", "--detach", "--pid-file", pidFile, "--cwd", c.Bundle.Spec.Process.Cwd)
		if e.byBusyCaller(q, append(exec, "sleep", "3601")).Code == 0 {
			pid := proc.PID(check.Int(q, file.Read(q, pidFile)))
			file.Remove(q, pidFile)
			proc.WaitFor(q, proc.Runs(pid, "sleep"))
			begun["exec"][fd] = proc.Snapshot(q, pid)
		}
	}
	return begun
}

// beginIn begins programs as tryDescriptors does, until one of create and one of exec is in this directory of the host. It returns both
// programs and their descriptors, by operation. That of exec may be another one than that of create: it has opened other files before.
// And it may be another one in the next run, because the threads of runc open files in any order.
func (e *escape) beginIn(q *lab.Q, running *runc.Container, dir string, first int) (map[string]int, map[string]proc.Process) {
	q.Helper()
	fds, programs, others := map[string]int{}, map[string]proc.Process{}, []string{}
	for attempt := 1; attempt <= 10 && len(programs) < 2; attempt++ {
		for operation, begun := range e.tryDescriptors(q, running, fmt.Sprintf("vulnerable-%d", attempt), first) {
			for fd, p := range begun {
				if file.Same(fmt.Sprintf("/proc/%d/cwd", p.PID), dir) {
					fds[operation], programs[operation] = fd, p
				} else {
					others = append(others, fmt.Sprintf("%s by %d: %s", operation, fd, proc.Cwd(q, p.PID)))
				}
			}
		}
	}
	assert.Assert(q, cmp.Len(programs, 2), "operations of which a program begins in the host's %s; other programs: %v", dir, others)
	return fds, programs
}

// untilItReads runs a program that reads a file below the directory of a descriptor, first with the likely one, and then with the seven
// that tryDescriptors tries, until the program has read something.
func untilItReads(first, likely int, run func(fd int) lab.Result) (result lab.Result) {
	fds := []int{likely}
	for fd := first; fd < first+7; fd++ {
		fds = append(fds, fd)
	}
	retry.Until(proc.Patience, func() bool {
		return slices.ContainsFunc(fds, func(fd int) bool {
			result = run(fd)
			return result.Stdout != ""
		})
	})
	return result
}

// withOpenDirectory runs a command that inherits the directory of the host as descriptor 3.
func (e *escape) withOpenDirectory(q *lab.Q, argv []string) lab.Result {
	q.Helper()
	return q.Exec("sh", "-c", "exec 3< "+filepath.Base(e.dir)+"; exec "+shellescape.QuoteCommand(argv))
}

// reachHost asserts that the runtime leaves the host's /sys/fs/cgroup open, and that a program can begin there and read the host's file.
func (e *escape) reachHost(q *lab.Q) {
	const cgroups = "/sys/fs/cgroup"
	c := runc.Variant(q, e.b, "vulnerable")
	e.create(q, c)
	open := e.openDirectories(q, c)
	leaked, ok := open[cgroups]
	assert.Assert(q, ok, "%s is not among the open directories of `runc init`: %v", cgroups, open)
	q.Fact("runc 1.1.11, `runc init`: open directories of the host", slices.Sorted(maps.Keys(open)))
	pid := c.PID()
	c.Start()
	proc.WaitFor(q, proc.Runs(pid, "sleep"))
	init := proc.Snapshot(q, pid)

	first := max(3, leaked-4)
	reader := runc.Variant(q, e.b, "reads", bundle.Args("cat", e.fromAnywhere()))
	fds, programs := e.beginIn(q, c, cgroups, first)
	for _, operation := range []string{"create", "exec"} {
		p := programs[operation]
		assert.Check(q, file.Same(fmt.Sprintf("/proc/%d/root", p.PID), e.b.Rootfs()), "%s: the root is not the rootfs", operation)
		assert.Check(q, p.NS["mnt"] != proc.Self(q).NS["mnt"], "%s: the program is in the host's mount namespace", operation)
		q.Fact("runc 1.1.11, "+operation+" with /proc/self/fd/N: cwd", proc.Cwd(q, p.PID))
		q.Fact("runc 1.1.11, "+operation+" with /proc/self/fd/N: namespaces of its own", p.OwnNamespaces(proc.Self(q).Identity))
		reads := untilItReads(first, fds[operation], func(fd int) lab.Result {
			if operation == "create" {
				reader.Bundle.Edit(inDescriptor(fd))
				return e.byBusyCaller(q, reader.Argv("run"))
			}
			return e.byBusyCaller(q, append(c.Argv("exec", "--cwd", fmt.Sprintf("/proc/self/fd/%d", fd)), "cat", e.fromAnywhere()))
		})
		assert.Check(q, cmp.Equal(reads.Stdout, e.text+"\n"), "what the program reads by `..`: %s", reads)
		q.Fact("runc 1.1.11, "+operation+" with /proc/self/fd/N: the program reads", strings.TrimSpace(reads.Stdout))
	}

	q.Control("with / as its working directory, a program of runc 1.1.11 does not find the file")
	inRoot := e.byBusyCaller(q, append(c.Argv("exec"), "cat", e.fromAnywhere()))
	assert.Check(q, inRoot.Code != 0, "%s", inRoot)
	q.Fact("runc 1.1.11, exec with / as the working directory: exit code of the program", inRoot.Code)
	c.KillAndDelete(init)
}

// Two containers over one rootfs share its files, but not their mounts. Two containers in one cgroup share its limits, and runc cannot
// distinguish their processes. So deleting the first container fails, or it kills the processes of the second one.
//
// A rootfs is a directory, and runc makes no copy of it. Each container has its own mounts, because it has its own mount namespace.
// Since 1.2.0, runc refuses to create a container in a cgroup that has processes; on cgroup v1 it looks only into the hierarchy of
// devices. runc 1.1 warns, and the second container's limits replace the first one's; with the systemd driver 1.1 refuses as well. But
// runc looks only at create. A stopped container keeps its empty cgroup, so a second container can be created there. Then the kernel
// cannot remove the cgroup, and deleting the first container fails. If the first container is in the host's pid namespace, its delete
// kills all processes in the cgroup, also those of the second container. Since 1.2.0 `runc kill` with KILL does the same.
//
// Hint: give a second container the linux.cgroupsPath of one that runs, and of one that has stopped. Read cgroup.procs.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#cgroups-path
// Kernel: https://man7.org/linux/man-pages/man7/cgroups.7.html, https://man7.org/linux/man-pages/man7/mount_namespaces.7.html
func TestLifecycle_WhatDoTwoContainersShareInOnePlace(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What do two containers share in one place?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "3600")
	mayMount := bundle.WithCapability("CAP_SYS_ADMIN")

	q.Step("two containers over one rootfs: each reads what the other one writes")
	first, firstShell, firstProcess := runc.StartWithShell(q, b, "first", bundle.WritableRootfs, mayMount)
	_, secondShell, secondProcess := runc.StartWithShell(q, b, "second", bundle.WritableRootfs, mayMount)
	assert.Check(q, cmp.Equal(firstShell.Run("echo from the first > /note").Code, 0), "write to the rootfs")
	read := secondShell.Run("cat /note; echo from the second > /note").Out
	assert.Check(q, cmp.Equal(read, "from the first"), "the file in the second container")
	assert.Check(q, cmp.Equal(firstShell.Run("cat /note").Out, "from the second"), "the file in the first container")
	q.Fact("second container: file that the first one has written", read)

	q.Step("mount a tmpfs in the first container: neither the second one nor the host has this mount")
	mounted := firstShell.Run("mount -t tmpfs cdb-own /tmp && touch /tmp/file && ls /tmp")
	assert.Check(q, cmp.Equal(mounted.Out, "file"), "the mount in the first container")
	has := func(p proc.Process) bool { return slices.Contains(check.MountPoints(proc.Snapshot(q, p.PID)), "/tmp") }
	assert.Check(q, cmp.DeepEqual([]bool{has(firstProcess), has(secondProcess)}, []bool{true, false}),
		"mount at /tmp: in the first, in the second")
	assert.Check(q, check.MountAt(q, b.Rootfs("tmp")) == nil, "the mount of the container is one of the host")
	assert.Check(q, cmp.Equal(secondShell.Run("ls /tmp").Out, ""), "files in /tmp of the second container")
	q.Fact("mount at /tmp: in the first, in the second", []bool{has(firstProcess), has(secondProcess)})

	q.Step("delete the first container: its files are still in the rootfs")
	first.KillAndDelete(firstProcess)
	assert.Check(q, cmp.Equal(secondShell.Run("cat /note").Out, "from the second"), "the file after the first container's delete")
	q.Fact("file after the first container's delete", file.Read(q, b.Rootfs("note")))

	inCgroupOf := func(c *runc.Container) func(*specs.Spec) {
		return func(s *specs.Spec) { s.Linux.CgroupsPath = c.Bundle.Spec.Linux.CgroupsPath }
	}
	for _, row := range operationsInOneCgroup {
		q.Run(row.name, func(q *lab.Q) {
			limited := bundle.Resources(func(r *specs.LinuxResources) { r.Pids = &specs.LinuxPids{Limit: new(int64(7))} })
			owner := runc.Variant(q, b, row.name, append(row.edits, limited)...)
			ownerProcess := owner.CreateAndStart()
			group := cgroup.Of(q, owner.Bundle.Spec.Linux.CgroupsPath)
			isOld := runc.IsRunc(q) && q.UnderTest("runc").Precedes("1.2.0-rc.1")

			q.Step("two containers in %s. Create the second one in the cgroup of the first, which runs: runc refuses it", row.namespace)
			other := bundle.Resources(func(r *specs.LinuxResources) { r.Pids = &specs.LinuxPids{Limit: new(int64(9))} })
			second := runc.Variant(q, b, row.name+"-second", append(row.edits, inCgroupOf(owner), other)...)
			create := second.Try("create")
			if create.Code != 0 {
				assertRefusedInCgroup(q, create, second, group, ownerProcess)
				q.Fact(row.name+": second container in the cgroup of a running one: error of create", runc.StableMessage(create.Stderr))
			} else { // runc 1.1 warns
				assert.Check(q, !runc.IsRunc(q) || isOld, "create succeeds in a cgroup with a process:\n%s", create)
				q.Logf("create says: %s", create.Stderr)
			}

			q.Step("kill the first container, but do not delete it, and create the second one in its cgroup, which is empty: its limits hold")
			owner.Kill("KILL")
			proc.WaitFor(q, proc.Dead(ownerProcess.Identity))
			if create.Code != 0 {
				proc.WaitFor(q, group.HasProcesses(0))
				second.Create()
			}
			second.Start()
			proc.WaitFor(q, proc.Runs(second.PID(), "sleep"))
			p := second.Process()
			proc.WaitFor(q, group.HasProcesses(1)) // where runc 1.1 has created the second one beside the first
			assert.Check(q, cmp.DeepEqual(group.Procs(), []proc.PID{p.PID}), "processes in the cgroup of both")
			assert.Check(q, cmp.Equal(group.Read("pids", "pids.max"), "9"), "limit of the cgroup after the second create")
			q.Fact(row.name+": processes in the cgroup after the second create", len(group.Procs()))
			q.Fact(row.name+": pids.max in the cgroup after the second create", group.Read("pids", "pids.max"))

			victim := row.victim
			if isOld && row.operation[0] == "kill" {
				victim = "alive" // runc 1.1 refuses to signal a stopped container, except with --all
			}
			q.Step("%s the first container, which has stopped: the process of the second one is %s", row.operation[0], victim)
			row.operateOnFirst(q, owner, p, victim, isOld)

			q.Control("a container in another cgroup: the same operation on the second one does not touch it")
			apart := runc.Variant(q, b, row.name+"-apart", row.edits...)
			apartProcess := apart.CreateAndStart()
			if victim == "alive" {
				second.Kill("KILL")
				proc.WaitFor(q, proc.Dead(p.Identity))
			}
			second.Try(row.operation[0], row.operation[1:]...)
			deleteIfThere(second, owner)
			assert.Check(q, cmp.Equal(lifeOf(apartProcess), "alive"), "process of a container in another cgroup")
			check.OnlyProcessInCgroup(q, apartProcess.Identity, apart.Bundle.Spec.Linux.CgroupsPath)
			q.Fact(row.name+": operation on the second one: process in another cgroup", lifeOf(apartProcess))
			apart.KillAndDelete(apartProcess)
		})
	}
	q.Answer("Two containers over one rootfs share its files, but not their mounts. Two containers in one cgroup share its limits, and runc " +
		"cannot distinguish their processes: deleting the first one fails, or kills the processes of the second one.")
}

// operationInOneCgroup is an operation on the first of two containers in one cgroup. The first container has stopped, the second one runs.
type operationInOneCgroup struct {
	name, namespace string              // namespace: in which one the containers are, for the text of the step
	edits           []func(*specs.Spec) // of both containers
	operation       []string
	victim          string // the process of the second container, after the operation
}

var inHostsPIDs = []func(*specs.Spec){bundle.WithoutNamespace(specs.PIDNamespace)}

var operationsInOneCgroup = []operationInOneCgroup{
	{"own-pids", "pid namespaces of their own", nil, []string{"delete"}, "alive"},
	{"hosts-pids", "the host's pid namespace", inHostsPIDs, []string{"delete"}, "dead"},
	{"hosts-pids-kill", "the host's pid namespace", inHostsPIDs, []string{"kill", "KILL"}, "dead"},
}

// operateOnFirst calls the operation for the first container, and looks at the process of the second one. isOld is true for runc 1.1.
func (o operationInOneCgroup) operateOnFirst(q *lab.Q, first *runc.Container, second proc.Process, victim string, isOld bool) {
	q.Helper()
	operate := first.Try
	if o.operation[0] == "delete" && victim == "dead" {
		operate = first.Must // it repeats a delete that meets the dying process in the cgroup
	}
	r := operate(o.operation[0], o.operation[1:]...)
	if victim == "alive" {
		// runc 1.1 logs the error of delete, and forgets the container nevertheless. Its cgroup stays as long as the second one runs.
		assert.Check(q, r.Code != 0 || isOld, "delete reports that it has removed the cgroup of a running container:\n%s", r)
		runc.AssertMessage(q, r.Stderr, "remove .*(cgroup|paths)|container not running")
		// The rest of the message lists the directories that the kernel could not remove.
		message, _, _ := strings.Cut(runc.StableMessage(r.Stderr), "map[")
		q.Fact(o.name+": operation on the first one: error", message)
	} else {
		proc.WaitFor(q, proc.Dead(second.Identity))
	}
	assert.Check(q, cmp.Equal(lifeOf(second), victim), "process of the second container after the %s of the first one", o.operation[0])
	q.Fact(o.name+": operation on the first one: exit code", r.Code)
	q.Fact(o.name+": operation on the first one: process of the second one", lifeOf(second))
}

// assertRefusedInCgroup asserts why the create of a container in the cgroup of a running one has failed, and that it has changed nothing.
func assertRefusedInCgroup(q *lab.Q, create lab.Result, refused *runc.Container, group cgroup.Group, running proc.Process) {
	q.Helper()
	runc.AssertMessage(q, create.Stderr, "cgroup is not empty")
	assert.Check(q, !file.Exists(refused.StateDir()), "a refused create left its state: %s", refused.StateDir())
	assert.Check(q, cmp.DeepEqual(group.Procs(), []proc.PID{running.PID}), "processes in the cgroup after the refused create")
	assert.Check(q, cmp.Equal(group.Read("pids", "pids.max"), "7"), "limit of the first container after the refused create")
}

// lifeOf returns "alive", or "dead" if the process has ended, also if it is a zombie.
func lifeOf(p proc.Process) string {
	now, err := proc.Read(p.PID)
	if err != nil || !now.Same(p.Identity) || now.State == "Z" {
		return "dead"
	}
	return "alive"
}

// deleteIfThere deletes those of the containers of which runc has a state.
func deleteIfThere(containers ...*runc.Container) {
	for _, c := range containers {
		if file.Exists(c.StateDir()) {
			c.Delete()
		}
	}
}

// The program has the session keyring _ses.<id>, which `runc init` makes. It does not have the session keyring of runc's caller, so it
// cannot use the keys that are only there. With --no-new-keyring it has the caller's session keyring, and can use its keys.
//
// A keyring is a list of secrets that the kernel keeps for processes, such as Kerberos tickets or the keys of encrypted file systems.
// A process inherits its session keyring. Since Linux 5.3 each user namespace has its own names of keyrings, and its own
// keyrings of users (@u). runc init joins the keyring by its name: if a keyring of this name exists, it joins that keyring. So an exec
// finds the container's keyring. And two containers with the same id, in two state directories and one user namespace, share one keyring.
// A keyring counts against the quota of a user on the host: of the user to which the container's root is mapped. By default each user
// except root may have 200 keys. When the quota is full, create fails. A container without a user namespace has the host's keyrings of
// users: its root can link that of the host's root (keyctl link @u @s). A seccomp filter may forbid keyctl.
//
// Hint: read /proc/keys in the container, without maskedPaths.
// Spec: https://github.com/opencontainers/runc/blob/main/man/runc-create.8.md (the specification does not mention keyrings)
// Kernel: https://man7.org/linux/man-pages/man7/session-keyring.7.html, https://man7.org/linux/man-pages/man7/user-keyring.7.html
func TestLifecycle_WhichKeysCanTheProgramUse(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Which keys can the program use?")
	defer q.Recover()
	runc.SkipUnlessRunc(q, "the keyring _ses.<id>") // crun's has the id as its name
	// The session keyring belongs to the thread. Go ends the thread with this goroutine, because it is never unlocked.
	runtime.LockOSThread()
	b := bundle.Busybox(q, "sleep", "3600")
	b.Edit(func(s *specs.Spec) { s.Linux.MaskedPaths = nil }) // runc spec masks /proc/keys
	keys := newTestKeys(q)

	q.Step("the caller of runc has a key in its session keyring. The container's program has another keyring, and not the caller's key")
	addKey(q, keys.callersKeyring, keys.callers)
	assert.Check(q, cmp.DeepEqual(keys.in(file.Read(q, "/proc/keys")), []string{ofCaller}), "keys that the caller can use")
	// Written now, long before it is executed: another question may start a command meanwhile, which has the file open for a moment, and
	// then the kernel refuses to execute it (ETXTBSY).
	writeLinkUserKeyring(q, b)
	c, sh, _ := runc.StartWithShell(q, b, q.ID("keys"))
	ofHost := keyringsOf(c, file.Read(q, "/proc/keys"))
	assert.Check(q, cmp.Len(ofHost, 1), "keyrings _ses.%s on the host", c.ID)
	q.Fact("keyrings _ses.<id> while the container runs", len(ofHost))
	const list = "cat /proc/keys"
	assert.Check(q, cmp.Len(keys.in(sh.Run(list).Out), 0), "keys of the caller that the program can use")
	q.Fact("program: keys of the caller that it can use", keys.in(sh.Run(list).Out))
	assert.Check(q, cmp.Len(keys.in(c.Exec("cat", "/proc/keys").Stdout), 0), "keys of its caller that an executed program can use")
	q.Fact("executed program: keys of the caller that it can use", keys.in(c.Exec("cat", "/proc/keys").Stdout))

	q.Control("with --no-new-keyring the program has the caller's keyring, and the key")
	inheriting := runc.Variant(q, b, q.ID("inheriting"))
	inheritingShell := inheriting.UseShell()
	inheriting.Must("create", "--no-new-keyring")
	inheriting.Start()
	assert.Check(q, cmp.DeepEqual(keys.in(inheritingShell.Run(list).Out), []string{ofCaller}),
		"keys that the program can use, with --no-new-keyring")
	assert.Check(q, cmp.Len(keyringsOf(inheriting, file.Read(q, "/proc/keys")), 0), "keyrings _ses.%s on the host", inheriting.ID)
	q.Fact("--no-new-keyring: keys that the program can use", keys.in(inheritingShell.Run(list).Out))

	q.Step("a key is added to the container's keyring: the program can use it, and so can an executed program")
	addKey(q, "_ses."+c.ID, keys.containers)
	// The lab joins its own keyring again, so that the caller of exec does not have the container's keyring.
	addKey(q, keys.callersKeyring, keys.callers)
	for _, row := range []struct{ how, table string }{
		{"program", sh.Run(list).Out},
		{"executed program", c.Exec("cat", "/proc/keys").Stdout},
	} {
		assert.Check(q, cmp.DeepEqual(keys.in(row.table), []string{ofContainer}), "keys that the %s can use", row.how)
		q.Fact(row.how+": keys that it can use, after a key was added", keys.in(row.table))
	}

	q.Step("a container with the same id, in another state directory, has the same keyring")
	same := runc.Named(q, b.Variant("same", c.ID+"-same"), "root-same", c.ID)
	sameShell := same.UseShell()
	same.CreateAndStart()
	assert.Check(q, cmp.DeepEqual(keys.in(sameShell.Run(list).Out), []string{ofContainer}),
		"keys that a program in a container with the same id can use")
	assert.Check(q, cmp.DeepEqual(keyringsOf(c, sameShell.Run(list).Out), ofHost), "keyring _ses.%s of both containers", c.ID)
	q.Fact("same id in another state directory: keys that the program can use", keys.in(sameShell.Run(list).Out))
	q.Control("a container with another id has another keyring")
	other, otherShell, _ := runc.StartWithShell(q, b, q.ID("other"))
	ofOther := keyringsOf(other, otherShell.Run(list).Out)
	assert.Check(q, cmp.Len(ofOther, 1), "keyrings _ses.%s that the program sees", other.ID)
	assert.Check(q, !slices.Equal(ofOther, ofHost), "the container with another id has joined the keyring %v", ofHost)
	q.Fact("another id: has the same keyring", slices.Equal(ofOther, ofHost))
	assert.Check(q, cmp.Len(keys.in(otherShell.Run(list).Out), 0), "keys that a program in a container with another id can use")
	q.Fact("another id: keys that the program can use", keys.in(otherShell.Run(list).Out))

	q.Step("the keyring of the host's root (@u) has a key. Root of the container links this keyring into its own, and can use the key")
	addToUserKeyring(q, addKey(q, keys.callersKeyring, keys.users), keys.users) // the caller has to possess the key to link it
	q.Run("user-keyring", func(q *lab.Q) {
		skipUnlessAMD64(q)
		assertUsesUsersKey(q, sh, keys)
	})

	const user = 165433 // no user of the host has this id
	q.Run("user-namespace", func(q *lab.Q) {
		skipWithoutUserNamespaces(q)
		q.Control("a container with the same id, in a user namespace: it has another keyring of the same name")
		bundleOfIt := b.InSubtest(q).Variant("same-mapped", c.ID+"-same-mapped", mapRootTo(user+2000))
		assertKeyringApart(q, runc.Named(q, bundleOfIt, "root-same-mapped", c.ID), keys, ofHost)
	})

	q.Run("quota", func(q *lab.Q) {
		runtime.LockOSThread()
		skipWithoutUserNamespaces(q)
		q.Step("the user that is root in the container's user namespace has as many keys as the kernel allows: create fails")
		createAtQuota(q, b, user)
	})

	q.Answer("The program can use the keys of the session keyring that `runc init` made for it, _ses.<id>, and those of its user's keyring. " +
		"With --no-new-keyring it can use the keys of runc's caller.")
}

// testKeys are the names of the keys that a question adds, and of the session keyring of its caller.
type testKeys struct {
	callersKeyring             string
	callers, containers, users string // each in the keyring of its owner: the caller of runc, the container, the host's root
}

// Names of the three keys in facts and messages: whose key it is.
const ofCaller, ofContainer, ofUser = "the caller's key", "the container's key", "the user's key"

// newTestKeys returns names that no other question uses.
func newTestKeys(q *lab.Q) testKeys {
	return testKeys{q.ID("cdb-caller"), q.ID("cdb-callers-key"), q.ID("cdb-containers-key"), q.ID("cdb-users-key")}
}

// in returns which of the three keys a table of keys lists. /proc/keys lists a key only to processes that may view it. Here those are
// the processes that have the key's keyring, and they may use the key, too.
func (k testKeys) in(table string) (keys []string) {
	for _, key := range []struct{ name, is string }{{k.callers, ofCaller}, {k.containers, ofContainer}, {k.users, ofUser}} {
		if strings.Contains(table, " "+key.name+":") {
			keys = append(keys, key.is)
		}
	}
	return keys
}

// addKey joins the session keyring of this name, and adds a key that only a process that has the keyring can view, read and use.
func addKey(q *lab.Q, keyring, key string) (serial int) {
	q.Helper()
	id, err := unix.KeyctlJoinSessionKeyring(keyring)
	if err != nil {
		q.Skipf("this kernel, or a seccomp filter on the lab, has no keyrings: %v. Ask it in the VM: make lab", err)
	}
	serial, err = unix.AddKey("user", key, []byte("secret"), id)
	assert.NilError(q, err, "add a key to the session keyring %s", keyring)
	const possessor = 0x3f00_0000
	assert.NilError(q, unix.KeyctlSetperm(serial, possessor))
	q.LogCommand("keyctl session %s   # and in its shell: keyctl setperm $(keyctl add user %s secret @s) %#x", keyring, key, possessor)
	return serial
}

// linkUserKeyring is the path of a program in the container, which links the keyring of its user into its session keyring
// (keyctl link @u @s).
const linkUserKeyring = "/link-user-keyring"

// writeLinkUserKeyring writes the program linkUserKeyring into a rootfs.
func writeLinkUserKeyring(q *lab.Q, b *bundle.Bundle) {
	q.Helper()
	program := seccomp.SyscallProgram(unix.SYS_KEYCTL, [3]int32{unix.KEYCTL_LINK, unix.KEY_SPEC_USER_KEYRING, unix.KEY_SPEC_SESSION_KEYRING})
	assert.NilError(q, os.WriteFile(b.Rootfs(linkUserKeyring), program, 0o755))
}

// skipUnlessAMD64 skips the subtest on a machine that cannot run the program linkUserKeyring.
func skipUnlessAMD64(q *lab.Q) {
	q.Helper()
	if runtime.GOARCH != "amd64" {
		q.Skipf("the question's program is for amd64, and this machine is %s: ask it on an amd64 machine", runtime.GOARCH)
	}
}

// keyringsOf returns the serial numbers of the container's session keyrings in a table of keys.
func keyringsOf(c *runc.Container, table string) (serials []string) {
	for line := range strings.Lines(table) {
		if strings.Contains(line, " _ses."+c.ID+":") {
			serials = append(serials, strings.Fields(line)[0])
		}
	}
	return serials
}

// addToUserKeyring links a key into the keyring of the host's root (@u), until the end of the question.
func addToUserKeyring(q *lab.Q, serial int, name string) {
	q.Helper()
	_, err := unix.KeyctlInt(unix.KEYCTL_LINK, serial, unix.KEY_SPEC_USER_KEYRING, 0, 0)
	assert.NilError(q, err, "link the key into the keyring of the host's root")
	q.LogCommand("keyctl link $(keyctl search @s user %s) @u", name)
	q.Cleanup(func() {
		_, err := unix.KeyctlInt(unix.KEYCTL_UNLINK, serial, unix.KEY_SPEC_USER_KEYRING, 0, 0)
		assert.Check(q, err, "unlink the key from the keyring of the host's root")
	})
}

// assertUsesUsersKey asserts that a shell in a container can use the key in its user's keyring, after it has linked this keyring.
func assertUsesUsersKey(q *lab.Q, sh *runc.Shell, keys testKeys) {
	before := keys.in(sh.Run("cat /proc/keys").Out)
	linked := sh.Run(linkUserKeyring + "   # keyctl link @u @s").Code
	assert.Check(q, cmp.Equal(linked, 0), "exit code of a program that links @u into @s")
	after := keys.in(sh.Run("cat /proc/keys").Out)
	assert.Check(q, cmp.DeepEqual(before, []string{ofContainer}), "keys that the program can use, before it has linked @u")
	assert.Check(q, cmp.DeepEqual(after, []string{ofContainer, ofUser}), "keys that the program can use, after it has linked @u")
	q.Fact("before keyctl link @u @s: keys that the program can use", before)
	q.Fact("after keyctl link @u @s: keys that the program can use", after)
}

// mapRootTo gives the container a user namespace, whose root is this user of the host.
func mapRootTo(host uint32) func(*specs.Spec) {
	return func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: host, Size: 1000}}
		s.Linux.GIDMappings = s.Linux.UIDMappings
	}
}

// skipWithoutUserNamespaces skips the subtest if the kernel allows no user namespace.
func skipWithoutUserNamespaces(q *lab.Q) {
	q.Helper()
	if path := "/proc/sys/user/max_user_namespaces"; file.Exists(path) && file.Read(q, path) == "0" {
		q.Skip("this kernel allows no user namespace: set user.max_user_namespaces above 0")
	}
}

// assertKeyringApart creates and starts a container in a user namespace. The container of this id on the host has the keyrings ofHost.
func assertKeyringApart(q *lab.Q, c *runc.Container, keys testKeys, ofHost []string) {
	const list = "cat /proc/keys"
	sh := c.UseShell()
	c.CreateAndStart()
	assert.Check(q, cmp.Len(keys.in(sh.Run(list).Out), 0),
		"keys that a program in a container with the same id, in a user namespace, can use")
	ofIt := keyringsOf(c, sh.Run(list).Out)
	assert.Check(q, cmp.Len(ofIt, 1), "keyrings _ses.%s that the program sees", c.ID)
	assert.Check(q, !slices.Equal(ofIt, ofHost), "the container in a user namespace has joined the keyring %v", ofHost)
	q.Fact("same id in a user namespace: keys that the program can use", keys.in(sh.Run(list).Out))
	q.Fact("same id in a user namespace: has the same keyring", slices.Equal(ofIt, ofHost))
	q.Run("user-keyring", func(q *lab.Q) {
		skipUnlessAMD64(q)
		assert.Check(q, cmp.Equal(sh.Run(linkUserKeyring).Code, 0), "exit code of a program that links @u into @s")
		after := keys.in(sh.Run(list).Out)
		assert.Check(q, cmp.Len(after, 0), "keys that a program in a user namespace can use, after it has linked @u")
		q.Fact("after keyctl link @u @s in a user namespace: keys that the program can use", after)
	})
}

// createAtQuota fills the quota of a user, and creates containers whose root is this user, or another one.
func createAtQuota(q *lab.Q, b *bundle.Bundle, user int) {
	maximum := check.Int(q, file.Read(q, "/proc/sys/kernel/keys/maxkeys"))
	keyring := fillQuota(q, user, maximum)
	// A long id: the name of its keyring needs more bytes than each of the keys. The quota may also be one of bytes (maxbytes).
	full := runc.Variant(q, b, "full-"+strings.Repeat("x", 64), mapRootTo(uint32(user)))
	r := full.MustRefuse("unable to (join|create) session key.*quota exceeded")
	q.Fact("quota full: error of create", runc.StableMessage(r.Stderr))

	q.Control("with --no-new-keyring, and for another user: create succeeds")
	q.Fact("quota full: exit code of create --no-new-keyring", full.Must("create", "--no-new-keyring").Code)
	full.Delete()
	free := runc.Variant(q, b, "free", mapRootTo(uint32(user+1000)))
	q.Fact("quota of another user: exit code of create", free.Must("create").Code)
	free.Delete()

	q.Control("clear the keyring: create succeeds")
	clearKeyring(q, keyring, user)
	q.Fact("keyring cleared: exit code of create", full.Must("create").Code)
	full.Delete()
}

// fillQuota joins a new session keyring, and adds keys of a user to it until the kernel refuses one. It returns the keyring.
func fillQuota(q *lab.Q, user, maximum int) (keyring int) {
	q.Helper()
	keyring, err := unix.KeyctlJoinSessionKeyring(q.ID("cdb-full"))
	assert.NilError(q, err)
	assert.NilError(q, unix.Setfsuid(user))
	keys := 0
	for ; err == nil && keys <= maximum; keys++ {
		_, err = unix.AddKey("user", fmt.Sprintf("%s-%d", q.ID("cdb-full"), keys), []byte("-"), keyring)
	}
	assert.NilError(q, unix.Setfsuid(0))
	assert.Assert(q, cmp.ErrorIs(err, unix.EDQUOT), "after %d keys, where the maximum is %d", keys, maximum)
	return keyring
}

// clearKeyring removes all keys from a keyring, and waits until the kernel counts no key of the user any more.
func clearKeyring(q *lab.Q, keyring, user int) {
	q.Helper()
	_, err := unix.KeyctlInt(unix.KEYCTL_CLEAR, keyring, 0, 0, 0)
	assert.NilError(q, err)
	proc.WaitFor(q, func(poll.LogT) poll.Result {
		for line := range strings.Lines(file.Read(q, "/proc/key-users")) {
			if f := strings.Fields(line); slices.Contains(f, fmt.Sprintf("%d:", user)) && !strings.HasPrefix(f[3], "0/") {
				return poll.Continue("user %d still has keys: %s", user, line)
			}
		}
		return poll.Success()
	})
}
