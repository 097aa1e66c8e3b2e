//go:build linux

package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"cdblab/helpers/cgroup"

	"golang.org/x/sys/unix"
)

// Run is one run of the lab. While it lives it holds a lock on its directory, so that others can tell a run that is
// under way from one that was killed.
type Run struct {
	Owner
	lock *os.File
}

// keptFile in a run's directory says that its owner wanted the state to stay after the run.
const keptFile = "kept"

// NewRun takes the lowest number that no directory and no cgroup has, makes the directory and locks it.
func NewRun() (*Run, error) {
	lab, err := lockLab()
	if err != nil {
		return nil, err
	}
	defer lab.Close()
	taken, err := runNames()
	if err != nil {
		return nil, err
	}
	n := 1
	for slices.Contains(taken, strconv.Itoa(n)) {
		n++
	}
	r := &Run{Owner: NewOwner(strconv.Itoa(n), "")}
	// A container whose user is not root must be able to walk down to its rootfs.
	if err := os.Mkdir(r.Dir(), 0o755); err != nil {
		return nil, fmt.Errorf("make the run's directory: %w", err)
	}
	if r.lock, err = tryLock(r.Dir()); err != nil {
		return nil, err
	}
	return r, nil
}

// Keep marks the run's state as wanted, or not: only `make sweep` removes what is wanted, not the next run.
func (r *Run) Keep(wanted bool) error {
	f := filepath.Join(r.Dir(), keptFile)
	if wanted {
		return os.WriteFile(f, nil, 0o644)
	}
	if err := os.Remove(f); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// Close ends the run: what is left of it is swept, unless it is kept. The result tells what that was; after a run that
// cleaned up after itself it holds nothing.
func (r *Run) Close() (Swept, error) {
	lab, err := lockLab()
	if err != nil {
		return Swept{}, err
	}
	defer lab.Close()
	defer r.lock.Close()
	if kept(r.Run) {
		return Swept{Dir: r.Dir()}, nil
	}
	swept, err := SweepOwner(r.Owner)
	return swept, errors.Join(err, removeRootIfIdle())
}

func kept(run string) bool {
	_, err := os.Stat(filepath.Join(Dir, run, keptFile))
	return err == nil
}

// errLocked says that another process holds the lock.
var errLocked = errors.New("locked by a process that is alive")

// tryLock locks a directory for this process. The kernel lets go of the lock when the process ends, however it ends.
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

// lockLab makes Dir where it is missing and holds its lock: who makes or removes a run's directory must.
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
		// Whoever held the lock may have been the last one out and have removed the directory.
		held, err1 := f.Stat()
		now, err2 := os.Stat(Dir)
		if err1 == nil && err2 == nil && os.SameFile(held, now) {
			return f, noteControllers()
		}
		f.Close()
	}
}

// runNames lists the runs that have a directory or a cgroup.
func runNames() ([]string, error) {
	dirs := []string{Dir}
	hs, err := cgroup.Hierarchies()
	if err != nil {
		return nil, err
	}
	for _, h := range hs {
		dirs = append(dirs, h.Path(Cgroup))
	}
	var names []string
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			if run, ok := runOf(e.Name()); ok && e.IsDir() {
				names = append(names, run)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}
