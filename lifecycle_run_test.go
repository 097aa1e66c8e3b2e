//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"al.essio.dev/pkg/shellescape"
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
	"cdblab/helpers/runc"
)

// Run is create, start, wait and delete in one command, and it returns the program's exit code.
//
// `run` is not an operation of the specification, but it is what people type. In the foreground the runtime stays. It passes on what
// the program prints, and most signals to the program (not WINCH, CHLD and URG; with a terminal, INT ends runc). As the parent it gets
// the exit code, which create and start do not report. With --detach run is only create and start: the runtime exits, and the container
// stays until it is deleted.
//
// Hint: what is left after `run`, and what after `run --detach`? Which process can wait for the program?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/runtime.md#lifecycle
// Kernel: https://man7.org/linux/man-pages/man2/waitpid.2.html
func TestLifecycle_WhatDoesRunAdd(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does `run` add?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "3600")

	q.Step("run returns the program's exit code, prints what the program prints, and leaves nothing")
	leftovers := []string{}
	for _, row := range []struct {
		name, script   string
		code           int
		stdout, stderr string // all of stdout, and a part of stderr
	}{
		{"zero", "echo $((40 + 2))", 0, "42", ""},
		{"seven", "echo to stderr >&2; exit 7", 7, "", "to stderr"},
		// The shell turns the signal that ended its child into an exit code.
		{"killed", "sh -c 'kill -9 $$'; exit $?", 128 + 9, "", ""},
		{"missing", "no-such-program", 127, "", "not found"},
	} {
		c := runc.Variant(q, b, row.name, bundle.Args("sh", "-c", row.script))
		before := q.TakeInventory()
		r := c.Try("run")
		assert.Check(q, cmp.Equal(r.Code, row.code), "%s", r)
		assert.Check(q, cmp.Equal(strings.TrimSpace(r.Stdout), row.stdout), "stdout of run of %s", row.script)
		assert.Check(q, cmp.Contains(r.Stderr, row.stderr), "stderr of run of %s", row.script)
		proc.WaitFor(q, c.NoLeftovers(before))
		leftovers = append(leftovers, c.Leftovers(before)...)
		q.Fact("exit code of run: "+row.script, r.Code)
	}
	q.Fact("leftovers of these four", leftovers)

	q.Control("with create and start runc does not wait: it reports no exit code, and the container stays until delete")
	byHand := runc.Variant(q, b, "by-hand", bundle.Args("sh", "-c", "exit 7"))
	byHand.Create()
	p := byHand.Process()
	started := byHand.Try("start")
	assert.Check(q, cmp.Equal(started.Code, 0), "exit code of start; the program exits with 7")
	proc.WaitFor(q, proc.Dead(p.Identity))
	stateDocument := byHand.Must("state").Stdout
	assert.Check(q, cmp.Equal(byHand.State().Status, specs.StateStopped))
	q.Fact("start's exit code", started.Code)
	q.Fact("status after the program's end", byHand.State().Status)
	assert.Check(q, !strings.Contains(stateDocument, "exit"), "the state document has an exit code:\n%s", stateDocument)
	byHand.Delete()

	q.Control("run --detach returns while the program runs, and leaves the container")
	detached := runc.Variant(q, b, "detached")
	detached.Must("run", "--detach")
	pid := detached.PID()
	proc.WaitFor(q, proc.Runs(pid, "sleep"))
	assert.Check(q, cmp.Equal(detached.State().Status, specs.StateRunning))
	q.Fact("after run --detach", detached.State().Status)
	detached.KillAndDelete(proc.Snapshot(q, pid))

	q.Step("in the foreground the runtime is the program's parent. Send TERM to the runtime: it sends TERM to the program")
	foreground := runc.Variant(q, b, "foreground", bundle.Args("sh", "-c", "trap 'exit 9' TERM; while :; do sleep 3600 & wait $!; done"))
	run := q.StartBackground(foreground.Argv("run")...)
	proc.WaitFor(q, file.DirHas(foreground.StateDir(), "state.json"))
	proc.WaitFor(q, foreground.HasStatus(specs.StateRunning))
	program := foreground.Process()
	assert.Check(q, cmp.Equal(program.Parent, run.PID()))
	q.Fact("parents", proc.Parents(q, map[string]proc.PID{"program": program.PID, "runc run": run.PID()}))
	// Not before: TERM ends a process that is still `runc init`, with another exit code. And before the shell has set its trap, the kernel
	// drops the signal, and the runtime waits for ever. That the runtime misses the end of the program is another matter: runc had that bug
	// (https://github.com/opencontainers/runc/pull/5208), and 1.5.2 has not, for it registers SIGCHLD before all else.
	proc.WaitFor(q, proc.Catches(program.PID, "sh", unix.SIGTERM))
	proc.WaitFor(q, proc.HandlesAllSignals(run.PID()))
	run.Signal(unix.SIGTERM)
	exitCode := run.ExitCode()
	assert.Check(q, cmp.Equal(exitCode, 9), "the exit code of run")
	assert.Check(q, !file.Exists(foreground.StateDir()))
	q.Fact("TERM to runc: exit code of run", exitCode)

	q.Answer("Run adds wait and delete: it is create, start, wait and delete in one command. It returns the program's exit code.")
}

// With --keep, run leaves the state directory and the cgroup, as any stopped container has them. They exist until delete. Without --keep,
// run deletes both when the program ends.
//
// The program and its namespaces are gone either way. The cgroup is useful: its counters show what the container has used, including
// `runc init`, and how often it met a limit. The id stays taken, and the container cannot be started again. If `runc init` fails, for
// instance because the program does not exist, run --keep leaves only the state directory, without the cgroup. The id is then taken
// as well, until delete.
//
// Hint: look at the state directory and at the cgroup after the program's end.
// Spec: https://github.com/opencontainers/runc/blob/main/man/runc-run.8.md (run is not an operation of the specification)
// Kernel: https://docs.kernel.org/admin-guide/cgroup-v2.html, cpu.stat and pids.events
func TestLifecycle_WhatDoesRunKeepLeave(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does `run --keep` leave?")
	defer q.Recover()
	if !strings.Contains(q.Must("runc", "run", "--help").Stdout, "--keep") {
		q.Skip("this runtime has no run --keep: runc has it since 1.1.0; to ask this with the pinned runc, leave out RUNC= and CDB_RUNC")
	}
	// The program needs more processes than the limit allows: fork fails, and the shell gives up.
	b := bundle.Busybox(q, "sh", "-c", "(for i in $(seq 20); do sleep 3600 & done); exit 7").Edit(
		bundle.Resources(func(r *specs.LinuxResources) { r.Pids = &specs.LinuxPids{Limit: new(int64(12))} }))
	existing := func(c *runc.Container) (places []string) {
		if file.Exists(c.StateDir()) {
			places = append(places, "state directory")
		}
		dirs := cgroup.Of(q, c.Bundle.Spec.Linux.CgroupsPath).Dirs()
		for _, dir := range dirs {
			if file.Exists(dir) {
				places = append(places, "cgroup")
			}
		}
		if len(places) > 2 { // a directory in each hierarchy of v1
			assert.Check(q, cmp.Len(places, 1+len(dirs)), "places of the container: the state directory and %d cgroups", len(dirs))
		}
		return slices.Compact(places)
	}

	q.Step("run --keep returns the program's exit code, and leaves the state directory and the cgroup")
	kept := runc.Variant(q, b, "kept")
	r := kept.Try("run", "--keep")
	assert.Check(q, cmp.Equal(r.Code, 7), "exit code of run --keep: %s", r.Stderr)
	state := kept.State()
	assert.Check(q, cmp.Equal(state.Status, specs.StateStopped))
	assert.Check(q, cmp.Equal(state.Pid, 0), "pid in the state of the stopped container")
	assert.Check(q, cmp.DeepEqual(existing(kept), []string{"state directory", "cgroup"}), "leftovers of run --keep")
	q.Fact("run --keep: exit code", r.Code)
	q.Fact("run --keep: status", state.Status)
	q.Fact("run --keep: leftovers", existing(kept))

	q.Step("look at the cgroup: no process is in it. Its counters show the processor time, and that the program has met its limit of processes")
	group := cgroup.Of(q, kept.Bundle.Spec.Linux.CgroupsPath)
	proc.WaitFor(q, group.HasProcesses(0)) // the kernel takes a dead process out of its cgroup a moment later
	q.Fact("run --keep: processor time used", lab.Elapsed(group.CPUTime()))
	atLimit := func(c *runc.Container) uint64 {
		return cgroup.Of(q, c.Bundle.Spec.Linux.CgroupsPath).Stat("pids", "pids.events", "max")
	}
	assert.Check(q, atLimit(kept) > 0, "pids.events: the program has forked over its limit")
	q.Fact("run --keep: pids.events shows that the limit was met", atLimit(kept) > 0)
	q.Control("a program that stays below the limit")
	modest := runc.Variant(q, b, "modest", bundle.Args("sh", "-c", "sleep 0; exit 7"))
	assert.Check(q, cmp.Equal(modest.Try("run", "--keep").Code, 7), "exit code of run --keep")
	assert.Check(q, cmp.Equal(atLimit(modest), uint64(0)), "pids.events of a program that does not fork over its limit")
	q.Fact("program below the limit: pids.events shows that the limit was met", atLimit(modest) > 0)

	q.Step("the id is taken, and the container cannot be started again")
	for _, operation := range []string{"create", "start"} {
		refused := kept.Try(operation)
		assert.Check(q, refused.Code != 0, "%s after run --keep succeeds:\n%s", operation, refused)
		q.Fact("after run --keep: error of "+operation, runc.StableMessage(refused.Stderr))
	}
	assert.Check(q, cmp.Equal(kept.State().Status, specs.StateStopped))

	q.Step("run --keep of a program that does not exist: `runc init` fails, and leaves only a state directory; the id is taken until delete")
	missing := runc.Variant(q, b, "missing", bundle.Args("/no/such/program"))
	failed := missing.Try("run", "--keep")
	assert.Check(q, failed.Code != 0, "run of a program that does not exist:\n%s", failed)
	left := existing(missing)
	assert.Check(q, !slices.Contains(left, "cgroup"), "leftovers of run --keep whose `runc init` has failed: %v", left)
	q.Fact("run --keep, and runc init fails: leftovers", left)
	if len(left) > 0 { // runc 1.1.12 to 1.5.2
		q.Fact("run --keep, and runc init fails: files in the state directory", file.Names(q, missing.StateDir()))
		again := missing.Try("create")
		assert.Check(q, again.Code != 0, "create with the id of a state directory that exists:\n%s", again)
		runc.AssertMessage(q, again.Stderr, "already exists")
		q.Fact("run --keep, and runc init fails: error of the next create", runc.StableMessage(again.Stderr))
		if file.Exists(missing.StateFile()) {
			assert.Check(q, cmp.Equal(missing.State().Status, specs.StateStopped))
			missing.Delete()
		} else {
			missing.Must("delete", "--force")
		}
		assert.Check(q, cmp.Len(existing(missing), 0), "leftovers after delete")
		q.Fact("run --keep, and runc init fails: leftovers after delete", existing(missing))
	}

	q.Control("without --keep, run leaves neither the state directory nor the cgroup")
	gone := runc.Variant(q, b, "gone", bundle.Args("sh", "-c", "exit 7"))
	r = gone.Try("run")
	assert.Check(q, cmp.Equal(r.Code, 7), "exit code of run: %s", r.Stderr)
	assert.Check(q, cmp.Len(existing(gone), 0), "leftovers of run")
	q.Fact("run: leftovers", existing(gone))

	q.TearDown("delete the kept container: delete removes both", func() {
		kept.Delete()
		assert.Check(q, cmp.Len(existing(kept), 0), "leftovers after delete")
		q.Fact("after delete: leftovers", existing(kept))
	})

	q.Answer("Run --keep leaves the state directory and the cgroup of the stopped container, until delete. The cgroup's counters show " +
		"what the container has used, and how often it met a limit.")
}

// --no-pivot leaves the host's root and its mounts in the mount namespace, below the container's root. The program does not see them. But a
// program that may unmount can uncover them: a process that enters the mount namespace afterwards has the host's root.
//
// runc makes the rootfs the root of the mount namespace by pivot_root(2), and unmounts the old root with all that is on it. The kernel
// refuses this where the old root is an initramfs, which nothing can unmount. For such a host runc has --no-pivot: it moves the rootfs over
// the old root (MS_MOVE), and calls chroot(2). The old root is still there, covered. Before that, runc unmounts the procfs and the sysfs of
// the host: the kernel would allow the program a procfs without masks while a full one is in the mount namespace.
//
// To uncover the old root takes CAP_SYS_ADMIN. The host's mounts also stay in use as long as the container runs, unless an unmount on the
// host propagates to them. `..` of the root leads nowhere, with and without the flag. ctr has the flag --no-pivot, too.
//
// Hint: type umount -l / in a container with CAP_SYS_ADMIN, then `nsenter -t PID -m ls /` on the host.
// Spec: https://github.com/opencontainers/runc/blob/main/man/runc-create.8.md (the specification does not mention pivot_root)
// Kernel: https://man7.org/linux/man-pages/man2/pivot_root.2.html, https://man7.org/linux/man-pages/man7/mount_namespaces.7.html
func TestLifecycle_WhatDoesNoPivotLeave(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does --no-pivot leave in the mount namespace?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "3600")
	const text = "a file of the host"
	onHost := filepath.Join(q.Mkdir("host"), "file")
	q.WriteLine(onHost, text)
	root := enterRoot(q, proc.PID(os.Getpid()), onHost)
	assert.Check(q, cmp.Equal(root.text, text), "the file on the host")

	var stat unix.Stat_t
	assert.NilError(q, unix.Stat(b.Rootfs(), &stat))
	rootfs := [2]uint64{stat.Dev, stat.Ino}

	seen := map[string][]string{}
	for _, row := range []struct{ name, flag, uncovered string }{
		{"no-pivot", "--no-pivot", text},
		{"pivot", "", ""},
	} {
		if row.flag == "" {
			q.Control("a container without the flag: its mount namespace has nothing of the host")
		}
		c := runc.Variant(q, b, row.name, bundle.WithCapability("CAP_SYS_ADMIN"))
		sh := c.UseShell()
		q.Step("%s: the program's root is the rootfs, and it sees no mount of the host", strings.TrimSpace("create "+row.flag))
		c.Must("create", strings.Fields(row.flag)...)
		pid := c.PID()
		c.Start()
		up := sh.Run("stat -c %d:%i / /.. | uniq | wc -l").Out
		assert.Check(q, cmp.Equal(up, "1"), "%s: different directories among / and /..", row.name)
		p := proc.Snapshot(q, pid)
		assert.Check(q, !check.SeesHostMounts(p), "%s: it sees a mount of the host: %q", row.name, p.Mounts)
		assert.Check(q, file.Same(fmt.Sprintf("/proc/%d/root", pid), b.Rootfs()), "%s: its / is not the rootfs", row.name)
		seen[row.name] = check.MountPoints(p)
		q.Fact(row.name+": mounts that the program sees", len(seen[row.name]))

		q.Step("enter the mount namespace: / is the rootfs, and the file of the host is not there")
		covered := enterRoot(q, pid, onHost)
		assert.Check(q, cmp.Equal(covered.inode, rootfs), "%s: / of a process that enters is not the rootfs", row.name)
		assert.Check(q, cmp.Equal(covered.text, ""), "%s: the file that such a process reads", row.name)
		q.Fact(row.name+", a process that enters: / is the rootfs, reads of the file", []any{covered.inode == rootfs, covered.text})

		q.Step("the program unmounts its root; then enter the mount namespace again")
		unmounted := sh.Run("umount -l /")
		q.Fact(row.name+": exit code of umount -l / in the container", unmounted.Code)
		after := enterRoot(q, pid, onHost)
		// Otherwise nothing was tried, and the control would prove nothing.
		assert.Check(q, unmounted.Code == 0 || after.inode != covered.inode, "%s: umount -l / in the container: %s", row.name, unmounted.Out)
		assert.Check(q, cmp.Equal(after.text, row.uncovered), "%s: the file of the host, after umount -l /: %s", row.name, unmounted.Out)
		assert.Check(q, cmp.Equal(after.inode == root.inode, row.uncovered != ""), "%s: / of a process that enters is the host's", row.name)
		q.Fact(row.name+", after umount -l /, a process that enters: / is the host's, reads of the file",
			[]any{after.inode == root.inode, after.text})
		c.KillAndDelete(p)
	}
	assert.Check(q, cmp.DeepEqual(seen["no-pivot"], seen["pivot"]), "mount points that the program sees")
	assert.Check(q, cmp.Equal(file.Read(q, onHost), text), "the file on the host, after the end of the containers")

	q.Answer("--no-pivot leaves the host's root and its mounts below the container's root. The program does not see them. But with " +
		"CAP_SYS_ADMIN it can unmount its root, and the next process that enters the mount namespace has the host's root. With pivot_root " +
		"nothing of the host is there.")
}

// enteredRoot is what a process has as its root that has entered a mount namespace.
type enteredRoot struct {
	inode [2]uint64 // device and inode of /
	text  string    // of a file; "" if it is not there
}

// enterRoot enters the mount namespace of a process, as nsenter -m does, and reads a file there.
func enterRoot(q *lab.Q, pid proc.PID, name string) (root enteredRoot) {
	q.Helper()
	q.LogCommand("nsenter -t %d -m cat %s", pid, strings.TrimPrefix(name, q.Dir+"/"))
	namespace, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", pid))
	assert.NilError(q, err)
	defer namespace.Close()
	entered := lab.Go(func() error {
		runtime.LockOSThread() // and never unlocked: Go ends the thread with this goroutine
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			err = unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNS)
		}
		var stat unix.Stat_t
		if err == nil {
			err = unix.Stat("/", &stat)
		}
		root.inode = [2]uint64{stat.Dev, stat.Ino}
		if data, readErr := os.ReadFile(name); readErr == nil {
			root.text = strings.TrimSpace(string(data))
		}
		return err
	})
	assert.NilError(q, <-entered, "enter the mount namespace of process %d", pid)
	return root
}

// If NOTIFY_SOCKET is set, runc start returns when the program has reported READY=1 (sd_notify), or has ended and was reaped. Without the
// variable it returns without waiting for the program.
//
// systemd sets NOTIFY_SOCKET for a unit with Type=notify. The program cannot reach that socket. So runc create makes a directory, mounts
// it at /run/notify, and gives the program the path of a socket in it. runc start makes this socket and listens there. It passes on the
// line READY=1 of a message that begins with it, and nothing else: a program that sends "STATUS=up" and READY=1 in one message, in this
// order, is never ready. runc start then sends MAINPID with the pid of the program on the host. Since 1.2.0 it waits until systemd has
// read both messages, for up to 30 seconds. If the program never reports, runc start waits until the program ends. That happens when a
// script of such a unit calls runc for a program without sd_notify. Create and start need the same environment: start with
// NOTIFY_SOCKET fails if create did not have it. If only create had it, the program has the path of a socket that does not exist.
//
// Hint: read the program's environment and its mounts. Which process listens on the socket?
// Spec: https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html (runc's manual pages do not mention the variable)
// Kernel: https://man7.org/linux/man-pages/man7/unix.7.html, SCM_RIGHTS
func TestLifecycle_WhenDoesStartReturnForAProgramThatNotifies(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "When does start return for a program that notifies?")
	defer q.Recover()
	runc.SkipUnlessRunc(q, "the socket that it makes for the program")
	b := bundle.Busybox(q, "sleep", "3600")
	const inContainer = "/run/notify/notify.sock"

	q.Step("a service manager listens, and calls runc create with NOTIFY_SOCKET: runc makes a directory for another socket")
	manager := listenAsServiceManager(q)
	c := runc.Variant(q, b, "notifies")
	c.MustAfter(manager.export, "create")
	pid := c.PID()
	socket := filepath.Join(c.StateDir(), "notify", "notify.sock")
	assert.Check(q, file.Exists(filepath.Dir(socket)) && !file.Exists(socket), "create makes the directory of %s, and not the socket", socket)
	q.Fact("after create: socket exists", file.Exists(socket))

	q.Step("call runc start with NOTIFY_SOCKET: it makes the socket, the program runs, and start does not return")
	start := q.StartBackground("sh", "-c", manager.export+"; exec "+shellescape.QuoteCommand(c.Argv("start")))
	proc.WaitFor(q, proc.Runs(pid, "sleep"))
	p := proc.Snapshot(q, pid)
	proc.WaitFor(q, c.HasStatus(specs.StateRunning)) // start removes the FIFO after the program has begun
	mounted := check.TopMount(q, check.Mounts(q, p), filepath.Dir(inContainer))
	assert.Check(q, cmp.Contains(check.FlagsOf(mounted), "ro"), "flags of the mount of the socket")
	entry := strings.Join(slices.DeleteFunc(slices.Clone(p.Env), func(e string) bool { return !strings.HasPrefix(e, "NOTIFY_SOCKET=") }), " ")
	assert.Check(q, cmp.Equal(entry, "NOTIFY_SOCKET="+inContainer), "environment of the program")
	assert.Check(q, file.Exists(socket), "start has not made %s", socket)
	q.Fact("after start: socket exists", file.Exists(socket))
	q.Fact("program: entry in its environment", entry)
	q.Fact("mount at "+mounted.Mountpoint+": flags", check.FlagsOf(mounted))

	q.Step("the lab writes in place of the program, which is sleep: STATUS=loading, then STATUS and READY in one message, then READY=1. " +
		"runc passes on only the last one, and MAINPID")
	program, err := net.Dial("unixgram", fmt.Sprintf("/proc/%d/root%s", pid, inContainer))
	assert.NilError(q, err)
	defer program.Close()
	send := func(message string) {
		q.Helper()
		_, err := program.Write([]byte(message))
		assert.NilError(q, err)
		q.LogCommand("systemd-notify %s   # in the container", strings.ReplaceAll(message, "\n", " "))
	}
	send("STATUS=loading")
	c.State() // a start that does not wait would have returned in the time of another command
	assert.Check(q, !start.Ended(), "start has returned before the program was ready: %s", start.Stderr())
	// systemd reads the lines of a message in any order. runc (1.1.3 to 1.5.2) looks only at the beginning of the message. It passes on any
	// value of READY, so the value shows which message it has passed on.
	send("STATUS=up\nREADY=0")
	reported := time.Now()
	send("READY=1")
	ready, _ := manager.receive()
	assert.Check(q, ready == "READY=1" || ready == "READY=0", "first message to the service manager: %s", ready)
	mainPID, _ := manager.receive()
	name, ofProgram, _ := strings.Cut(mainPID, "=")
	assert.Check(q, cmp.DeepEqual([]string{name, ofProgram}, []string{"MAINPID", fmt.Sprint(pid)}),
		"second message to the service manager: the program's pid on the host")
	q.Fact("first message to the service manager", ready)
	q.Fact("READY in a message that begins with STATUS: passed on", ready == "READY=0")
	q.Fact("second message to the service manager: name and pid", []any{name, proc.PID(check.Int(q, ofProgram))})

	if runc.Knows(q, "read from synchronization pipe") { // its error message. runc sends BARRIER=1 since 1.2.0
		q.Step("runc waits until the service manager has read both: it sends a pipe, and waits until the manager closes it")
		barrier, pipe := manager.receive()
		assert.Check(q, cmp.Equal(barrier, "BARRIER=1"), "third message to the service manager")
		assert.Assert(q, pipe >= 0, "no descriptor comes with BARRIER=1")
		const patience = 20 * time.Second // runc itself waits for 30; a machine that stood still may be late
		c.State()                         // a start that does not wait would have returned meanwhile
		returned := start.Ended() && time.Since(reported) < patience
		assert.Check(q, !returned, "start has returned before the service manager has closed the pipe: %s", start.Stderr())
		assert.NilError(q, unix.Close(pipe))
		q.Fact("third message to the service manager", barrier)
	}
	code := start.ExitCode()
	assert.Check(q, cmp.Equal(code, 0), "exit code of start: %s", start.Stderr())
	q.Fact("READY=1: exit code of start", code)
	c.KillAndDelete(p)

	q.Control("a program that ends and never reports: start returns when the process was reaped, and sends nothing to the manager")
	endWithoutReport(q, b, manager)

	q.Control("start with NOTIFY_SOCKET of a container that was created without it: start fails, and the container stays created")
	plain := runc.Variant(q, b, "plain")
	plain.Create()
	refused := q.Exec("sh", "-c", manager.export+"; exec "+shellescape.QuoteCommand(plain.Argv("start")))
	assert.Check(q, refused.Code != 0, "start with NOTIFY_SOCKET, which create did not have:\n%s", refused)
	runc.AssertMessage(q, refused.Stderr, "bind: no such file or directory")
	assert.Check(q, cmp.Equal(plain.State().Status, specs.StateCreated))
	q.Fact("NOTIFY_SOCKET only for start: status after start", plain.State().Status)

	q.Control("without NOTIFY_SOCKET start returns at once, and the program has no socket")
	plainPID := plain.PID()
	plain.Start()
	proc.WaitFor(q, proc.Runs(plainPID, "sleep"))
	plainProcess := proc.Snapshot(q, plainPID)
	assertHasNoNotifySocket(q, plainProcess)
	plain.KillAndDelete(plainProcess)

	q.Answer("If runc has NOTIFY_SOCKET in its environment, it makes a socket for the program. Start returns when the program has written " +
		"READY=1 to it, or has ended. Without NOTIFY_SOCKET, start does not wait for the program.")
}

// serviceManager is the socket on which a service manager, such as systemd, waits for the messages of its services.
type serviceManager struct {
	*net.UnixConn
	q      *lab.Q
	export string // the shell command that puts NOTIFY_SOCKET into the environment of runc
}

// listenAsServiceManager makes the socket.
func listenAsServiceManager(q *lab.Q) *serviceManager {
	q.Helper()
	path := filepath.Join(q.Mkdir("manager"), "sock")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	assert.NilError(q, err)
	q.Cleanup(func() {
		socket.Close()
		file.Remove(q, path) // Close does not remove a datagram socket
	})
	return &serviceManager{socket, q, "export NOTIFY_SOCKET=" + shellescape.Quote(path)}
}

// receive returns the next message that the service manager receives, and the descriptor that comes with it, or -1.
func (m *serviceManager) receive() (message string, descriptor int) {
	m.q.Helper()
	text, control := make([]byte, 512), make([]byte, 512)
	assert.NilError(m.q, m.SetReadDeadline(time.Now().Add(proc.Patience)))
	n, controls, _, _, err := m.ReadMsgUnix(text, control)
	assert.NilError(m.q, err, "the service manager has received no message")
	parsed, err := unix.ParseSocketControlMessage(control[:controls])
	assert.NilError(m.q, err)
	descriptor = -1
	for _, c := range parsed {
		if fds, err := unix.ParseUnixRights(&c); err == nil && len(fds) == 1 {
			descriptor = fds[0]
		}
	}
	return strings.TrimSpace(string(text[:n])), descriptor
}

// assertHasNoNotifySocket asserts that a program has neither the variable nor the mount of a socket for its messages.
func assertHasNoNotifySocket(q *lab.Q, p proc.Process) {
	q.Helper()
	for _, entry := range p.Env {
		assert.Check(q, !strings.HasPrefix(entry, "NOTIFY_SOCKET"), "environment without NOTIFY_SOCKET of runc's caller: %s", entry)
	}
	outside := check.MountsOutside(check.Mounts(q, p), []string{"/proc", "/sys", "/dev"})
	assert.Check(q, cmp.Len(outside, 0), "mounts without NOTIFY_SOCKET")
	q.Fact("without NOTIFY_SOCKET: mounts outside of /proc, /sys and /dev", outside)
}

// endWithoutReport calls start for a program that writes nothing to its socket, and ends the program: start returns only then.
func endWithoutReport(q *lab.Q, b *bundle.Bundle, manager *serviceManager) {
	ending := runc.Variant(q, b, "ends")
	ending.MustAfter(manager.export, "create")
	endingPID := ending.PID()
	waiting := q.StartBackground("sh", "-c", manager.export+"; exec "+shellescape.QuoteCommand(ending.Argv("start")))
	proc.WaitFor(q, proc.Runs(endingPID, "sleep"))
	endingProcess := proc.Snapshot(q, endingPID)
	// Start removes the FIFO after the program has begun, and fails if delete is faster. One that does not wait would return meanwhile.
	proc.WaitFor(q, ending.HasStatus(specs.StateRunning))
	assert.Check(q, !waiting.Ended(), "start has returned before the program has ended: %s", waiting.Stderr())
	ending.KillAndDelete(endingProcess)
	proc.WaitFor(q, proc.Reaped(endingProcess.Identity)) // runc waits until /proc/PID is gone, and so for the parent
	code := waiting.ExitCode()
	assert.Check(q, cmp.Equal(code, 0), "exit code of start: %s", waiting.Stderr())
	q.Fact("program that ends and never reports: exit code of start", code)
	_, err := manager.WriteTo([]byte("LAB=1"), manager.LocalAddr()) // after all that runc has sent
	assert.NilError(q, err)
	next, _ := manager.receive()
	assert.Check(q, cmp.Equal(next, "LAB=1"), "the lab's own message to the service manager, after a program that never reports")
	q.Fact("program that ends and never reports: the service manager has received nothing", next == "LAB=1")
}
