//go:build linux

package host

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// errLocked is the error of tryLock for a lock that another process holds.
var errLocked = errors.New("locked by a process that is alive")

// tryLock locks a directory for this process. The kernel releases the lock when the process ends, however it ends.
func tryLock(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if err == unix.EWOULDBLOCK {
			err = errLocked
		}
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return f, nil
}

// lockLab makes Dir if it does not exist, and waits for its lock. A process that makes or removes the directory of a run
// must hold this lock.
func lockLab() (*os.File, error) {
	for {
		if err := os.Mkdir(Dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("make the lab's directory: %w", err)
		}
		f, err := os.Open(Dir)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("open the lab's directory: %w", err)
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", Dir, err)
		}
		// The process that held the lock before may have ended the last run and removed the directory.
		locked, err1 := f.Stat()
		now, err2 := os.Stat(Dir)
		if err1 == nil && err2 == nil && os.SameFile(locked, now) {
			return f, noteControllers()
		}
		f.Close()
	}
}
