//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"net"
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
	"cdblab/helpers/seccomp"
)

// Seccomp puts a filter before every system call: by its number and by its arguments, and it decides the errno.
//
// The filter is a program that the runtime makes of the list in config.json and gives to the kernel, for good: it is
// inherited, and no process can take it off. That a capability allows an act does not help, for the filter is asked first.
// It sees the registers and not the memory, so it can tell values apart and not file names.
//
// Hint: read Seccomp and Seccomp_filters of /proc/PID/status; then make root do what it is allowed by its capabilities.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#seccomp
// Kernel: https://man7.org/linux/man-pages/man2/seccomp.2.html, https://docs.kernel.org/userspace-api/seccomp_filter.html
func TestBundle_WhichSystemCallsDoesSeccompLetThrough(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Which system calls does seccomp let through?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "300")
	// The kernel never returns EXDEV for these calls by itself: it comes from the filter.
	filterErrno := uint(unix.EXDEV)
	const filterErrnoText = "Invalid cross-device link"
	withCapabilities := func(s *specs.Spec) {
		all := []string{"CAP_SYS_ADMIN", "CAP_KILL", "CAP_FOWNER", "CAP_CHOWN"}
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Permitted: all, Effective: all}
	}

	rows := []struct {
		covers  lab.Fields // the first one names the row
		what    string
		rule    specs.LinuxSyscall
		command string
		output  string // what the command prints under the filter
	}{
		{lab.Fields{"linux.seccomp.syscalls[].errnoRet"}, "the errno given",
			specs.LinuxSyscall{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActErrno, ErrnoRet: &filterErrno},
			"mkdir /tmp/dir", filterErrnoText},
		{lab.Fields{"linux.seccomp.syscalls[].names"}, "EPERM where none is given",
			specs.LinuxSyscall{Names: []string{"chmod", "fchmodat", "fchmodat2"}, Action: specs.ActErrno},
			"chmod 700 /tmp", "Operation not permitted"},
		{lab.Fields{"linux.seccomp.syscalls[].action"}, "SIGSYS instead of an errno",
			specs.LinuxSyscall{Names: []string{"sethostname"}, Action: specs.ActKillProcess},
			"hostname filtered; echo status $?", fmt.Sprintf("status %d", 128+int(unix.SIGSYS))},
		{lab.Fields{"linux.seccomp.syscalls[].args[].value"}, "one signal of all",
			specs.LinuxSyscall{Names: []string{"kill"}, Action: specs.ActErrno, ErrnoRet: &filterErrno,
				Args: []specs.LinuxSeccompArg{{Index: 1, Value: uint64(unix.SIGWINCH), Op: specs.OpEqualTo}}},
			"/bin/kill -WINCH 1", filterErrnoText},
		{lab.Fields{"linux.seccomp.syscalls[].args[].valueTwo"}, "one bit of the flags: valueTwo, under the mask value",
			specs.LinuxSyscall{Names: []string{"unshare"}, Action: specs.ActErrno, ErrnoRet: &filterErrno,
				Args: []specs.LinuxSeccompArg{{Index: 0, Value: unix.CLONE_NEWUTS, ValueTwo: unix.CLONE_NEWUTS,
					Op: specs.OpMaskedEqual}}},
			"unshare -u true", filterErrnoText},
	}

	q.Step("a list of what is refused: everything else is let through")
	refuseRows := func(s *specs.Spec) {
		s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: seccomp.NativeArch()}
		for _, row := range rows {
			s.Linux.Seccomp.Syscalls = append(s.Linux.Seccomp.Syscalls, row.rule)
		}
	}
	_, refusingShell, refusing := runc.StartWithShell(q, b, "refusing", bundle.ScratchAtTmp, withCapabilities, refuseRows)
	assert.Check(q, cmp.Equal(proc.Status(q, refusing.PID, "Seccomp"), "2"), "Seccomp of /proc/PID/status: 2 is a filter")
	// Where the lab runs in a container itself, a filter of that container is there before, and each process inherits it.
	self := proc.Self(q).PID
	inherited := check.Int(q, proc.Status(q, self, "Seccomp_filters"))
	assert.Check(q, cmp.Equal(check.Int(q, proc.Status(q, refusing.PID, "Seccomp_filters"))-inherited, 1), "number of filters")
	q.Fact("Seccomp", proc.Status(q, refusing.PID, "Seccomp"))
	for _, row := range rows {
		r := refusingShell.Run(row.command)
		assert.Check(q, cmp.Contains(r.Out, row.output), "%s: %s", row.covers[0], row.command)
		q.Covers(row.covers...)
		q.Fact(row.covers[0], row.what+": "+check.LastLine(r.Out))
	}

	q.Step("the same calls with other arguments are let through")
	for _, row := range []struct {
		covers  lab.Fields
		command string
	}{
		{lab.Fields{"linux.seccomp.syscalls[].args[].index"}, "/bin/kill -URG 1"}, // the rule is about the second argument
		{lab.Fields{"linux.seccomp.syscalls[].args[].op"}, "unshare -i true"},
	} {
		r := refusingShell.Run(row.command)
		assert.Check(q, cmp.Equal(r.Code, 0), "%s: %s is refused too: %s", row.covers[0], row.command, r.Out)
		q.Covers(row.covers...)
		q.Fact(row.covers[0], row.command+" succeeds")
	}

	q.Step("a list of what is let through: everything else is refused")
	defaultErrno := uint(unix.EXFULL)
	allowShell := func(s *specs.Spec) {
		s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: &defaultErrno,
			Architectures: seccomp.NativeArch(),
			Syscalls:      []specs.LinuxSyscall{{Names: seccomp.ShellSyscalls, Action: specs.ActAllow}}}
	}
	_, allowingShell, allowing := runc.StartWithShell(q, b, "allowing", bundle.ScratchAtTmp, withCapabilities, allowShell)
	assert.Check(q, cmp.Equal(proc.Status(q, allowing.PID, "Seccomp"), "2"), "Seccomp of /proc/PID/status: 2 is a filter")
	assert.Check(q, cmp.Equal(allowingShell.Run("echo yes").Out, "yes"))
	for _, command := range []string{"mkdir /tmp/dir", "mount -t tmpfs tmpfs /tmp", "chown 1 /tmp"} {
		r := allowingShell.Run(command)
		assert.Check(q, cmp.Contains(r.Out, "Exchange full"), "linux.seccomp.defaultErrnoRet: %s", command)
		q.Fact("linux.seccomp.defaultAction: "+command, check.LastLine(r.Out))
	}
	q.Covers("linux.seccomp.defaultAction", "linux.seccomp.defaultErrnoRet")
	q.Fact("linux.seccomp.defaultErrnoRet", "EXFULL, which no file system ever says")

	q.Run("flags", func(q *lab.Q) {
		q.Step("a flag of seccomp(2) stays with the filter: only a debugger may ask for it")
		c := runc.Variant(q, b, "logging", func(s *specs.Spec) {
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: seccomp.NativeArch(),
				Flags: []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog}, Syscalls: []specs.LinuxSyscall{rows[0].rule}}
		})
		if r := c.Try("create"); r.Code != 0 {
			assert.Check(q, !q.UnderTest("runc").Pinned, "create fails:\n%s", r)
			q.Fact("linux.seccomp.flags", "refused by this runtime: "+runc.LastLogMessage(r))
			q.Skip("this runtime does not know linux.seccomp.flags")
		}
		pid := c.State().Pid
		c.Start()
		proc.WaitFor(q, proc.Runs(proc.PID(pid), "sleep"))
		flags, err := seccomp.FilterFlags(proc.PID(pid))
		if err != nil {
			q.Skipf("the flags of a filter cannot be read on this kernel: %v", err)
		}
		without, err := seccomp.FilterFlags(allowing.PID)
		assert.NilError(q, err)
		assert.Check(q, cmp.Equal(flags, uint64(unix.SECCOMP_FILTER_FLAG_LOG)), "linux.seccomp.flags: the filter's")
		assert.Check(q, cmp.Equal(without, uint64(0)), "without flags: the filter's")
		q.Covers("linux.seccomp.flags")
		q.Fact("linux.seccomp.flags", []string{fmt.Sprintf("with: %#x", flags), fmt.Sprintf("without: %#x", without)})
	})

	q.Control("without linux.seccomp, the same root does all of it")
	_, freeShell, free := runc.StartWithShell(q, b, "unfiltered", bundle.ScratchAtTmp, withCapabilities)
	assert.Check(q, cmp.Equal(proc.Status(q, free.PID, "Seccomp"), proc.Status(q, self, "Seccomp")), "the program's, and the lab's own")
	assert.Check(q, cmp.Equal(check.Int(q, proc.Status(q, free.PID, "Seccomp_filters")), inherited), "filters without linux.seccomp")
	for _, row := range rows {
		r := freeShell.Run(row.command)
		assert.Check(q, cmp.Equal(r.Code, 0), "%s fails without a filter: %s", row.command, r.Out)
		assert.Check(q, !strings.Contains(r.Out, row.output), "%s prints the same without a filter: %s", row.command, r.Out)
	}
	q.Fact("without a filter", "all of it succeeds")

	q.Answer("Those that the list names, or does not name; the filter sees number and arguments, and chooses the errno.")
}

// A program outside: an agent that listens on the socket that config.json names is sent the filter's notification
// descriptor.
//
// The runtime sends it at create, with a document that says of which container it is. From then on a system call of the
// list stops the caller until the agent responds: with an errno, with a value, or that the kernel may go on. Container
// managers let an unprivileged container mount or make device files that way, by doing it for it. When the agent closes
// the descriptor, the calls fail as if the kernel did not have them.
//
// Hint: what does the caller sleep in meanwhile? Which process holds the descriptor, and what is it in /proc/PID/fd?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#containerprocessstate
// Kernel: https://man7.org/linux/man-pages/man2/seccomp_unotify.2.html
func TestBundle_WhoDecidesWhenSeccompAsks(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Who decides when seccomp asks?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "300")
	socket := filepath.Join(q.Mkdir("agent"), "sock")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	assert.NilError(q, err)
	q.TB.Cleanup(func() { listener.Close() })

	q.Step("an agent listens; the runtime sends it a descriptor when the container is created")
	c := runc.Variant(q, b, "asked", bundle.ScratchAtTmp, func(s *specs.Spec) {
		s.Linux.Seccomp = &specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow, Architectures: seccomp.NativeArch(), ListenerPath: socket, ListenerMetadata: "for the lab",
			Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActNotify}},
		}
	})
	sh := c.UseShell()
	if r := c.Try("create"); r.Code != 0 {
		assert.Assert(q, !q.UnderTest("runc").Pinned, "%s", r)
		q.Skipf("this runtime cannot create a container with a seccomp listener: %s", runc.LastLogMessage(r))
	}
	notifier, received := seccomp.ReceiveNotifier(q.TB, listener)
	init := proc.PID(received.Pid)
	assert.Check(q, cmp.Equal(proc.Snapshot(q, proc.PID(c.State().Pid)).PID, init))
	assert.Check(q, cmp.Equal(received.Metadata, "for the lab"))
	assert.Check(q, cmp.DeepEqual(received.Fds, []string{specs.SeccompFdName}))
	assert.Check(q, cmp.Equal(received.State.ID, c.ID))
	assert.Check(q, cmp.Equal(proc.Self(q).FDs[notifier.FD], "anon_inode:seccomp notify"), "what was received at linux.seccomp.listenerPath")
	q.Covers("linux.seccomp.listenerPath", "linux.seccomp.listenerMetadata")
	q.Fact("linux.seccomp.listenerPath", "a descriptor, seccomp notify")
	q.Fact("linux.seccomp.listenerMetadata", received.Metadata)
	q.Fact("for the container's process", init)
	c.Start()
	proc.WaitFor(q, proc.Runs(init, "sh"))
	existsInContainer := func(pid proc.PID, path string) bool {
		return file.Exists(filepath.Join("/proc", fmt.Sprint(int(pid)), "root", path))
	}

	q.Step("the caller waits for the agent's response: an errno that no file system ever returns")
	sh.Send("mkdir /tmp/refused")
	notification := notifier.Receive(q)
	caller := proc.PID(notification.PID)
	assert.Check(q, cmp.Equal(proc.Snapshot(q, caller).Comm, "mkdir"), "the caller")
	assert.Check(q, !existsInContainer(caller, "tmp/refused"))
	q.Fact("meanwhile the caller sleeps in", lab.Chance(proc.WaitChannel(q, caller)))
	notifier.Respond(q, notification.ID, -int32(unix.EXFULL), 0)
	r, err := sh.Receive()
	assert.NilError(q, err)
	assert.Check(q, cmp.Contains(r.Out, "Exchange full"))
	q.Fact("the agent says EXFULL, mkdir says", r.Out)

	q.Step("… or that the kernel may go on")
	sh.Send("mkdir /tmp/allowed")
	notifier.Respond(q, notifier.Receive(q).ID, 0, seccomp.Continue)
	r, err = sh.Receive()
	assert.NilError(q, err)
	assert.Check(q, cmp.Equal(r.Code, 0), r.Out)
	assert.Check(q, existsInContainer(init, "tmp/allowed"))
	q.Fact("the agent says go on, mkdir's exit code", r.Code)

	q.Step("an agent that goes away: the call is one that the kernel does not have")
	notifier.Close()
	r = sh.Run("mkdir /tmp/nobody")
	assert.Check(q, cmp.Contains(r.Out, "Function not implemented"))
	q.Fact("without an agent", r.Out)

	q.Control("without the filter no agent is asked")
	_, freeShell, _ := runc.StartWithShell(q, b, "free", bundle.ScratchAtTmp)
	r = freeShell.Run("mkdir /tmp/refused")
	assert.Check(q, cmp.Equal(r.Code, 0), r.Out)
	q.Fact("mkdir's exit code", r.Code)

	q.Answer("The agent that listens at the path in config.json: the caller waits, and the errno is the agent's.")
}
