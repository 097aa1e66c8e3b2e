//go:build linux

package proc

import (
	"testing"

	"golang.org/x/sys/unix"
)

// kill ends exactly the process of this identity and waits until it is dead.
func kill(tb testing.TB, id Identity) {
	tb.Helper()
	fd, err := unix.PidfdOpen(int(id.PID), 0)
	if err == unix.ESRCH {
		return
	}
	if err != nil {
		tb.Errorf("pidfd_open %d: %v", id.PID, err)
		return
	}
	defer unix.Close(fd)
	if now, err := Read(id.PID); err != nil || now.Start != id.Start {
		return
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
		tb.Errorf("kill %d: %v", id.PID, err)
	}
	WaitFor(tb, Dead(id))
}
