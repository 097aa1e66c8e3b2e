//go:build linux

package runc

import (
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/check"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// Terminal is the caller's side of a container's terminal: the master of a pseudo terminal (pty(7)).
type Terminal struct {
	FD      int    // descriptor of the master
	Message string // the data that came with the descriptor

	q      *lab.Q
	master *os.File
	unread string
}

// NewTerminal makes a pseudo terminal on the host, for a client that needs one, and returns the master, with the slave for the client.
func NewTerminal(q *lab.Q) (t *Terminal, slave *os.File) {
	q.Helper()
	// The file of the mounted devpts itself: the kernel has no need to look for the mount beside /dev/ptmx.
	const ptmx = "/dev/pts/ptmx"
	fd, err := unix.Open(ptmx, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	assert.NilError(q, err, "open %s; the mount there: %+v", ptmx, check.MountAt(q, "/dev/pts"))
	t = &Terminal{FD: fd, q: q, master: os.NewFile(uintptr(fd), "master")}
	q.TB.Cleanup(func() { t.master.Close() })
	index, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	assert.NilError(q, err)
	assert.NilError(q, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)) // 0 unlocks the slave
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", index), os.O_RDWR|unix.O_NOCTTY, 0)
	assert.NilError(q, err)
	q.TB.Cleanup(func() { slave.Close() })
	return t, slave
}

// CreateWithTerminal creates a container whose process has a terminal. The runtime sends the master to the socket of this
// path, which the lab makes and listens on.
func (c *Container) CreateWithTerminal(socket string) *Terminal {
	c.q.Helper()
	return c.receiveTerminal(socket, func() { c.Must("create", "--console-socket", socket) })
}

// ExecWithTerminal runs a program in the container by a detached exec, with a terminal of its own (--tty). The runtime sends the
// master to the socket of this path, which the lab makes and listens on.
func (c *Container) ExecWithTerminal(socket string, program ...string) (*Terminal, proc.Process) {
	q := c.q
	q.Helper()
	pidFile := socket + ".pid"
	argv := []string{"runc", "--root", c.Root, "exec", "--detach", "--tty", "--console-socket", socket, "--pid-file", pidFile, c.ID}
	terminal := c.receiveTerminal(socket, func() { q.Must(append(argv, program...)...) })
	pid := proc.PID(check.Int(q, file.Read(q, pidFile)))
	file.Remove(q, pidFile)
	proc.WaitFor(q, proc.Runs(pid, ProgramName(program)))
	return terminal, proc.Snapshot(q, pid)
}

// receiveTerminal listens on the socket, runs a command of the runtime, and receives the master that it sends.
func (c *Container) receiveTerminal(socket string, run func()) *Terminal {
	q := c.q
	q.Helper()
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	assert.NilError(q, err)
	defer listener.Close()
	// The runtime can connect before the connection is accepted, and what it sends waits in the socket. So the command may end first.
	run()
	assert.NilError(q, listener.SetDeadline(time.Now().Add(proc.Patience)))
	conn, err := listener.AcceptUnix()
	assert.NilError(q, err, "the runtime did not connect to the console socket %s", socket)
	defer conn.Close()
	assert.NilError(q, conn.SetReadDeadline(time.Now().Add(proc.Patience)))
	message, fd := receiveFD(q, conn)
	assert.NilError(q, unix.SetNonblock(fd, true)) // so that deadlines work
	t := &Terminal{FD: fd, Message: message, q: q, master: os.NewFile(uintptr(fd), "master")}
	q.TB.Cleanup(func() { t.master.Close() })
	return t
}

// receiveFD receives a message with one file descriptor (SCM_RIGHTS, unix(7)).
func receiveFD(q *lab.Q, conn *net.UnixConn) (message string, fd int) {
	q.Helper()
	raw, err := conn.SyscallConn()
	assert.NilError(q, err)
	const fdSize, maxFDs = 4, 4
	data, control := make([]byte, 4096), make([]byte, unix.CmsgSpace(maxFDs*fdSize))
	var dataLen, controlLen int
	var recvErr error
	assert.NilError(q, raw.Read(func(socket uintptr) bool {
		// Closed on exec: a command of another question must not inherit the master, which would delay the hangup.
		dataLen, controlLen, _, _, recvErr = unix.Recvmsg(int(socket), data, control, unix.MSG_CMSG_CLOEXEC)
		return recvErr != unix.EAGAIN
	}))
	assert.NilError(q, recvErr)
	controls, err := unix.ParseSocketControlMessage(control[:controlLen])
	assert.NilError(q, err)
	assert.Assert(q, cmp.Len(controls, 1))
	fds, err := unix.ParseUnixRights(&controls[0])
	assert.NilError(q, err)
	assert.Assert(q, cmp.Len(fds, 1))
	return string(data[:dataLen]), fds[0]
}

// SetSize sets the size of the terminal.
func (t *Terminal) SetSize(rows, columns uint16) {
	t.q.Helper()
	assert.NilError(t.q, unix.IoctlSetWinsize(t.FD, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}))
}

// Type types keys at the terminal.
func (t *Terminal) Type(keys string) {
	t.q.Helper()
	_, err := t.master.WriteString(keys)
	assert.NilError(t.q, err, "type %q at the terminal", keys)
}

// ReadUntil reads what appears at the terminal, up to and including text, and returns it.
func (t *Terminal) ReadUntil(text string) string {
	t.q.Helper()
	assert.NilError(t.q, t.master.SetReadDeadline(time.Now().Add(proc.Patience)))
	buffer := make([]byte, 4096)
	for {
		if before, after, ok := strings.Cut(t.unread, text); ok {
			t.unread = after
			return before + text
		}
		n, err := t.master.Read(buffer)
		t.unread += string(buffer[:n])
		assert.NilError(t.q, err, "%q did not appear at the terminal; unread: %q", text, t.unread)
	}
}

// HangUp closes the master.
func (t *Terminal) HangUp() {
	t.q.Helper()
	assert.NilError(t.q, t.master.Close())
}
