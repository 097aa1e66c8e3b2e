//go:build linux

package host

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// dirMode is the mode of Dir and of the runs' directories. Every user may enter them: a container whose user is not root needs
// all directories above its rootfs. Only root may open them, so no other user can hold their locks.
const dirMode = 0o711

// errLocked is the error of tryLock for a lock that another process holds.
var errLocked = errors.New("locked by a process that is alive")

// tryLock locks a directory of the lab for this process. The kernel releases the lock when the process ends, however it ends.
func tryLock(dir string) (*os.File, error) { return lockDir(dir, unix.LOCK_EX|unix.LOCK_NB) }

// lockDir locks a directory of the lab. A process that held the lock before may have removed the directory in the meantime, and
// another process may have made a new one. Then the error is os.ErrNotExist.
func lockDir(dir string, how int) (*os.File, error) {
	f, err := openOwnDir(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), how); err != nil {
		f.Close()
		if err == unix.EWOULDBLOCK {
			err = errLocked
		}
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	if !isAt(f, dir) {
		f.Close()
		return nil, fmt.Errorf("lock %s: it was removed: %w", dir, os.ErrNotExist)
	}
	return f, nil
}

// isAt reports whether an open directory is still the one that has the path.
func isAt(f *os.File, path string) bool {
	locked, err1 := f.Stat()
	now, err2 := os.Lstat(path)
	return err1 == nil && err2 == nil && os.SameFile(locked, now)
}

// lockLab makes Dir if it does not exist, and waits for its lock. A process that makes or removes the directory of a run
// must hold this lock.
func lockLab() (*os.File, error) {
	for {
		if err := os.Mkdir(Dir, dirMode); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("make the lab's directory: %w", err)
		}
		f, err := lockDir(Dir, unix.LOCK_EX)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("the lab's directory: %w", err)
		}
		// An operator who gave the lab a file system of its own, or an older version of the lab, used another mode.
		if err := errors.Join(f.Chmod(dirMode), noteControllers()); err != nil {
			f.Close()
			return nil, err
		}
		return f, nil
	}
}
