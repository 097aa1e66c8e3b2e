//go:build linux

package proc

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
)

// PeerCredentials returns the process, user and group that the kernel shows for the other end of a connection over a unix
// socket (SO_PEERCRED of unix(7)).
func PeerCredentials(tb testing.TB, conn net.Conn) *unix.Ucred {
	tb.Helper()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	assert.NilError(tb, err)
	var creds *unix.Ucred
	assert.NilError(tb, raw.Control(func(fd uintptr) {
		creds, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}))
	assert.NilError(tb, err)
	return creds
}
