//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
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

// Seccomp puts a filter before every system call. The filter decides by the call's number and arguments, and chooses the errno.
//
// The filter is a program that the runtime makes of the list in config.json and gives to the kernel. Child processes inherit it, and
// no process can remove it. A capability that allows the act does not help, because the kernel asks the filter first.
// The filter sees the registers and not the memory, so it can distinguish numbers, and not file names.
//
// Hint: read Seccomp and Seccomp_filters of /proc/PID/status; then make root do what it is allowed by its capabilities.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#seccomp
// Kernel: https://man7.org/linux/man-pages/man2/seccomp.2.html, https://docs.kernel.org/userspace-api/seccomp_filter.html
func TestBundle_WhichSystemCallsDoesSeccompLetThrough(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Which system calls does seccomp let through?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "3600")
	withCapabilities := func(s *specs.Spec) {
		all := []string{"CAP_SYS_ADMIN", "CAP_KILL", "CAP_FOWNER", "CAP_CHOWN"}
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Permitted: all, Effective: all}
	}
	rows := refusedCalls()

	q.Step("the list names the calls that fail: the filter lets every other call through")
	refuseRows := func(s *specs.Spec) {
		s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: seccomp.NativeArch()}
		for _, row := range rows {
			s.Linux.Seccomp.Syscalls = append(s.Linux.Seccomp.Syscalls, row.rule)
		}
	}
	refusingContainer, refusingShell, refusing := runc.StartWithShell(q, b, "refusing", bundle.ScratchAtTmp, withCapabilities, refuseRows)
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

	q.Step("an executed program has the same filter")
	ofConfig, ofFile := runc.ExecSleep(q, refusingContainer, "filtered"), *b.Spec.Process
	for how, pid := range map[string]proc.PID{
		"runc exec": ofConfig.PID, "runc exec --process": runc.ExecProcess(q, refusingContainer, &ofFile).PID,
	} {
		assert.Check(q, cmp.Equal(proc.Status(q, pid, "Seccomp"), "2"), "%s: Seccomp of /proc/PID/status", how)
		assert.Check(q, cmp.Equal(check.Int(q, proc.Status(q, pid, "Seccomp_filters"))-inherited, 1), "%s: number of filters", how)
	}
	executed := refusingContainer.Exec("sh", "-c", rows[0].command+" 2>&1")
	assert.Check(q, cmp.Contains(executed.Stdout, filterErrnoText), "runc exec, %s: %s", rows[0].covers[0], rows[0].command)
	q.Fact("an executed program: "+rows[0].command, check.LastLine(executed.Stdout))

	q.Step("the filter lets the same calls through if their arguments are others")
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
		q.Fact(row.covers[0], fmt.Sprintf("%s: exit code %d", row.command, r.Code))
	}

	q.Step("the list names the calls that the filter lets through: every other call fails")
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

	q.Run("flags", func(q *lab.Q) {
		q.Step("the flag SECCOMP_FILTER_FLAG_LOG stays with the filter, and a debugger can read it: it is the only flag that the kernel reports")
		checkFlagOfFilter(q, b, rows[0].rule, allowing.PID)
	})

	q.Control("without linux.seccomp, the same root does all of it")
	_, freeShell, free := runc.StartWithShell(q, b, "unfiltered", bundle.ScratchAtTmp, withCapabilities)
	assert.Check(q, cmp.Equal(proc.Status(q, free.PID, "Seccomp"), proc.Status(q, self, "Seccomp")), "the program's, and the lab's own")
	assert.Check(q, cmp.Equal(check.Int(q, proc.Status(q, free.PID, "Seccomp_filters")), inherited), "filters without linux.seccomp")
	for _, row := range rows {
		r := freeShell.Run(row.command)
		assert.Check(q, cmp.Equal(r.Code, 0), "%s fails without a filter: %s", row.command, r.Out)
		q.Fact("without a filter: "+row.command, fmt.Sprintf("exit code %d", r.Code))
		assert.Check(q, !strings.Contains(r.Out, row.output), "%s prints the same without a filter: %s", row.command, r.Out)
	}
	q.Fact("without linux.seccomp: Seccomp", proc.Status(q, free.PID, "Seccomp"))

	q.Answer("Seccomp lets through the calls that the list in config.json allows; it can also allow every call that the " +
		"list does not name. The filter sees the number and the arguments of a call, and chooses the errno.")
}

// The kernel never returns EXDEV by itself for the calls of refusedCalls: it comes from the filter.
const filterErrno, filterErrnoText = unix.EXDEV, "Invalid cross-device link"

// refusedCall is a rule of linux.seccomp.syscalls under which a system call fails, and a command that makes this call.
type refusedCall struct {
	covers  lab.Fields // the first one names the row
	what    string     // what the row shows
	rule    specs.LinuxSyscall
	command string
	output  string // what the command prints under the filter
}

// refusedCalls returns rules of linux.seccomp.syscalls. Each row shows what another field does.
func refusedCalls() []refusedCall {
	errno := new(uint(filterErrno))
	return []refusedCall{
		{lab.Fields{"linux.seccomp.syscalls[].errnoRet"}, "the errno given",
			specs.LinuxSyscall{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActErrno, ErrnoRet: errno},
			"mkdir /tmp/dir", filterErrnoText},
		{lab.Fields{"linux.seccomp.syscalls[].names"}, "EPERM where none is given",
			specs.LinuxSyscall{Names: []string{"chmod", "fchmodat", "fchmodat2"}, Action: specs.ActErrno},
			"chmod 700 /tmp", "Operation not permitted"},
		{lab.Fields{"linux.seccomp.syscalls[].action"}, "SIGSYS instead of an errno",
			specs.LinuxSyscall{Names: []string{"sethostname"}, Action: specs.ActKillProcess},
			"(hostname filtered; code=$?; echo status $code; exit $code)", fmt.Sprintf("status %d", 128+int(unix.SIGSYS))},
		{lab.Fields{"linux.seccomp.syscalls[].args[].value"}, "one signal of all",
			specs.LinuxSyscall{Names: []string{"kill"}, Action: specs.ActErrno, ErrnoRet: errno,
				Args: []specs.LinuxSeccompArg{{Index: 1, Value: uint64(unix.SIGWINCH), Op: specs.OpEqualTo}}},
			"/bin/kill -WINCH 1", filterErrnoText},
		{lab.Fields{"linux.seccomp.syscalls[].args[].valueTwo"}, "one bit of the flags: valueTwo, under the mask value",
			specs.LinuxSyscall{Names: []string{"unshare"}, Action: specs.ActErrno, ErrnoRet: errno,
				Args: []specs.LinuxSeccompArg{{Index: 0, Value: unix.CLONE_NEWUTS, ValueTwo: unix.CLONE_NEWUTS,
					Op: specs.OpMaskedEqual}}},
			"unshare -u true", filterErrnoText},
	}
}

// checkFlagOfFilter gives a filter the flag SECCOMP_FILTER_FLAG_LOG, and reads the flags as a debugger does. withoutFlag is a process
// whose filter has no flag.
func checkFlagOfFilter(q *lab.Q, b *bundle.Bundle, rule specs.LinuxSyscall, withoutFlag proc.PID) {
	c := runc.Variant(q, b, "logging", func(s *specs.Spec) {
		s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: seccomp.NativeArch(),
			Flags: []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog}, Syscalls: []specs.LinuxSyscall{rule}}
	})
	// runc 1.1 refuses all flags. Since 1.2.0, runc features lists those that runc and its libseccomp know.
	if r := c.Try("create"); r.Code != 0 && !runc.FeaturesHave(q, string(specs.LinuxSeccompFlagLog)) {
		runc.AssertMessage(q, r.Stderr, "flags")
		q.Fact("linux.seccomp.flags", "refused by this runtime: "+runc.LastLogMessage(r))
		q.Skip("this runtime does not know linux.seccomp.flags; to ask this with the pinned runc, leave out RUNC= and CDB_RUNC")
	} else {
		assert.Assert(q, cmp.Equal(r.Code, 0), "create with a flag that runc features lists:\n%s", r)
	}
	pid := c.PID()
	c.Start()
	proc.WaitFor(q, proc.Runs(pid, "sleep"))
	flags, err := seccomp.FilterFlags(pid)
	if err != nil {
		q.Skipf("the flags of a filter cannot be read on this kernel: %v; to ask this, boot Debian's kernel: make lab", err)
	}
	without, err := seccomp.FilterFlags(withoutFlag)
	assert.NilError(q, err)
	assert.Check(q, cmp.Equal(flags, uint64(unix.SECCOMP_FILTER_FLAG_LOG)), "linux.seccomp.flags: the filter's")
	// Without the field, runc sets SPEC_ALLOW where the kernel knows it. The kernel does not report that flag.
	assert.Check(q, cmp.Equal(without, uint64(0)), "the flags that the kernel reports of a filter without linux.seccomp.flags")
	q.Covers("linux.seccomp.flags")
	q.Fact("linux.seccomp.flags", []string{fmt.Sprintf("LOG with the field: %#x", flags), fmt.Sprintf("LOG without it: %#x", without)})
}

// An agent outside of the container, which listens on the socket linux.seccomp.listenerPath, decides about calls with the action
// SCMP_ACT_NOTIFY.
//
// At create, the runtime sends the agent the filter's notification descriptor, with a document about the container. From then on
// a system call of the list stops the caller until the agent responds: with an errno, with a value, or that the kernel may go on.
// In this way a container manager lets an unprivileged container mount a file system or make a device file: the manager does it for
// the container. "The kernel may go on" is no decision about security, because another thread can change the arguments in memory
// meanwhile (seccomp_unotify(2)). When the agent closes the descriptor, the calls fail as if the kernel did not have them.
//
// Hint: what does the caller sleep in meanwhile? Which process holds the descriptor, and what is it in /proc/PID/fd?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#containerprocessstate
// Kernel: https://man7.org/linux/man-pages/man2/seccomp_unotify.2.html
func TestBundle_WhoDecidesWhenSeccompAsks(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Who decides when seccomp asks?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "3600")
	socket := filepath.Join(q.Mkdir("agent"), "sock")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	assert.NilError(q, err)
	q.TB.Cleanup(func() { listener.Close() })

	q.Step("an agent listens, and the container is created: the runtime sends the agent a descriptor")
	c := runc.Variant(q, b, "asked", bundle.ScratchAtTmp, func(s *specs.Spec) {
		s.Linux.Seccomp = &specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow, Architectures: seccomp.NativeArch(), ListenerPath: socket, ListenerMetadata: "for the lab",
			Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActNotify}},
		}
	})
	sh := c.UseShell()
	if r := c.Try("create"); r.Code != 0 {
		// runc needs libseccomp 2.5 or newer for it, and lists the action only if it has that. crun 1.8 prints no features.
		assert.Assert(q, !runc.FeaturesHave(q, string(specs.ActNotify)), "runc features lists %s, and create fails:\n%s", specs.ActNotify, r)
		q.Skipf("this runtime cannot create a container with a seccomp listener: %s; to ask this, take the pinned runc (leave out RUNC= and "+
			"CDB_RUNC), built on a machine with libseccomp 2.5 or later: make deps tools", runc.LastLogMessage(r))
	}
	notifier, received := seccomp.ReceiveNotifier(q.TB, listener)
	init := proc.PID(received.Pid)
	assert.Check(q, cmp.Equal(proc.Snapshot(q, proc.PID(c.State().Pid)).PID, init))
	assert.Check(q, cmp.Equal(received.Metadata, "for the lab"))
	assert.Check(q, cmp.DeepEqual(received.Fds, []string{specs.SeccompFdName}))
	assert.Check(q, cmp.Equal(received.State.ID, c.ID))
	descriptor := proc.Self(q).FDs[notifier.FD]
	assert.Check(q, cmp.Equal(descriptor, "anon_inode:seccomp notify"), "descriptor that the runtime has sent to linux.seccomp.listenerPath")
	q.Covers("linux.seccomp.listenerPath", "linux.seccomp.listenerMetadata")
	q.Fact("linux.seccomp.listenerPath: received descriptor", descriptor)
	q.Fact("linux.seccomp.listenerMetadata", received.Metadata)
	q.Fact("document: pid of the container's process", init)
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
	q.Fact("caller: kernel function in which it sleeps", lab.Chance(proc.WaitChannel(q, caller)))
	notifier.Respond(q, notification.ID, -int32(unix.EXFULL), 0)
	r, err := sh.Receive()
	assert.NilError(q, err)
	assert.Check(q, cmp.Contains(r.Out, "Exchange full"))
	q.Fact("the agent responds with EXFULL: error of mkdir", r.Out)

	q.Step("the agent responds that the kernel may go on: the kernel makes the directory")
	sh.Send("mkdir /tmp/allowed")
	notifier.Respond(q, notifier.Receive(q).ID, 0, seccomp.Continue)
	r, err = sh.Receive()
	assert.NilError(q, err)
	assert.Check(q, cmp.Equal(r.Code, 0), r.Out)
	assert.Check(q, existsInContainer(init, "tmp/allowed"))
	q.Fact("the agent responds that the kernel may go on: exit code of mkdir", r.Code)

	q.Step("the agent closes its descriptor: the call fails as if the kernel did not have it")
	notifier.Close()
	r = sh.Run("mkdir /tmp/unanswered")
	assert.Check(q, cmp.Contains(r.Out, "Function not implemented"))
	q.Fact("the agent has closed the descriptor: error of mkdir", r.Out)

	q.Control("without the filter, mkdir succeeds without an agent")
	_, freeShell, _ := runc.StartWithShell(q, b, "free", bundle.ScratchAtTmp)
	r = freeShell.Run("mkdir /tmp/refused")
	assert.Check(q, cmp.Equal(r.Code, 0), r.Out)
	q.Fact("without the filter: exit code of mkdir", r.Code)

	q.Answer("The agent that listens at linux.seccomp.listenerPath decides about a call for which the filter asks. The caller waits for the " +
		"agent's response: an errno, a value, or that the kernel may go on.")
}

// The filter looks at the architecture of each call. It kills the thread whose call belongs to an architecture that is neither the
// machine's own nor in linux.seccomp.architectures, and so a program of one thread. It does so even if its rules allow all other calls.
//
// The kernel of one machine may offer several tables of system calls. The table belongs to the architecture of the call. Number 39 is
// getpid on x86_64, and mkdir on i386. A program of 64 bits may make the calls of i386 by `int 0x80`, which is the old entry for calls of
// 32 bits. x32 has the architecture of x86_64, and pointers of 32 bits: its calls differ in bit 30 of the number. So a rule about mkdir is
// a rule about another number for each architecture, and the runtime makes it only for those that are listed. The runtime always adds the
// native architecture to the list. If the filter did not look at the architecture, the other numbers would be a way around its rules.
// A program of several threads goes on without the killed thread, and often hangs.
//
// Hint: write a program that makes the same call by each entry to the kernel, and compare the exit codes. 159 is 128 + SIGSYS.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#seccomp (what happens to a call of another architecture
// is libseccomp's choice: its default is SCMP_ACT_KILL_THREAD)
// Kernel: https://man7.org/linux/man-pages/man2/seccomp.2.html, https://man7.org/linux/man-pages/man2/syscall.2.html
func TestBundle_DoesTheFilterSeeCallsOfAnotherArchitecture(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Does the filter see calls of another architecture?")
	defer q.Recover()
	if runtime.GOARCH != "amd64" {
		q.Skipf("the question's program is for amd64, and this machine is %s: ask it on an amd64 machine", runtime.GOARCH)
	}
	b := bundle.Busybox(q, "sleep", "3600")
	// mkdir(2) never returns EXDEV by itself.
	rule := specs.LinuxSyscall{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActErrno, ErrnoRet: new(uint(unix.EXDEV))}
	filter := func(architectures ...specs.Arch) func(*specs.Spec) {
		return func(s *specs.Spec) {
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: architectures,
				Syscalls: []specs.LinuxSyscall{rule}}
		}
	}
	const fails, killed = int(unix.EXDEV), 128 + int(unix.SIGSYS) // exit codes of the program in a shell
	const noCall, noEntry = int(unix.ENOSYS), 128 + int(unix.SIGSEGV)
	meaning := func(code int) string {
		return fmt.Sprintf("%d: %s", code, map[int]string{0: "it makes the directory", fails: "EXDEV, from the rule", killed: "killed by SIGSYS",
			noCall: "ENOSYS, the kernel has no such call", noEntry: "SIGSEGV, the kernel has no such entry",
			seccomp.ThreadSurvived: "only the thread is killed"}[code])
	}

	q.Step("write programs that call mkdir: by x86_64, by i386 and by x32. Each exits with the errno. One calls by x32 in a second thread")
	writeMkdirPrograms(q, b)

	q.Control("without a filter the program makes the directory")
	_, free, _ := runc.StartWithShell(q, b, "unfiltered", bundle.ScratchAtTmp)
	code := free.Run("/mkdir-x86_64").Code
	assert.Assert(q, cmp.Equal(code, 0), "mkdir by x86_64 without a filter")
	assert.Check(q, cmp.Equal(free.Run("ls /tmp").Out, "x86_64"), "directories without a filter")
	q.Fact("without a filter: exit code of mkdir by x86_64", meaning(code))

	q.Step("give a filter whose only rule is that mkdir fails, and no list of architectures: mkdir of x86_64 gets the errno, x32 is killed")
	_, native, _ := runc.StartWithShell(q, b, "native", bundle.ScratchAtTmp, filter())
	type exit struct {
		arch string
		want int
	}
	for _, by := range []exit{{"x86_64", fails}, {"x32", killed}} {
		code := native.Run("/mkdir-" + by.arch + " 2> /dev/null").Code
		assert.Check(q, cmp.Equal(code, by.want), "no architectures: exit code of mkdir by %s; %d is the rule's errno, %d is SIGSYS", by.arch,
			fails, killed)
		q.Fact("no architectures: exit code of mkdir by "+by.arch, meaning(code))
	}

	q.Step("make the call of x32 in a second thread: the filter kills only this thread, and the first one exits with its own code")
	code = native.Run("/mkdir-x32-in-a-thread").Code
	assert.Check(q, code == seccomp.ThreadSurvived || !runc.IsRunc(q) && code == killed,
		"exit code of a program whose second thread was killed: %s", meaning(code))
	assert.Check(q, cmp.Equal(native.Run("ls /tmp").Out, ""), "directories that the killed threads have made")
	q.Fact("no architectures: exit code of mkdir by x32 in a second thread", meaning(code))

	for _, row := range []struct {
		arch string
		name specs.Arch
	}{{"i386", specs.ArchX86}, {"x32", specs.ArchX32}} {
		q.Run(row.arch, func(q *lab.Q) {
			q.Control("without a filter, %s: the kernel makes the directory, or it does not have the call", row.arch)
			_, free, _ := runc.StartWithShell(q, b, row.arch+"-unfiltered", bundle.ScratchAtTmp)
			without := free.Run("/mkdir-" + row.arch + " 2> /dev/null").Code
			q.Fact("without a filter: exit code of mkdir by "+row.arch, meaning(without))
			if without == noEntry {
				// The filter runs only after the kernel has entered the call. For a number of x32 it always does.
				q.Skip("a program cannot enter this kernel by int 0x80: it has no CONFIG_IA32_EMULATION, ia32_emulation=0, or a processor " +
					"that does not support it. Ask it in the VM: make lab")
			}
			assert.Check(q, without == 0 || without == noCall, "exit code of mkdir by %s without a filter: %d", row.arch, without)
			for i, list := range []struct {
				title         string
				architectures []specs.Arch
				want          int
			}{
				{"not listed", []specs.Arch{specs.ArchX86_64}, killed},
				{"listed", []specs.Arch{specs.ArchX86_64, row.name}, fails},
				{"listed, and the runtime adds x86_64", []specs.Arch{row.name}, fails},
			} {
				q.Step("linux.seccomp.architectures %v: %s is %s", list.architectures, row.arch, list.title)
				_, sh, _ := runc.StartWithShell(q, b, fmt.Sprintf("%s-%d", row.arch, i), bundle.ScratchAtTmp,
					filter(list.architectures...))
				for _, by := range []exit{{row.arch, list.want}, {"x86_64", fails}} {
					code := sh.Run("/mkdir-" + by.arch + " 2> /dev/null").Code
					assert.Check(q, cmp.Equal(code, by.want), "architectures %v: exit code of mkdir by %s; %d is the rule's errno, %d is SIGSYS",
						list.architectures, by.arch, fails, killed)
					q.Fact(fmt.Sprintf("%s is %s: exit code of mkdir by %s", row.arch, list.title, by.arch), meaning(code))
				}
				assert.Check(q, cmp.Equal(sh.Run("ls /tmp").Out, ""), "directories that were made under the filter")
				q.Covers("linux.seccomp.architectures")
			}
		})
	}

	q.Answer("The filter looks at the architecture of each call. It kills the thread that makes a call of an architecture that is neither " +
		"the machine's own nor in linux.seccomp.architectures. For each one that is listed, the rules are about its own numbers.")
}

// writeMkdirPrograms writes programs into the rootfs that call mkdir, by another architecture each, or in a second thread. Each makes a
// directory below /tmp, and exits with the errno.
func writeMkdirPrograms(q *lab.Q, b *bundle.Bundle) {
	q.Helper()
	for _, call := range []struct {
		arch   string
		number uint32
		entry  seccomp.Entry
		make   func(seccomp.Entry, uint32, string) []byte
	}{
		{"x86_64", 83, seccomp.Syscall, seccomp.MkdirProgram}, // no SYS_MKDIR: it is the number of the architecture for which the lab is built
		{"i386", 39, seccomp.Int80, seccomp.MkdirProgram},
		{"x32", 83 | seccomp.X32, seccomp.Syscall, seccomp.MkdirProgram},
		{"x32-in-a-thread", 83 | seccomp.X32, seccomp.Syscall, seccomp.MkdirInThreadProgram},
	} {
		program := call.make(call.entry, call.number, "/tmp/"+call.arch)
		assert.NilError(q, os.WriteFile(b.Rootfs("mkdir-"+call.arch), program, 0o755))
		var octal strings.Builder
		for _, code := range program {
			fmt.Fprintf(&octal, `\%03o`, code)
		}
		into := "> bundle/rootfs/mkdir-" + call.arch + " && chmod 755 bundle/rootfs/mkdir-" + call.arch
		q.LogCommandAs(fmt.Sprintf("printf … %s   # number %#x, by the instruction % x", into, call.number, call.entry[:]),
			"printf '"+octal.String()+"' "+into)
	}
}
