//go:build linux

package proc

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Signal sends a signal to the process of this identity, and to no other process that has its pid in the meantime: through a pidfd, which
// is opened before the start time is compared. If the process has ended, the error is [os.ErrProcessDone].
func Signal(id Identity, s unix.Signal) error {
	fd, err := unix.PidfdOpen(int(id.PID), 0)
	if err == unix.ESRCH {
		return ended(id, s)
	}
	if err != nil {
		return fmt.Errorf("open a pidfd of process %d: %w", id.PID, err)
	}
	defer unix.Close(fd)
	if !id.Alive() {
		return ended(id, s)
	}
	err = unix.PidfdSendSignal(fd, s, nil, 0)
	if err == unix.ESRCH {
		return ended(id, s)
	}
	if err != nil {
		return fmt.Errorf("send %v to process %d: %w", s, id.PID, err)
	}
	return nil
}

func ended(id Identity, s unix.Signal) error {
	return fmt.Errorf("send %v to process %d: %w", s, id.PID, os.ErrProcessDone)
}

// End is [Signal] with a signal that ends the process. That the process has ended by itself is no error.
func End(id Identity, s unix.Signal) error {
	if err := Signal(id, s); !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// Kill is [End] with SIGKILL.
func Kill(id Identity) error { return End(id, unix.SIGKILL) }
