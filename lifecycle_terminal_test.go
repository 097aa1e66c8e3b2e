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
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/poll"

	"cdblab/helpers/bundle"
	"cdblab/helpers/check"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// `runc init` makes a pseudo terminal in the container. The slave stays there, and `runc init` sends the master to the caller: as a
// file descriptor, over a socket of the caller.
//
// The pseudo terminal is in the container's own devpts. The slave becomes the program's descriptors 0 to 2, its controlling terminal
// and /dev/console. runc connects to the caller's socket and passes the connection on, and `runc init` sends the master over it
// (SCM_RIGHTS). After that there is no runtime between the caller and the program. What is typed, ^C and a hangup go through the kernel
// alone. That holds for create, and for run and exec with --detach. In the foreground runc keeps the master itself, and copies between
// it and its own terminal. When the master is closed, the kernel sends SIGHUP to the session leader, which is the program. The kernel
// drops the signal if the program is pid 1 and has no handler.
//
// Hint: compare fields 6 to 8 of /proc/PID/stat and the links in /proc/PID/fd with and without process.terminal.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config.md#process
// Kernel: https://man7.org/linux/man-pages/man7/pty.7.html, https://man7.org/linux/man-pages/man4/tty_ioctl.4.html
func TestLifecycle_HowDoesTheTerminalReachTheCaller(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "How does the terminal reach the caller?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "3600")
	// The path of a socket has at most 107 bytes, so the sockets are in the question's directory, whose path is short.
	dir := q.Mkdir("console")
	withTerminal := func(s *specs.Spec) { s.Process.Terminal = true }

	q.Step("the caller listens on a socket, and create sends the master of a pseudo terminal to it")
	c := runc.Variant(q, b, "tty", withTerminal, func(s *specs.Spec) {
		s.Process.User.UID = 1000
		s.Process.ConsoleSize = &specs.Box{Height: 33, Width: 101}
	})
	sh := c.UseShell()
	terminal := c.CreateWithTerminal(filepath.Join(dir, "tty"))
	pid := c.PID()
	q.Fact("message with the descriptor", terminal.Message)
	index, err := unix.IoctlGetInt(terminal.FD, unix.TIOCGPTN)
	assert.NilError(q, err, "the descriptor is no master of a pseudo terminal")
	assert.Check(q, cmp.Equal(index, 0), "a devpts of its own begins with number 0")
	q.Fact("process.terminal", fmt.Sprintf("a master whose slave is /dev/pts/%d", index))

	q.Step("between create and start, the terminal has the size and the owner of config.json")
	slave := check.StatInRoot(q, pid, "/dev/pts/0")
	assertSizeAndOwner(q, c.Bundle.Spec.Process, terminal, slave)

	q.Step("start the container: the slave is /dev/console, and the controlling terminal of the program")
	c.Start()
	proc.WaitFor(q, proc.Runs(pid, "sh"))
	p := proc.Snapshot(q, pid)
	assert.Check(q, cmp.Equal(sh.Run("tty").Out, "/dev/pts/0"))
	assertControllingTerminal(q, pid, slave)

	q.Step("what the program writes to the slave is read from the master, and what is typed at the master is read from the slave")
	ends := terminalEnds{q, terminal, sh}
	ends.exchange()

	q.Step("the caller sets another size at the master: the program receives SIGWINCH, and reads the new size")
	ends.resize()

	q.Step("type ^C at the master: the kernel sends SIGINT to all processes of the foreground process group")
	ends.interrupt()

	q.Control("without the line discipline's isig, ^C is a byte like any other")
	ends.typeWithoutISIG()

	q.Control("a second container has another devpts, and its terminal has the number 0, too. Root owns it, and it has no size")
	secondContainer := runc.Variant(q, b, "second", withTerminal)
	second := secondContainer.CreateWithTerminal(filepath.Join(dir, "second"))
	assertAnotherDevpts(q, secondContainer.PID(), second, slave)

	q.Step("start a program that changes no descriptors: 0, 1 and 2 are the slave")
	secondContainer.Start()
	proc.WaitFor(q, proc.Runs(secondContainer.PID(), "sleep"))
	secondProcess := proc.Snapshot(q, secondContainer.PID())
	assert.Check(q, cmp.DeepEqual(secondProcess.FDs, map[int]string{0: "/dev/pts/0", 1: "/dev/pts/0", 2: "/dev/pts/0"}))
	q.Fact("descriptors", secondProcess.FDs)

	q.Step("exec --tty makes another terminal in the same devpts. It belongs to the executed program alone")
	execTerminal, executed := secondContainer.ExecWithTerminal(filepath.Join(dir, "exec"), "sleep", "3601")
	assertTerminalOfExec(q, executed, secondProcess)
	execTerminal.HangUp()
	proc.WaitFor(q, proc.Dead(executed.Identity)) // it is not pid 1, so SIGHUP ends it

	q.Step("close the master: the kernel sends SIGHUP to the session leader, and no process can open the terminal any more")
	ends.hangUp(pid)
	c.KillAndDelete(p)

	q.Step("close the master of a program without a handler that is pid 1: the kernel drops SIGHUP, and the program runs on …")
	second.HangUp()
	proc.WaitFor(q, proc.HasNoTerminal(secondProcess.PID))
	afterHangup := proc.Snapshot(q, secondProcess.PID)
	assert.Check(q, secondProcess.Same(afterHangup.Identity), "the hangup has ended pid 1, which has no handler")
	assert.Check(q, cmp.Equal(secondContainer.State().Status, specs.StateRunning))
	q.Fact("sleep as pid 1, after the hangup", secondContainer.State().Status)
	secondContainer.KillAndDelete(secondProcess)

	q.Control("… the same program in the host's pid namespace: SIGHUP ends it")
	onHost := runc.Variant(q, b, "pid", withTerminal, bundle.WithoutNamespace(specs.PIDNamespace))
	hangUpOnHost(q, onHost, filepath.Join(dir, "pid"))

	q.Control("without process.terminal the program has no terminal: its descriptors are those of the runtime's caller")
	plain := runc.Variant(q, b, "plain")
	plainProcess := plain.CreateAndStart()
	assertNoTerminal(q, plainProcess)
	plain.KillAndDelete(plainProcess)

	q.Control("create is refused with process.terminal and no console socket, and with a console socket and no process.terminal")
	runc.AssertCreateRefused(q, runc.Variant(q, b, "no-socket", withTerminal), "console socket")
	create := runc.Variant(q, b, "no-terminal").Try("create", "--console-socket", filepath.Join(dir, "tty"))
	assert.Check(q, create.Code != 0, "create with a console socket and no terminal succeeds:\n%s", create)
	assert.Check(q, cmp.Contains(runc.LastLogMessage(create), "console socket"))
	q.Fact("create with a console socket and no terminal: error", runc.LastLogMessage(create))

	q.Answer("With create or --detach, `runc init` sends the master of the terminal to the caller, as a file descriptor over the caller's " +
		"socket. The slave stays in the container, and between the two there is only the kernel.")
}

// `runc run` in the foreground holds the master of the container's terminal, and copies between it and its own terminal. It makes its
// own terminal raw, so that keys such as ^C become signals in the container only. It passes a new size on, and ends with the program's
// exit code.
//
// There are two pseudo terminals. The outer one is runc's: that of a shell, of ssh, or of a terminal emulator. runc clears its flags ECHO,
// ICANON and ISIG (cfmakeraw), because the line discipline of the inner terminal does this work. The size goes from the outer terminal to
// the inner one at the start, and again at each SIGWINCH that the kernel sends to runc. At its end runc restores the flags.
//
// If runc is killed, the outer terminal stays raw: `reset` mends it. And the kernel closes the master, so the program receives SIGHUP. Such
// a container is not deleted. A program that shall outlive its caller needs --detach, and a process that keeps the master. containerd's
// shim is such a process.
//
// Hint: `ls -l /proc/RUNC/fd`, tty-index in /proc/RUNC/fdinfo, and `stty -a` of runc's terminal from another terminal.
// Spec: https://github.com/opencontainers/runc/blob/main/docs/terminals.md#foreground
// Kernel: https://man7.org/linux/man-pages/man3/termios.3.html, https://man7.org/linux/man-pages/man7/pty.7.html
func TestLifecycle_WhatDoesRunDoWithItsOwnTerminal(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does `run` do with its own terminal?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "3600")
	withTerminal := func(s *specs.Spec) { s.Process.Terminal = true }

	q.Step("run a container in the foreground, on a terminal of 33 rows and 101 columns: runc holds the master of another terminal")
	c := runc.Variant(q, b, "run", withTerminal)
	sh := c.UseShell()
	outer, slave := runc.NewTerminal(q)
	outer.SetSize(33, 101)
	cooked := flagsOfTerminal(q, slave)
	run := q.StartOnTerminal(slave, c.Argv("run")...)
	assert.Check(q, cmp.Equal(sh.Run("tty").Out, "/dev/pts/0"))
	proc.WaitFor(q, isRaw(q, slave, "during the run")) // otherwise ^C would end runc
	p := c.Process()
	devpts := check.StatInRoot(q, p.PID, "/dev/pts").Dev
	masters := proc.Masters(q, run.PID(), devpts)
	assert.Check(q, cmp.DeepEqual(masters, []string{"0"}), "numbers of the terminals in the container's devpts of which runc has the master")
	assert.Check(q, cmp.Equal(proc.TTYNumber(q, p.PID), "136:0"), "controlling terminal of the program (tty_nr)")
	var stdin unix.Stat_t
	assert.NilError(q, unix.Stat(fmt.Sprintf("/proc/%d/fd/0", run.PID()), &stdin))
	assert.Check(q, stdin.Dev != devpts, "runc's own terminal is in the devpts of the container")
	q.Fact("runc: holds the master of", "/dev/pts/"+strings.Join(masters, " /dev/pts/"))
	q.Fact("runc: its own terminal is in the container's devpts", stdin.Dev == devpts)
	q.Fact("program: controlling terminal", proc.TTYNumber(q, p.PID))

	q.Step("look at runc's own terminal: it is raw, and before it was not")
	assert.Check(q, cmp.DeepEqual(cooked, []string{"ECHO", "ICANON", "ISIG"}), "flags of runc's terminal before the run")
	raw := flagsOfTerminal(q, slave)
	assert.Check(q, cmp.Len(raw, 0), "flags of runc's terminal during the run")
	q.Fact("runc's terminal before the run: flags", cooked)
	q.Fact("runc's terminal during the run: flags", raw)

	q.Step("the program's terminal has the size of runc's, also after a change: the program receives SIGWINCH")
	proc.WaitFor(q, proc.HasTerminalSize(p.PID, "33 101", 0))
	ends := terminalEnds{q, outer, sh}
	ends.resize()

	q.Step("type ^C at runc's terminal: the processes in the container receive SIGINT, and runc does not")
	ends.interrupt()
	assert.Check(q, !run.Ended(), "runc has ended")
	q.Fact("^C: runc has ended", run.Ended())

	q.Step("the program ends with 7: runc restores its terminal, deletes the container, and ends with 7")
	sh.Send("exit 7")
	code := run.ExitCode()
	assert.Check(q, cmp.Equal(code, 7), "exit code of runc run")
	restored := flagsOfTerminal(q, slave)
	assert.Check(q, cmp.DeepEqual(restored, cooked), "flags of runc's terminal after the run")
	assert.Check(q, !file.Exists(c.StateDir()), "run has left the state of the container: %s", c.StateDir())
	q.Fact("runc run: exit code", code)
	q.Fact("runc's terminal after the run: flags", restored)

	q.Step("kill runc: the kernel closes the master, and SIGHUP ends the program. runc's terminal stays raw, and the container remains")
	// In the host's pid namespace: SIGHUP ends no pid 1 that has no handler.
	orphaned := runc.Variant(q, b, "orphaned", withTerminal, bundle.WithoutNamespace(specs.PIDNamespace))
	_, slave = runc.NewTerminal(q)
	run = q.StartOnTerminal(slave, orphaned.Argv("run")...)
	proc.WaitFor(q, orphaned.HasStatus(specs.StateRunning))
	victim := orphaned.Process()
	proc.WaitFor(q, proc.Runs(victim.PID, "sleep"))
	proc.WaitFor(q, isRaw(q, slave, "before runc is killed"))
	run.Signal(unix.SIGKILL)
	run.ExitCode()
	proc.WaitFor(q, proc.Dead(victim.Identity))
	raw = flagsOfTerminal(q, slave)
	assert.Check(q, cmp.Len(raw, 0), "flags of runc's terminal after runc was killed")
	status := orphaned.State().Status
	assert.Check(q, cmp.Equal(status, specs.StateStopped))
	q.Fact("runc killed: its terminal: flags", raw)
	q.Fact("runc killed: status of the container", status)
	orphaned.Delete()

	q.Control("without process.terminal: the program has pipes, runc holds no master, and runc's terminal stays as it was")
	plain := runc.Variant(q, b, "plain")
	_, slave = runc.NewTerminal(q)
	run = q.StartOnTerminal(slave, plain.Argv("run")...)
	proc.WaitFor(q, plain.HasStatus(specs.StateRunning))
	plainProcess := plain.Process()
	proc.WaitFor(q, proc.Runs(plainProcess.PID, "sleep"))
	assert.Check(q, cmp.Equal(proc.TTYNumber(q, plainProcess.PID), "0:0"), "controlling terminal without process.terminal")
	assertHasPipes(q, plainProcess.PID)
	devpts = check.StatInRoot(q, plainProcess.PID, "/dev/pts").Dev
	masters = proc.Masters(q, run.PID(), devpts)
	assert.Check(q, cmp.Len(masters, 0), "masters of runc without process.terminal")
	assert.Check(q, cmp.DeepEqual(flagsOfTerminal(q, slave), cooked), "flags of runc's terminal without process.terminal")
	q.Fact("without process.terminal: controlling terminal of the program", proc.TTYNumber(q, plainProcess.PID))
	q.Fact("without process.terminal: runc's terminal: flags", flagsOfTerminal(q, slave))
	plain.Kill("KILL")
	killed := run.ExitCode()
	assert.Check(q, cmp.Equal(killed, 128+int(unix.SIGKILL)), "exit code of runc run after KILL of the program")
	q.Fact("without process.terminal: exit code of runc after KILL of the program", killed)

	q.Answer("In the foreground, `runc run` holds the master of the container's terminal, and copies between it and its own terminal, which " +
		"it makes raw. So ^C becomes a signal in the container only. It passes a new size on, ends with the program's exit code, and " +
		"restores its terminal.")
}

// assertHasPipes asserts that the open files of a process are its stdin, stdout and stderr, and that each is a pipe.
func assertHasPipes(q *lab.Q, pid proc.PID) {
	q.Helper()
	open := proc.Snapshot(q, pid).FDs
	assert.Check(q, cmp.DeepEqual(slices.Sorted(maps.Keys(open)), []int{0, 1, 2}), "descriptors without process.terminal: %v", open)
	for fd, target := range open {
		assert.Check(q, strings.HasPrefix(target, "pipe:"), "descriptor %d without process.terminal is %s", fd, target)
	}
}

// flagsOfTerminal returns which of three flags of a terminal are set: it echoes, it collects lines, and it turns keys into signals
// (termios(3)).
func flagsOfTerminal(q *lab.Q, slave *os.File) []string {
	q.Helper()
	termios, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	assert.NilError(q, err)
	flags := []string{}
	for _, flag := range []struct {
		name string
		bit  uint32
	}{{"ECHO", unix.ECHO}, {"ICANON", unix.ICANON}, {"ISIG", unix.ISIG}} {
		if termios.Lflag&flag.bit != 0 {
			flags = append(flags, flag.name)
		}
	}
	return flags
}

// isRaw returns a check that succeeds when runc has made its terminal raw. `runc run` receives the master and does so beside the start of
// the program, which may run earlier.
func isRaw(q *lab.Q, slave *os.File, when string) poll.Check {
	return func(poll.LogT) poll.Result {
		if flags := flagsOfTerminal(q, slave); len(flags) > 0 {
			return poll.Continue("flags of runc's terminal %s: %v, want none", when, flags)
		}
		return poll.Success()
	}
}

// assertSizeAndOwner asserts that a terminal has the size of config.json, and that its slave has the owner of config.json.
func assertSizeAndOwner(q *lab.Q, config *specs.Process, terminal *runc.Terminal, slave *syscall.Stat_t) {
	size, err := unix.IoctlGetWinsize(terminal.FD, unix.TIOCGWINSZ)
	assert.NilError(q, err)
	for _, row := range []struct {
		field     string
		got, want any
	}{
		{"process.consoleSize.height", int(size.Row), int(config.ConsoleSize.Height)},
		{"process.consoleSize.width", int(size.Col), int(config.ConsoleSize.Width)},
		{"process.user.uid", int(slave.Uid), int(config.User.UID)}, // owner of the slave
	} {
		assert.Check(q, cmp.Equal(row.got, row.want), "%s, as the kernel shows it", row.field)
		q.Fact(row.field, row.got)
	}
	q.Covers("process.consoleSize.height", "process.consoleSize.width")
	// config.json mounts the devpts with the options gid=5 and mode=0620.
	attributes := fmt.Sprintf("uid %d gid %d mode %04o", slave.Uid, slave.Gid, slave.Mode&0o7777)
	assert.Check(q, cmp.Equal(attributes, "uid 1000 gid 5 mode 0620"), "owner and mode of the slave, /dev/pts/0")
	q.Fact("/dev/pts/0", attributes)
}

// assertControllingTerminal asserts that the slave is /dev/console in the container, and the controlling terminal of the process, which
// is a session leader in the foreground.
func assertControllingTerminal(q *lab.Q, pid proc.PID, slave *syscall.Stat_t) {
	console := check.StatInRoot(q, pid, "/dev/console")
	sameFile := console.Dev == slave.Dev && console.Ino == slave.Ino
	assert.Check(q, sameFile, "/dev/console is another file than /dev/pts/0: %+v", console)
	q.Fact("/dev/console is the same file as /dev/pts/0", sameFile)
	stat := proc.Stat(q, pid)
	assert.Check(q, cmp.Equal(proc.PID(stat.Session), pid), "it is no session leader")
	assert.Check(q, cmp.Equal(stat.TPGID, stat.PGRP), "its process group is not in the foreground")
	ttyNumber := proc.TTYNumber(q, pid)
	assert.Check(q, cmp.Equal(ttyNumber, "136:0"), "its controlling terminal (tty_nr)")
	q.Covers("process.terminal")
	q.Fact("session leader", proc.PID(stat.Session) == pid)
	q.Fact("controlling terminal", ttyNumber)
}

// terminalEnds are the two ends of a container's terminal: the caller has the master, and a shell in the container uses the slave. The
// shell is the session leader.
type terminalEnds struct {
	q      *lab.Q
	master *runc.Terminal
	sh     *runc.Shell
}

// Programs that the shell runs. Each writes "ready" to its terminal, and waits for one thing. They loop and do not sleep: a shell runs
// traps between commands, so a loop misses no signal.
const (
	printSizeOnWINCH = `sh -c 'trap "stty size; exit 9" WINCH; echo ready > /dev/tty; while :; do :; done'`
	endOnINT         = `sh -c 'trap "echo interrupted; exit 7" INT; echo ready > /dev/tty; while :; do :; done'`
	printKeyAsBytes  = "stty -isig; echo ready > /dev/tty; read -r line; stty isig; echo $line | od -An -tx1"
	// It ends with 8 on SIGHUP. Without a signal it prints "lost" when it can open the terminal no more.
	waitForHangup = `sh -c 'trap "exit 8" HUP; echo ready > /dev/tty; while (: < /dev/tty) 2> /dev/null; do :; done; echo lost'`
)

// receiveReply returns what the command printed that was sent to the shell last, and its exit code.
func (e terminalEnds) receiveReply() runc.Reply {
	e.q.Helper()
	reply, err := e.sh.Receive()
	assert.NilError(e.q, err, "the shell in the container did not answer; it printed %q", reply.Out)
	return reply
}

// exchange writes at the slave and reads at the master, and types at the master and reads at the slave.
func (e terminalEnds) exchange() {
	assert.Check(e.q, cmp.Equal(e.sh.Run("echo hello > /dev/tty").Code, 0))
	written := e.master.ReadUntil("hello\r\n")
	e.q.Fact("written: hello\\n; read at the master", strconv.Quote(written))
	e.sh.Send("read -r line; echo got $line")
	e.master.Type("typed\n")
	readLine := e.receiveReply().Out
	assert.Check(e.q, cmp.Equal(readLine, "got typed"))
	e.q.Fact("typed; read by the program", readLine)
	echo := e.master.ReadUntil("typed\r\n")
	e.q.Fact("echoed by the line discipline", strconv.Quote(echo))
}

// resize sets another size at the master, by ioctl(2).
func (e terminalEnds) resize() {
	assert.Check(e.q, cmp.Equal(e.sh.Run("stty size").Out, "33 101"))
	e.sh.Send(printSizeOnWINCH)
	e.master.ReadUntil("ready\r\n")
	e.master.SetSize(44, 202)
	resized := e.receiveReply()
	assert.Check(e.q, cmp.Equal(resized, runc.Reply{Out: "44 202", Code: 9}))
	e.q.Fact("size after TIOCSWINSZ at the master, read by the program", resized.Out)
}

// interrupt types ^C at the master.
func (e terminalEnds) interrupt() {
	// The shell in the container is in the foreground group, too. Without a trap it would end.
	assert.Check(e.q, cmp.Equal(e.sh.Run("trap 'interrupted=also' INT").Code, 0))
	e.sh.Send(endOnINT)
	e.master.ReadUntil("ready\r\n")
	e.master.Type("\x03")
	interrupted, leaderToo := e.receiveReply(), e.sh.Run("echo $interrupted").Out
	assert.Check(e.q, cmp.Equal(interrupted, runc.Reply{Out: "interrupted", Code: 7}))
	assert.Check(e.q, cmp.Equal(leaderToo, "also"), "the session leader got no SIGINT")
	e.q.Fact("^C: what the handlers of the child and of the session leader write", []string{interrupted.Out, leaderToo})
}

// typeWithoutISIG types ^C at the master, after a program has cleared isig of the terminal.
func (e terminalEnds) typeWithoutISIG() {
	e.sh.Send(printKeyAsBytes)
	e.master.ReadUntil("ready\r\n")
	e.master.Type("\x03\n")
	key := e.receiveReply().Out
	assert.Check(e.q, cmp.Equal(key, "03 0a"))
	e.q.Fact("^C read by the program", key)
}

// hangUp closes the master. The pid is that of the shell, on the host.
func (e terminalEnds) hangUp(pid proc.PID) {
	assert.Check(e.q, cmp.Equal(e.sh.Run("trap 'hung=up' HUP").Code, 0))
	e.sh.Send(waitForHangup)
	e.master.ReadUntil("ready\r\n")
	e.master.HangUp()
	child := e.receiveReply()
	assert.Check(e.q, cmp.Equal(child, runc.Reply{Out: "lost"}), "the leader's child in the foreground group; exit code 8 is SIGHUP")
	e.q.Fact("the leader's child, in the foreground, writes", child.Out)
	hung := e.sh.Run("echo $hung").Out
	assert.Check(e.q, cmp.Equal(hung, "up"), "the session leader got no SIGHUP")
	e.q.Fact("the session leader's handler of SIGHUP writes", hung)
	proc.WaitFor(e.q, proc.HasNoTerminal(pid))
	e.q.Fact("controlling terminal afterwards", proc.Stat(e.q, pid).TTY)
	for _, device := range []string{"/dev/tty", "/dev/console"} { // the controlling terminal, and the slave by its name
		open := e.sh.Run("echo > " + device)
		assert.Check(e.q, open.Code != 0, "the program can still open %s", device)
		e.q.Fact("open of "+device+" afterwards", open.Out)
	}
}

// assertAnotherDevpts asserts that the terminal of the second container has the same number as the slave of the first one, in another
// devpts. Its config.json names neither a user nor a size.
func assertAnotherDevpts(q *lab.Q, secondPID proc.PID, second *runc.Terminal, slave *syscall.Stat_t) {
	secondSlave := check.StatInRoot(q, secondPID, "/dev/pts/0")
	assert.Check(q, secondSlave.Dev != slave.Dev, "both containers have the devpts of device %d", secondSlave.Dev)
	assert.Check(q, cmp.Equal(int(secondSlave.Uid), 0), "owner of the second slave")
	assert.Check(q, cmp.Equal(secondSlave.Rdev, slave.Rdev), "number of the second slave")
	var hostDevpts unix.Stat_t
	if err := unix.Stat("/dev/pts", &hostDevpts); err == nil {
		assert.Check(q, uint64(hostDevpts.Dev) != slave.Dev, "the container has the host's devpts")
	}
	size, err := unix.IoctlGetWinsize(second.FD, unix.TIOCGWINSZ)
	assert.NilError(q, err)
	assert.Check(q, cmp.DeepEqual(*size, unix.Winsize{}), "size of the second terminal")
	sameNumber, sameDevpts := secondSlave.Rdev == slave.Rdev, secondSlave.Dev == slave.Dev
	q.Fact("the terminals of both containers: same device number, same devpts", []bool{sameNumber, sameDevpts})
	q.Fact("size without process.consoleSize", fmt.Sprint(size.Row, " ", size.Col))
}

// assertTerminalOfExec asserts that the executed program has the second terminal of the container's devpts, and that the first program
// has the descriptors from before.
func assertTerminalOfExec(q *lab.Q, executed, before proc.Process) {
	assert.Check(q, cmp.DeepEqual(executed.FDs, map[int]string{0: "/dev/pts/1", 1: "/dev/pts/1", 2: "/dev/pts/1"}))
	execStat := proc.Stat(q, executed.PID)
	execTTY := fmt.Sprintf("%d:%d", unix.Major(uint64(execStat.TTY)), unix.Minor(uint64(execStat.TTY)))
	assert.Check(q, cmp.Equal(execTTY, "136:1"), "the controlling terminal of the executed program (tty_nr)")
	assert.Check(q, cmp.Equal(proc.PID(execStat.Session), executed.PID), "the executed program is no session leader")
	first := proc.Snapshot(q, before.PID)
	assert.Check(q, cmp.DeepEqual(first.FDs, before.FDs), "descriptors of the first program, after the exec")
	q.Fact("exec --tty: descriptors and controlling terminal", []any{executed.FDs, execTTY})
}

// hangUpOnHost starts a container in the host's pid namespace, whose program has no handler for SIGHUP, and closes the master.
func hangUpOnHost(q *lab.Q, c *runc.Container, socket string) {
	terminal := c.CreateWithTerminal(socket)
	c.Start()
	proc.WaitFor(q, proc.Runs(c.PID(), "sleep"))
	p := proc.Snapshot(q, c.PID())
	terminal.HangUp()
	proc.WaitFor(q, proc.Dead(p.Identity))
	assert.Check(q, cmp.Equal(c.State().Status, specs.StateStopped))
	q.Fact("sleep in the host's pid namespace, after the hangup", c.State().Status)
	c.Delete()
}

// assertNoTerminal asserts that a process has no terminal, and has the descriptors that the lab gave to the runtime.
func assertNoTerminal(q *lab.Q, p proc.Process) {
	stat := proc.Stat(q, p.PID)
	assert.Check(q, cmp.Equal(stat.TTY, 0), "tty_nr without a terminal")
	assert.Check(q, cmp.Equal(proc.PID(stat.Session), p.PID), "a session leader also without a terminal")
	inherited := []string{p.FDs[0], p.FDs[1], p.FDs[2]}
	assert.Check(q, !strings.Contains(strings.Join(inherited, " "), "pts"), "a descriptor is a terminal: %q", inherited)
	assert.Check(q, cmp.Contains(inherited[1], "memfd:stdout"), "it is not the file that the lab gave as stdout")
	hasConsole := file.Exists(fmt.Sprintf("/proc/%d/root/dev/console", p.PID))
	assert.Check(q, !hasConsole, "there is a /dev/console")
	q.Fact("without process.terminal: controlling terminal", stat.TTY)
	q.Fact("without process.terminal: descriptors 0 1 2", inherited)
	q.Fact("without process.terminal: /dev/console exists", hasConsole)
}
