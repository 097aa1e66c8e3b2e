//go:build linux && vmlab

package cdblab

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"cdblab/helpers/check"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/bundle"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// Seccomp puts a filter before every system call: by its number and by its arguments, and it decides the errno.
//
// The filter is a program that the runtime makes of the list in config.json and gives to the kernel, for good: it is
// inherited, and nobody takes it off. That a capability allows an act does not help, for the filter is asked first. It
// sees the registers and not the memory, so it can tell values apart and not file names.
//
// Hint: read Seccomp and Seccomp_filters of /proc/PID/status; then make root do what it is allowed by its capabilities.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#seccomp
// Kernel: https://man7.org/linux/man-pages/man2/seccomp.2.html, https://docs.kernel.org/userspace-api/seccomp_filter.html
func TestBundle_WhichSystemCallsDoesSeccompLetThrough(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Which system calls does seccomp let through?")
	b := bundle.Busybox(q, "sleep", "300")
	// An errno that the kernel never returns for these calls by itself: it comes from the filter.
	strange := uint(unix.EXDEV)
	powers := func(s *specs.Spec) {
		all := []string{"CAP_SYS_ADMIN", "CAP_KILL", "CAP_FOWNER", "CAP_CHOWN"}
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Permitted: all, Effective: all}
	}

	rows := []struct {
		field, what string
		rule        specs.LinuxSyscall
		act         string
		says        string // what comes of it under the filter
	}{
		{"linux.seccomp.syscalls[].errnoRet", "the errno given",
			specs.LinuxSyscall{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActErrno, ErrnoRet: &strange},
			"mkdir /tmp/dir", "Invalid cross-device link"},
		{"linux.seccomp.syscalls[].names", "EPERM where none is given",
			specs.LinuxSyscall{Names: []string{"chmod", "fchmodat", "fchmodat2"}, Action: specs.ActErrno},
			"chmod 700 /tmp", "Operation not permitted"},
		{"linux.seccomp.syscalls[].action", "SIGSYS instead of an errno",
			specs.LinuxSyscall{Names: []string{"sethostname"}, Action: specs.ActKillProcess},
			"hostname filtered; echo status $?", fmt.Sprintf("status %d", 128+int(unix.SIGSYS))},
		{"linux.seccomp.syscalls[].args[].value", "one signal of all",
			specs.LinuxSyscall{Names: []string{"kill"}, Action: specs.ActErrno, ErrnoRet: &strange,
				Args: []specs.LinuxSeccompArg{{Index: 1, Value: uint64(unix.SIGWINCH), Op: specs.OpEqualTo}}},
			"/bin/kill -WINCH 1", "Invalid cross-device link"},
		{"linux.seccomp.syscalls[].args[].valueTwo", "one bit of the flags: valueTwo, under the mask value",
			specs.LinuxSyscall{Names: []string{"unshare"}, Action: specs.ActErrno, ErrnoRet: &strange,
				Args: []specs.LinuxSeccompArg{{Index: 0, Value: unix.CLONE_NEWUTS, ValueTwo: unix.CLONE_NEWUTS,
					Op: specs.OpMaskedEqual}}},
			"unshare -u true", "Invalid cross-device link"},
	}

	q.Step("a list of what is refused: everything else is let through")
	refuse := func(s *specs.Spec) {
		s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: seccompArch()}
		for _, row := range rows {
			s.Linux.Seccomp.Syscalls = append(s.Linux.Seccomp.Syscalls, row.rule)
		}
	}
	_, sh, p := runc.StartWithShell(q, b, "refusing", bundle.ScratchAtTmp, powers, refuse)
	assert.Check(q, cmp.Equal(proc.Status(q, p.PID, "Seccomp"), "2"), "Seccomp of /proc/PID/status: 2 is a filter")
	assert.Check(q, cmp.Equal(proc.Status(q, p.PID, "Seccomp_filters"), "1"), "number of filters")
	q.Fact("Seccomp", proc.Status(q, p.PID, "Seccomp"))
	for _, row := range rows {
		r := sh.Run(row.act)
		assert.Check(q, cmp.Contains(r.Out, row.says), "%s: %s", row.field, row.act)
		q.Fact(row.field, row.what+": "+check.LastLine(r.Out))
	}

	q.Step("the same calls with other arguments are let through")
	for _, act := range []struct{ field, act string }{
		{"linux.seccomp.syscalls[].args[].index", "/bin/kill -URG 1"}, // the rule is about the second argument
		{"linux.seccomp.syscalls[].args[].op", "unshare -i true"},
	} {
		r := sh.Run(act.act)
		assert.Check(q, cmp.Equal(r.Code, 0), "%s: %s is refused too: %s", act.field, act.act, r.Out)
		q.Fact(act.field, act.act+" succeeds")
	}

	q.Step("a list of what is let through: everything else is refused")
	other := uint(unix.EXFULL)
	_, narrow, n := runc.StartWithShell(q, b, "allowing", bundle.ScratchAtTmp, powers, func(s *specs.Spec) {
		s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: &other,
			Architectures: seccompArch(),
			Syscalls:      []specs.LinuxSyscall{{Names: shellCalls, Action: specs.ActAllow}}}
	})
	assert.Check(q, cmp.Equal(proc.Status(q, n.PID, "Seccomp"), "2"), "Seccomp of /proc/PID/status: 2 is a filter")
	assert.Check(q, cmp.Equal(narrow.Run("echo yes").Out, "yes"))
	for _, act := range []string{"mkdir /tmp/dir", "mount -t tmpfs tmpfs /tmp", "chown 1 /tmp"} {
		r := narrow.Run(act)
		assert.Check(q, cmp.Contains(r.Out, "Exchange full"), "linux.seccomp.defaultErrnoRet: %s", act)
		q.Fact("linux.seccomp.defaultAction", check.LastLine(r.Out))
	}
	q.Fact("linux.seccomp.defaultErrnoRet", "EXFULL, which no file system ever says")

	q.Run("flags", func(q *lab.Q) {
		q.Step("a flag of seccomp(2) stays with the filter: only a debugger may ask for it")
		c := runc.Variant(q, b, "logging", func(s *specs.Spec) {
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: seccompArch(),
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
		flags, err := filterFlags(proc.PID(pid))
		if err != nil {
			q.Skipf("this kernel does not tell the flags of a filter: %v", err)
		}
		none, err := filterFlags(n.PID)
		assert.NilError(q, err)
		assert.Check(q, cmp.Equal(flags, uint64(unix.SECCOMP_FILTER_FLAG_LOG)), "linux.seccomp.flags: the filter's")
		assert.Check(q, cmp.Equal(none, uint64(0)), "without flags: the filter's")
		q.Fact("linux.seccomp.flags", []string{fmt.Sprintf("with: %#x", flags), fmt.Sprintf("without: %#x", none)})
	})

	q.Control("without linux.seccomp, the same root does all of it")
	_, free, f := runc.StartWithShell(q, b, "unfiltered", bundle.ScratchAtTmp, powers)
	assert.Check(q, cmp.Equal(proc.Status(q, f.PID, "Seccomp"), "0"))
	for _, row := range rows {
		r := free.Run(row.act)
		assert.Check(q, cmp.Equal(r.Code, 0), "%s fails without a filter: %s", row.act, r.Out)
		assert.Check(q, !strings.Contains(r.Out, row.says), "%s says the same without a filter: %s", row.act, r.Out)
	}
	q.Fact("without a filter", "all of it succeeds")

	q.Answer("Those that the list names, or does not name; the filter sees number and arguments, and chooses the errno.")
}

// filterFlags asks ptrace(2) for the flags of a process's first filter.
func filterFlags(pid proc.PID) (uint64, error) {
	runtime.LockOSThread() // a tracer is a thread
	defer runtime.UnlockOSThread()
	if err := unix.PtraceSeize(int(pid)); err != nil {
		return 0, fmt.Errorf("PTRACE_SEIZE: %w", err)
	}
	if err := unix.PtraceInterrupt(int(pid)); err != nil {
		return 0, fmt.Errorf("PTRACE_INTERRUPT: %w", err)
	}
	var status unix.WaitStatus
	if _, err := unix.Wait4(int(pid), &status, unix.WALL, nil); err != nil {
		return 0, fmt.Errorf("wait for the stop: %w", err)
	}
	var metadata struct{ filter, flags uint64 }
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SECCOMP_GET_METADATA, uintptr(pid),
		unsafe.Sizeof(metadata), uintptr(unsafe.Pointer(&metadata)), 0, 0)
	if err := unix.PtraceDetach(int(pid)); err != nil {
		return 0, fmt.Errorf("PTRACE_DETACH: %w", err)
	}
	if errno != 0 {
		return 0, fmt.Errorf("PTRACE_SECCOMP_GET_METADATA: %w", errno)
	}
	return metadata.flags, nil
}

// shellCalls is what a runtime's stand-in needs after it has loaded the filter, and the shell to run a program. A name
// that the machine's architecture does not have is left out by the runtime.
var shellCalls = strings.Fields(`access arch_prctl brk capget capset chdir clone clone3 close close_range dup dup2 dup3
	epoll_create1 epoll_ctl epoll_pwait eventfd2 execve execveat exit exit_group faccessat faccessat2 fchdir fcntl fstat fstatfs futex
	getcwd getdents64 getegid geteuid getgid getpgrp getpid getppid getrandom gettid getuid ioctl kill lseek lstat
	madvise mmap mprotect mremap munmap nanosleep clock_nanosleep clock_gettime newfstatat open openat openat2 pipe pipe2 poll ppoll
	prctl prlimit64 pread64 read readlink readlinkat readv restart_syscall rseq rt_sigaction rt_sigprocmask rt_sigreturn
	rt_sigsuspend sched_getaffinity sched_yield select pselect6 set_robust_list set_tid_address setgid setgroups setuid
	sigaltstack stat statx tgkill timer_create timer_delete timer_settime setitimer umask uname unlink unlinkat vfork
	wait4 waitid write writev pidfd_send_signal pidfd_open`)

// seccompArch names the machine's architecture as seccomp does.
func seccompArch() []specs.Arch {
	if arch, ok := map[string]specs.Arch{"amd64": specs.ArchX86_64, "arm64": specs.ArchAARCH64}[runtime.GOARCH]; ok {
		return []specs.Arch{arch}
	}
	return nil // the native one
}

// A program outside: whoever listens on the socket that config.json names is sent the filter's notification descriptor.
//
// The runtime sends it at create, with a document that says of which container it is. From then on a system call of the
// list stops the caller until the listener answers: with an errno, with a value, or that the kernel may go on. Container
// managers let an unprivileged container mount or make device files that way, by doing it for it. When the listener closes
// the descriptor, the calls fail as if the kernel did not have them.
//
// Hint: what does the caller sleep in meanwhile? Who holds the descriptor, and what is it in /proc/PID/fd?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#containerprocessstate
// Kernel: https://man7.org/linux/man-pages/man2/seccomp_unotify.2.html
func TestBundle_WhoDecidesWhenSeccompAsks(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Who decides when seccomp asks?")
	b := bundle.Busybox(q, "sleep", "300")
	socket := filepath.Join(q.Mkdir("agent"), "sock")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	assert.NilError(q, err)
	q.TB.Cleanup(func() { listener.Close() })

	q.Step("an agent listens; the runtime sends it a descriptor when the container is created")
	c := runc.Variant(q, b, "asked", bundle.ScratchAtTmp, func(s *specs.Spec) {
		s.Linux.Seccomp = &specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow, Architectures: seccompArch(), ListenerPath: socket, ListenerMetadata: "for the lab",
			Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActNotify}},
		}
	})
	sh := c.UseShell()
	if r := c.Try("create"); r.Code != 0 {
		assert.Assert(q, !q.UnderTest("runc").Pinned, "%s", r)
		q.Skipf("this runtime cannot: %s", runc.LastLogMessage(r))
	}
	agent, about := receiveNotifier(q, listener)
	q.TB.Cleanup(func() { agent.close() })
	assert.Check(q, cmp.Equal(proc.Snapshot(q, proc.PID(c.State().Pid)).PID, proc.PID(about.Pid)))
	assert.Check(q, cmp.Equal(about.Metadata, "for the lab"))
	assert.Check(q, cmp.DeepEqual(about.Fds, []string{specs.SeccompFdName}))
	assert.Check(q, cmp.Equal(about.State.ID, c.ID))
	assert.Check(q, cmp.Equal(proc.Self(q).FDs[agent.fd], "anon_inode:seccomp notify"), "what was received at linux.seccomp.listenerPath")
	q.Fact("linux.seccomp.listenerPath", "a descriptor, seccomp notify")
	q.Fact("linux.seccomp.listenerMetadata", about.Metadata)
	q.Fact("for the container's process", proc.PID(about.Pid))
	c.Start()
	proc.WaitFor(q, proc.Runs(proc.PID(about.Pid), "sh"))

	q.Step("the caller waits for the answer, and the answer is the agent's: an errno that no file system ever says")
	sh.Send("mkdir /tmp/refused")
	asked := agent.receive(q)
	assert.Check(q, cmp.Equal(proc.Snapshot(q, proc.PID(asked.pid)).Comm, "mkdir"), "who asks")
	assert.Check(q, !file.Exists(filepath.Join("/proc", fmt.Sprint(asked.pid), "root/tmp/refused")))
	q.Fact("meanwhile the caller sleeps in", lab.Chance(proc.WaitChannel(q, proc.PID(asked.pid))))
	agent.answer(q, asked.id, -int32(unix.EXFULL), 0)
	r, err := sh.Receive()
	assert.NilError(q, err)
	assert.Check(q, cmp.Contains(r.Out, "Exchange full"))
	q.Fact("the agent says EXFULL, mkdir says", r.Out)

	q.Step("… or that the kernel may go on")
	sh.Send("mkdir /tmp/allowed")
	asked = agent.receive(q)
	const goOn = 1 // SECCOMP_USER_NOTIF_FLAG_CONTINUE
	agent.answer(q, asked.id, 0, goOn)
	r, err = sh.Receive()
	assert.NilError(q, err)
	assert.Check(q, cmp.Equal(r.Code, 0), r.Out)
	assert.Check(q, file.Exists(filepath.Join("/proc", fmt.Sprint(about.Pid), "root/tmp/allowed")))
	q.Fact("the agent says go on, mkdir's exit code", r.Code)

	q.Step("an agent that goes away: the call is one that the kernel does not have")
	agent.close()
	r = sh.Run("mkdir /tmp/nobody")
	assert.Check(q, cmp.Contains(r.Out, "Function not implemented"))
	q.Fact("without an agent", r.Out)

	q.Control("without the filter nobody is asked")
	_, free, _ := runc.StartWithShell(q, b, "free", bundle.ScratchAtTmp)
	r = free.Run("mkdir /tmp/refused")
	assert.Check(q, cmp.Equal(r.Code, 0), r.Out)
	q.Fact("mkdir's exit code", r.Code)

	q.Answer("Whoever listens at the path in config.json: the caller waits, and the errno is the listener's.")
}

// notifier is the descriptor at which a filter's notifications are received (seccomp_unotify(2)).
type notifier struct{ fd int }

func (n *notifier) close() {
	if n.fd >= 0 {
		unix.Close(n.fd)
		n.fd = -1
	}
}

// receiveNotifier takes what the runtime sends to the agent's socket: the descriptor, and a document about the process.
func receiveNotifier(q *lab.Q, listener *net.UnixListener) (*notifier, specs.ContainerProcessState) {
	q.Helper()
	assert.NilError(q, listener.SetDeadline(time.Now().Add(proc.Patience)))
	conn, err := listener.AcceptUnix()
	assert.NilError(q, err, "nobody has come to linux.seccomp.listenerPath")
	defer conn.Close()
	data, oob := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := conn.ReadMsgUnix(data, oob)
	assert.NilError(q, err)
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	assert.NilError(q, err)
	assert.Assert(q, cmp.Len(messages, 1))
	fds, err := unix.ParseUnixRights(&messages[0])
	assert.NilError(q, err)
	unix.CloseOnExec(fds[0])
	var about specs.ContainerProcessState
	assert.NilError(q, json.Unmarshal(data[:n], &about), "%s", data[:n])
	return &notifier{fds[0]}, about
}

// notification is struct seccomp_notif.
type notification struct {
	id         uint64
	pid, flags uint32
	nr         int32
	arch       uint32
	ip         uint64
	args       [6]uint64
}

// receive waits until somebody asks.
func (n *notifier) receive(q *lab.Q) notification {
	q.Helper()
	ready, err := 0, error(unix.EINTR)
	for errors.Is(err, unix.EINTR) { // the Go runtime sends its threads signals of its own
		ready, err = unix.Poll([]unix.PollFd{{Fd: int32(n.fd), Events: unix.POLLIN}}, int(proc.Patience/time.Millisecond))
	}
	assert.Assert(q, err == nil && ready == 1, "nobody has asked within %v (%v)", proc.Patience, err)
	var asked notification
	const receive = 0xc0502100 // SECCOMP_IOCTL_NOTIF_RECV
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(n.fd), receive, uintptr(unsafe.Pointer(&asked)))
	assert.Assert(q, errno == 0, "SECCOMP_IOCTL_NOTIF_RECV: %v", errno)
	return asked
}

// answer ends the wait of who asked.
func (n *notifier) answer(q *lab.Q, id uint64, errno int32, flags uint32) {
	q.Helper()
	response := struct { // struct seccomp_notif_resp
		id    uint64
		val   int64
		errno int32
		flags uint32
	}{id, 0, errno, flags}
	const send = 0xc0182101 // SECCOMP_IOCTL_NOTIF_SEND
	_, _, err := unix.Syscall(unix.SYS_IOCTL, uintptr(n.fd), send, uintptr(unsafe.Pointer(&response)))
	assert.Assert(q, err == 0, "SECCOMP_IOCTL_NOTIF_SEND: %v", err)
}
