//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"cdblab/helpers/check"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/bundle"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// The terminal is made in the container, and its other end is handed out: as a descriptor, over a socket of the caller's.
//
// The stand-in opens a pseudo terminal of the container's own devpts, makes the slave the program's descriptors 0 to 2,
// its controlling terminal and /dev/console, and sends the master by SCM_RIGHTS. From then on there is no runtime between
// caller and program: line discipline, ^C and hangup are the kernel's. Who closes the master hangs up: SIGHUP goes to the session leader, and
// that is the program; as pid 1 of its namespace it only notices if it has a handler.
//
// Hint: compare fields 6 to 8 of /proc/PID/stat and the links in /proc/PID/fd with and without process.terminal.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config.md#process
// Kernel: https://man7.org/linux/man-pages/man7/pty.7.html, https://man7.org/linux/man-pages/man4/tty_ioctl.4.html
func TestLifecycle_HowDoesTheTerminalReachTheCaller(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "How does the terminal reach the caller?")
	b := bundle.Busybox(q, "sleep", "300")
	// A socket's name has at most 107 bytes; the question's directory is short.
	dir := q.Mkdir("console")
	terminal := func(s *specs.Spec) { s.Process.Terminal = true }

	q.Step("the caller listens on a socket; create sends the master of a pseudo terminal there")
	c := runc.Variant(q, b, "tty", terminal, func(s *specs.Spec) {
		s.Process.User.UID = 1000
		s.Process.ConsoleSize = &specs.Box{Height: 33, Width: 101}
	})
	sh := c.UseShell()
	typist := createWithTerminal(q, c, filepath.Join(dir, "tty"))
	pid := c.State().Pid
	q.Fact("message with the descriptor", typist.message)
	index, err := unix.IoctlGetInt(typist.fd, unix.TIOCGPTN)
	assert.NilError(q, err, "the descriptor is no master of a pseudo terminal")
	assert.Check(q, cmp.Equal(index, 0), "a devpts of its own begins with number 0")
	q.Fact("process.terminal", fmt.Sprintf("a master whose slave is /dev/pts/%d", index))

	q.Step("before start the size and the owner are what config.json says")
	size, err := unix.IoctlGetWinsize(typist.fd, unix.TIOCGWINSZ)
	assert.NilError(q, err)
	slave := check.StatInRoot(q, proc.PID(pid), "/dev/pts/0")
	for _, row := range []struct {
		field     string
		got, want any
	}{
		{"process.consoleSize.height", int(size.Row), int(c.Bundle.Spec.Process.ConsoleSize.Height)},
		{"process.consoleSize.width", int(size.Col), int(c.Bundle.Spec.Process.ConsoleSize.Width)},
		{"process.user.uid", int(slave.Uid), int(c.Bundle.Spec.Process.User.UID)}, // who owns the slave
	} {
		assert.Check(q, cmp.Equal(row.got, row.want), "what the kernel's terminal has of %s", row.field)
		q.Fact(row.field, row.got)
	}
	q.Fact("/dev/pts/0", fmt.Sprintf("uid %d gid %d mode %04o", slave.Uid, slave.Gid, slave.Mode&0o7777))

	q.Step("process.terminal: the slave is /dev/console and the controlling terminal")
	c.Start()
	proc.WaitFor(q, proc.Runs(proc.PID(pid), "sh"))
	p := proc.Snapshot(q, proc.PID(pid))
	assert.Check(q, cmp.Equal(sh.Run("tty").Out, "/dev/pts/0"))
	console := check.StatInRoot(q, proc.PID(pid), "/dev/console")
	assert.Check(q, console.Dev == slave.Dev && console.Ino == slave.Ino, "/dev/console is another file than /dev/pts/0: %+v", console)
	q.Fact("/dev/console", "the same inode as /dev/pts/0")
	now := proc.Stat(q, proc.PID(pid))
	assert.Check(q, cmp.Equal(now.Session, pid), "it is no session leader")
	assert.Check(q, cmp.Equal(now.TPGID, now.PGRP), "its process group is not in the foreground")
	assert.Check(q, cmp.Equal(ttyNumber(now), "136:0"), "its controlling terminal (tty_nr)")
	q.Fact("session leader", now.Session == pid)
	q.Fact("controlling terminal", ttyNumber(now))

	q.Step("what the program writes appears at the master; what is typed there arrives")
	assert.Check(q, cmp.Equal(sh.Run("echo hello > /dev/tty").Code, 0))
	written := typist.until("hello\r\n")
	q.Fact("written: hello\\n; read at the master", strconv.Quote(written))
	sh.Send("read -r line; echo got $line")
	typist.types("typed\n")
	got := answered(q, sh)
	assert.Check(q, cmp.Equal(got.Out, "got typed"))
	q.Fact("typed; read by the program", got.Out)
	echo := typist.until("typed\r\n")
	q.Fact("echoed by the line discipline", strconv.Quote(echo))

	q.Step("a size set at the master is the program's: SIGWINCH tells it")
	assert.Check(q, cmp.Equal(sh.Run("stty size").Out, "33 101"))
	sh.Send(`sh -c 'trap "stty size; exit 9" WINCH; echo ready > /dev/tty; while :; do :; done'`)
	typist.until("ready\r\n")
	assert.NilError(q, unix.IoctlSetWinsize(typist.fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 44, Col: 202}))
	assert.Check(q, cmp.Equal(answered(q, sh), runc.Reply{Out: "44 202", Code: 9}))
	q.Fact("size after TIOCSWINSZ at the master", "44 202")

	q.Step("^C typed is SIGINT to the foreground process group")
	// The program is in the foreground group, too; a shell without a trap would end. The other one loops and does not
	// sleep: a shell runs traps between commands, so none is missed.
	assert.Check(q, cmp.Equal(sh.Run("trap 'interrupted=also' INT").Code, 0))
	sh.Send(`sh -c 'trap "echo interrupted; exit 7" INT; echo ready > /dev/tty; while :; do :; done'`)
	typist.until("ready\r\n")
	typist.types("\x03")
	assert.Check(q, cmp.Equal(answered(q, sh), runc.Reply{Out: "interrupted", Code: 7}))
	assert.Check(q, cmp.Equal(sh.Run("echo $interrupted").Out, "also"), "the session leader got no SIGINT")
	q.Fact("^C", "SIGINT, to the program and to its child")

	q.Control("without the line discipline's isig the same key is a byte")
	sh.Send("stty -isig; echo ready > /dev/tty; read -r line; stty isig; echo $line | od -An -tx1")
	typist.until("ready\r\n")
	typist.types("\x03\n")
	key := answered(q, sh).Out
	assert.Check(q, cmp.Equal(key, "03 0a"))
	q.Fact("^C read by the program", key)

	q.Control("a second terminal is another devpts, also with number 0; root owns it, and it has no size")
	d := runc.Variant(q, b, "second", terminal)
	second := createWithTerminal(q, d, filepath.Join(dir, "second"))
	other := check.StatInRoot(q, proc.PID(d.State().Pid), "/dev/pts/0")
	assert.Check(q, other.Dev != slave.Dev, "both containers have the devpts of device %d", other.Dev)
	assert.Check(q, cmp.Equal(int(other.Uid), 0), "owner of the second slave")
	assert.Check(q, cmp.Equal(other.Rdev, slave.Rdev), "number of the second slave")
	var host unix.Stat_t
	if err := unix.Stat("/dev/pts", &host); err == nil {
		assert.Check(q, uint64(host.Dev) != slave.Dev, "the container has the host's devpts")
	}
	size, err = unix.IoctlGetWinsize(second.fd, unix.TIOCGWINSZ)
	assert.NilError(q, err)
	assert.Check(q, cmp.DeepEqual(*size, unix.Winsize{}), "size of the second terminal")
	q.Fact("devpts of the two, and the host's", "three devices, the same number 136:0")
	q.Fact("size that nobody gave", fmt.Sprint(size.Row, " ", size.Col))

	q.Step("the slave is descriptors 0 to 2 of a program")
	d.Start()
	proc.WaitFor(q, proc.Runs(proc.PID(d.State().Pid), "sleep"))
	e := proc.Snapshot(q, proc.PID(d.State().Pid))
	assert.Check(q, cmp.DeepEqual(e.FDs, map[int]string{0: "/dev/pts/0", 1: "/dev/pts/0", 2: "/dev/pts/0"}))
	q.Fact("descriptors", e.FDs)

	q.Step("closing the master hangs up: the session leader gets SIGHUP, and all have lost the terminal")
	assert.Check(q, cmp.Equal(sh.Run("trap 'hung=up' HUP").Code, 0))
	sh.Send(`sh -c 'trap "exit 8" HUP; echo ready > /dev/tty; while (: < /dev/tty) 2> /dev/null; do :; done; echo lost'`)
	typist.until("ready\r\n")
	typist.hangsUp()
	assert.Check(q, cmp.Equal(answered(q, sh), runc.Reply{Out: "lost"}), "the leader's child in the foreground group")
	q.Fact("the leader's child, in the foreground", "has lost the terminal, without a signal")
	assert.Check(q, cmp.Equal(sh.Run("echo $hung").Out, "up"), "the session leader got no SIGHUP")
	q.Fact("the session leader", "SIGHUP")
	now = proc.Stat(q, proc.PID(pid))
	assert.Check(q, cmp.Equal(now.TTY, 0), "it still has a controlling terminal")
	q.Fact("controlling terminal afterwards", now.TTY)
	dead := sh.Run("echo > /dev/tty")
	assert.Check(q, dead.Code != 0, "one can still open the terminal")
	q.Fact("open of /dev/tty afterwards", dead.Out)
	c.KillAndDelete(p)

	q.Step("SIGHUP does not end a program without a handler that is pid 1 of its namespace …")
	second.hangsUp()
	now = proc.Stat(q, e.PID)
	assert.Check(q, cmp.Equal(now.TTY, 0), "it still has a controlling terminal")
	assert.Check(q, e.Same(proc.Snapshot(q, e.PID).Identity), "the hangup has ended pid 1, which has no handler")
	assert.Check(q, cmp.Equal(d.State().Status, specs.StateRunning))
	q.Fact("sleep as pid 1, hung up", "goes on")
	d.KillAndDelete(e)

	q.Control("… in the host's pid namespace the same program ends of it")
	h := runc.Variant(q, b, "pid", terminal, bundle.WithoutNamespace(specs.PIDNamespace))
	third := createWithTerminal(q, h, filepath.Join(dir, "pid"))
	h.Start()
	proc.WaitFor(q, proc.Runs(proc.PID(h.State().Pid), "sleep"))
	outside := proc.Snapshot(q, proc.PID(h.State().Pid))
	third.hangsUp()
	proc.WaitFor(q, proc.Dead(outside.Identity))
	assert.Check(q, cmp.Equal(h.State().Status, specs.StateStopped))
	q.Fact("sleep in the host's pid namespace", h.State().Status)
	h.Delete()

	q.Control("without process.terminal there is none: the descriptors are what the caller gave to the runtime")
	plain := runc.Variant(q, b, "plain")
	pp := plain.CreateAndStart()
	now = proc.Stat(q, pp.PID)
	assert.Check(q, cmp.Equal(now.TTY, 0), "tty_nr without a terminal")
	assert.Check(q, cmp.Equal(now.Session, int(pp.PID)), "a session leader also without a terminal")
	given := []string{pp.FDs[0], pp.FDs[1], pp.FDs[2]}
	assert.Check(q, !strings.Contains(strings.Join(given, " "), "pts"), "a descriptor is a terminal: %q", given)
	assert.Check(q, cmp.Contains(given[1], "memfd:stdout"), "it is not the file that the lab gave as stdout")
	_, err = os.Lstat(filepath.Join("/proc", strconv.Itoa(int(pp.PID)), "root/dev/console"))
	assert.Check(q, os.IsNotExist(err), "there is a /dev/console: %v", err)
	q.Fact("controlling terminal", now.TTY)
	q.Fact("descriptors 0 1 2", given)
	q.Fact("/dev/console", "none")
	plain.KillAndDelete(pp)

	q.Control("a terminal and nobody to take it, or a socket and no terminal, is refused")
	runc.AssertCreateRefused(q, runc.Variant(q, b, "nobody", terminal), "console socket")
	r := runc.Variant(q, b, "nothing").Try("create", "--console-socket", filepath.Join(dir, "tty"))
	assert.Check(q, r.Code != 0, "create with a socket and no terminal succeeds:\n%s", r)
	assert.Check(q, cmp.Contains(runc.LastLogMessage(r), "console socket"))
	q.Fact("create says", runc.LastLogMessage(r))

	q.Answer("As a descriptor over the caller's socket. The slave stays in the container; between both is only the kernel.")
}

// typist is the caller's side of a container's terminal.
type typist struct {
	q       *lab.Q
	master  *os.File
	fd      int
	message string // what came along with the descriptor
	unread  string
}

// createWithTerminal creates a container whose terminal is to be sent to a socket of that path, and takes it.
func createWithTerminal(q *lab.Q, c *runc.Container, socket string) *typist {
	q.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	assert.NilError(q, err)
	defer l.Close()
	// One connects without being accepted, and what was sent waits in the socket; so one thing comes after the other.
	c.Must("create", "--console-socket", socket)
	assert.NilError(q, l.SetDeadline(time.Now().Add(proc.Patience)))
	conn, err := l.AcceptUnix()
	assert.NilError(q, err, "nobody connected to the console socket")
	defer conn.Close()
	raw, err := conn.SyscallConn()
	assert.NilError(q, err)
	text, rights := make([]byte, 4096), make([]byte, unix.CmsgSpace(4*4))
	var n, more int
	var bad error
	assert.NilError(q, conn.SetReadDeadline(time.Now().Add(proc.Patience)))
	assert.NilError(q, raw.Read(func(fd uintptr) bool {
		// Closed on exec, lest another question's command inherits the master and hangs up later than this one.
		n, more, _, _, bad = unix.Recvmsg(int(fd), text, rights, unix.MSG_CMSG_CLOEXEC)
		return bad != unix.EAGAIN
	}))
	assert.NilError(q, bad)
	messages, err := unix.ParseSocketControlMessage(rights[:more])
	assert.NilError(q, err)
	assert.Assert(q, cmp.Len(messages, 1))
	fds, err := unix.ParseUnixRights(&messages[0])
	assert.NilError(q, err)
	assert.Assert(q, cmp.Len(fds, 1))
	assert.NilError(q, unix.SetNonblock(fds[0], true)) // so that deadlines work
	t := &typist{q: q, master: os.NewFile(uintptr(fds[0]), "master"), fd: fds[0], message: string(text[:n])}
	q.TB.Cleanup(func() { t.master.Close() })
	return t
}

// types types at the terminal.
func (t *typist) types(keys string) {
	t.q.Helper()
	_, err := t.master.WriteString(keys)
	assert.NilError(t.q, err, "type %q", keys)
}

// until reads what appears at the terminal, up to and with these words.
func (t *typist) until(words string) string {
	t.q.Helper()
	assert.NilError(t.q, t.master.SetReadDeadline(time.Now().Add(proc.Patience)))
	buffer := make([]byte, 4096)
	for {
		if before, after, ok := strings.Cut(t.unread, words); ok {
			t.unread = after
			return before + words
		}
		n, err := t.master.Read(buffer)
		t.unread += string(buffer[:n])
		assert.NilError(t.q, err, "%q does not appear at the terminal, but %q", words, t.unread)
	}
}

func (t *typist) hangsUp() {
	t.q.Helper()
	assert.NilError(t.q, t.master.Close())
}

// answered waits for what came of the command that the program was told last.
func answered(q *lab.Q, sh *runc.Shell) runc.Reply {
	q.Helper()
	r, err := sh.Receive()
	assert.NilError(q, err, "no answer of the program; it said %q", r.Out)
	return r
}

// ttyNumber is the device of the controlling terminal, major:minor.
func ttyNumber(now procfs.ProcStat) string {
	return fmt.Sprintf("%d:%d", unix.Major(uint64(now.TTY)), unix.Minor(uint64(now.TTY)))
}
