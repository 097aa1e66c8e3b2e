//go:build linux

package seccomp

import (
	"encoding/json"
	"errors"
	"net"
	"testing"
	"time"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/proc"
)

// Continue is the flag of a response with which the kernel executes the system call of the notification. In the kernel
// its name is SECCOMP_USER_NOTIF_FLAG_CONTINUE.
const Continue = 1

// Notifier is the descriptor at which the notifications of a filter are received (seccomp_unotify(2)).
type Notifier struct{ FD int }

// ReceiveNotifier waits until the runtime connects to the listener (linux.seccomp.listenerPath). It returns what the runtime
// sends: the descriptor, and a document about the container's process. The descriptor is closed when the test ends.
func ReceiveNotifier(tb testing.TB, listener *net.UnixListener) (*Notifier, specs.ContainerProcessState) {
	tb.Helper()
	assert.NilError(tb, listener.SetDeadline(time.Now().Add(proc.Patience)))
	conn, err := listener.AcceptUnix()
	assert.NilError(tb, err, "the runtime has not connected to linux.seccomp.listenerPath, %s", listener.Addr())
	defer conn.Close()
	assert.NilError(tb, conn.SetReadDeadline(time.Now().Add(proc.Patience)))
	data, oob := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := conn.ReadMsgUnix(data, oob)
	assert.NilError(tb, err)
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	assert.NilError(tb, err)
	assert.Assert(tb, cmp.Len(messages, 1))
	fds, err := unix.ParseUnixRights(&messages[0])
	assert.NilError(tb, err)
	unix.CloseOnExec(fds[0])
	notifier := &Notifier{fds[0]}
	tb.Cleanup(notifier.Close)
	var state specs.ContainerProcessState
	assert.NilError(tb, json.Unmarshal(data[:n], &state), "%s", data[:n])
	return notifier, state
}

// Close closes the descriptor, if it is open.
func (n *Notifier) Close() {
	if n.FD >= 0 {
		unix.Close(n.FD)
		n.FD = -1
	}
}

// Notification is a system call that waits for a response: struct seccomp_notif.
type Notification struct {
	ID         uint64 // of the notification
	PID, flags uint32 // PID is the caller
	nr         int32
	arch       uint32
	ip         uint64
	args       [6]uint64
}

// Receive waits for the next system call that the filter notifies of.
func (n *Notifier) Receive(tb testing.TB) Notification {
	tb.Helper()
	ready, err := 0, error(unix.EINTR)
	for errors.Is(err, unix.EINTR) { // the Go runtime sends its threads signals of its own
		ready, err = unix.Poll([]unix.PollFd{{Fd: int32(n.FD), Events: unix.POLLIN}}, int(proc.Patience/time.Millisecond))
	}
	assert.Assert(tb, err == nil && ready == 1, "no notification within %v (%v)", proc.Patience, err)
	var notification Notification
	const receive = 0xc0502100 // SECCOMP_IOCTL_NOTIF_RECV
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(n.FD), receive, uintptr(unsafe.Pointer(&notification)))
	assert.Assert(tb, errno == 0, "SECCOMP_IOCTL_NOTIF_RECV: %v", errno)
	return notification
}

// Respond ends the system call of the notification: with an errno (negative), or with the flag [Continue].
func (n *Notifier) Respond(tb testing.TB, id uint64, errno int32, flags uint32) {
	tb.Helper()
	response := struct { // struct seccomp_notif_resp
		id    uint64
		val   int64
		errno int32
		flags uint32
	}{id, 0, errno, flags}
	const send = 0xc0182101 // SECCOMP_IOCTL_NOTIF_SEND
	_, _, err := unix.Syscall(unix.SYS_IOCTL, uintptr(n.FD), send, uintptr(unsafe.Pointer(&response)))
	assert.Assert(tb, err == 0, "SECCOMP_IOCTL_NOTIF_SEND: %v", err)
}
