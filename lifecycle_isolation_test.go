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

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/bundle"
	"cdblab/helpers/cgroup"
	"cdblab/helpers/check"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/retry"
	"cdblab/helpers/runc"
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
	for _, hierarchy := range slices.Sorted(maps.Keys(p.Cgroups)) {
		if p.Cgroups[hierarchy] == c.Bundle.Spec.Linux.CgroupsPath {
			assert.Check(q, self.Cgroups[hierarchy] != p.Cgroups[hierarchy],
				"control: in hierarchy %q, the test itself is in the container's cgroup", hierarchy)
		}
	}

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

// The parent of the container's process is the nearest subreaper above runc, or pid 1. It is not runc, which has exited before the
// program runs.
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
	adopted.Kill("TERM")
	var status unix.WaitStatus
	reaped, err := unix.Wait4(int(pid), &status, 0, nil)
	assert.NilError(q, err)
	assert.Check(q, cmp.Equal(proc.PID(reaped), pid))
	assert.Check(q, cmp.Equal(status.ExitStatus(), 7))
	q.Fact("exit code, as wait(2) returns it to the subreaper", status.ExitStatus())
	var poll [1]unix.PollFd
	poll[0] = unix.PollFd{Fd: int32(pidfd), Events: unix.POLLIN}
	ready, err := unix.Poll(poll[:], 0)
	assert.NilError(q, err)
	assert.Check(q, cmp.Equal(ready, 1), "a pidfd of the process does not become readable when the process ends")
	q.Fact("pidfd of the process, after its end: readable", ready == 1)
	document := adopted.Must("state").Stdout
	assert.Check(q, !strings.Contains(document, "exit"), "the state document has an exit code:\n%s", document)

	q.Answer("After runc has exited, the parent is the process that adopts orphans: the nearest subreaper, or else pid 1.")
}

// `runc init` is a file of the host that runs inside of the container, and programs in the container can open it by /proc/PID/exe. So
// runc executes a copy of itself that no process can write to, also after its end.
//
// The kernel forbids writing to a program while it runs (ETXTBSY). A program in the container can open it for reading, wait
// until it ends, and then open the same file for writing by /proc/self/fd/N: that is how CVE-2019-5736 replaced the host's runc.
// Since then runc executes a memfd that is sealed, or its file through a mount that is read-only. A tool that enters a container
// without such a copy has the same hole.
//
// Hint: let a container execute /proc/self/exe, and look at /proc/PID/exe of that process from inside and from outside.
// Spec: https://github.com/advisories/GHSA-gxmr-w5mj-v8hh
// Kernel: https://man7.org/linux/man-pages/man2/memfd_create.2.html, https://man7.org/linux/man-pages/man5/proc_pid_exe.5.html
func TestLifecycle_WhyIsRuncInitASealedCopy(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Why is `runc init` a sealed copy?")
	defer q.Recover()
	runc.SkipUnlessRunc(q, "the program that `runc init` executes")
	b := bundle.Busybox(q, "sleep", "3600")
	c, sh, init := runc.StartWithShell(q, b, "entered", func(s *specs.Spec) {
		// To open /proc/PID/exe of a process with more capabilities, as the control needs it. `runc init` has no more than the container.
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
	// errorIn returns the error in a message of the shell, such as "sh: can't create /proc/7/exe: Read-only file system".
	errorIn := func(r runc.Reply) string { return strings.TrimSpace(r.Out[strings.LastIndex(r.Out, ":")+1:]) }

	q.Step("exec of /proc/self/exe: that is the program of `runc init` itself, which now runs in the container as any other program")
	const log = "/dev/shm/log" // opening this FIFO makes runc wait
	made := sh.Run("mkfifo " + log)
	assert.Assert(q, cmp.Equal(made.Code, 0), made.Out)
	pidFile := filepath.Join(c.Root, "entering.pid")
	q.Must("runc", "--root", c.Root, "exec", "--detach", "--pid-file", pidFile, c.ID, "/proc/self/exe", "--log", log, "list")
	pid := proc.PID(check.Int(q, file.Read(q, pidFile)))
	file.Remove(q, pidFile)
	proc.WaitFor(q, proc.Runs(pid, "exe"))
	entering := proc.Snapshot(q, pid)
	runc.AssertIsRuntime(q, b, proc.ExeDigest(q, pid))
	exe := fmt.Sprintf("/proc/%d/exe", proc.InnerPID(q, pid))
	read := sh.Run("head -c 4 " + exe + " | od -An -c")
	assert.Check(q, cmp.Equal(strings.Join(strings.Fields(read.Out), " "), "177 E L F"), "what a program in the container reads of %s", exe)
	q.Fact("exe of the executed program, whose content is that of runc", entering.Exe)
	q.Fact("a program in the container reads of it", strings.Fields(read.Out))

	q.Step("the host sees that its file is protected: it is sealed, or on a mount that is read-only")
	isProtected := proc.ExeIsProtected(q, pid)
	// The lab does not try to overwrite a runc that is not protected.
	assert.Assert(q, isProtected, "a program in the container can overwrite %s, which is runc, when the process has ended", entering.Exe)
	q.Fact("runc in the container: sealed, or on a read-only mount", isProtected)

	q.Step("a program in the container cannot write to it, neither while it runs nor after its end")
	running := sh.Run("echo overwritten > " + exe)
	assert.Check(q, running.Code != 0, "a program in the container has written to runc while it runs: %s", running.Out)
	q.Fact("writing to runc while it runs: error", errorIn(running))
	opened := sh.Run("exec 9< " + exe)
	assert.Assert(q, cmp.Equal(opened.Code, 0), opened.Out)
	q.KillProcess(entering)
	proc.WaitFor(q, proc.Dead(entering.Identity))
	ended := overwrite("/proc/self/fd/9")
	assert.Check(q, ended.Code != 0, "a program in the container has written to runc after its end: %s", ended.Out)
	q.Fact("writing to runc after its end: error", errorIn(ended))
	after := sh.Run("head -c 4 /proc/self/fd/9 | od -An -c")
	assert.Check(q, cmp.Equal(after.Out, read.Out), "the program file, after the attempts to write to it")

	q.Control("another tool of the host enters the pid namespace without a copy: its file can be overwritten after its end")
	tool := filepath.Join(q.Mkdir("host"), "sleep")
	q.Must("cp", q.UnderTest("busybox").Path, tool)
	entered := q.StartBackground("busybox", "nsenter", "-t", strconv.Itoa(int(init.PID)), "-p", tool, "3601")
	retry.Until(proc.Patience, func() bool { return len(proc.Children(q, entered.PID())) > 0 })
	proc.WaitFor(q, proc.Runs(proc.FirstExcept(0, proc.Children(q, entered.PID())), "sleep"))
	child := proc.Snapshot(q, proc.FirstExcept(0, proc.Children(q, entered.PID())))
	toolIsProtected := proc.ExeIsProtected(q, child.PID)
	assert.Check(q, !toolIsProtected, "%s is a plain file, and looks protected", tool)
	exe = fmt.Sprintf("/proc/%d/exe", proc.InnerPID(q, child.PID))
	q.Fact("another tool: opening its file for writing while it runs: error", errorIn(sh.Run("true >> "+exe)))
	opened = sh.Run("exec 9< " + exe)
	assert.Assert(q, cmp.Equal(opened.Code, 0), opened.Out)
	q.KillProcess(child)
	entered.ExitCode()
	written := overwrite("/proc/self/fd/9")
	assert.Check(q, cmp.Equal(written.Code, 0), "writing to the tool after its end: %s", written.Out)
	content := file.Read(q, tool)
	assert.Check(q, cmp.Equal(content, "overwritten"), "the tool's file on the host")
	q.Fact("another tool: sealed, or on a read-only mount", toolIsProtected)
	q.Fact("another tool: its file on the host, after its end", content)

	q.TearDown("kill and delete the container", func() { c.KillAndDelete(init) })
	q.Answer("`runc init` runs inside of the container, where programs can open its file by /proc/PID/exe. runc executes a copy of itself " +
		"that no process can write to. Otherwise a container could replace the host's runc, as in CVE-2019-5736.")
}
