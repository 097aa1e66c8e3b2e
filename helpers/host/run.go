//go:build linux

package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"cdblab/helpers/cgroup"
)

// Run is one run of the lab. While it is in progress it holds a lock on its directory. By the lock, others distinguish a run
// in progress from one that was killed.
type Run struct {
	Owner
	lock *os.File
}

// NewRun takes the lowest number that no directory and no cgroup has, makes the run's directory and locks it.
func NewRun() (*Run, error) {
	lab, err := lockLab()
	if err != nil {
		return nil, err
	}
	defer lab.Close()
	taken, err := runNumbers()
	if err != nil {
		return nil, err
	}
	n := 1
	for slices.Contains(taken, strconv.Itoa(n)) {
		n++
	}
	r := &Run{Owner: NewOwner(strconv.Itoa(n), "")}
	// A container whose user is not root must be able to enter all directories above its rootfs.
	if err := os.Mkdir(r.Dir(), 0o755); err != nil {
		return nil, fmt.Errorf("make the run's directory: %w", err)
	}
	if r.lock, err = tryLock(r.Dir()); err != nil {
		return nil, err
	}
	return r, nil
}

// keptFile in a run's directory says that its user wants the state to stay after the run.
const keptFile = "kept"

// Keep marks the run's state as wanted, or removes the mark. The next run does not sweep a run that has the mark; `make
// sweep` does.
func (r *Run) Keep(wanted bool) error {
	mark := filepath.Join(r.Dir(), keptFile)
	if wanted {
		return os.WriteFile(mark, nil, 0o644)
	}
	if err := os.Remove(mark); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func isKept(run string) bool {
	_, err := os.Stat(filepath.Join(Dir, run, keptFile))
	return err == nil
}

// Close ends the run. It sweeps the run's leftovers, unless the run is kept, and returns what they were. A run that cleaned
// up after itself has none.
func (r *Run) Close() (Swept, error) {
	lab, err := lockLab()
	if err != nil {
		return Swept{}, err
	}
	defer lab.Close()
	defer r.lock.Close()
	if isKept(r.Run) {
		return Swept{Dir: r.Dir()}, nil
	}
	swept, err := SweepOwner(r.Owner)
	return swept, errors.Join(err, removeRootIfIdle())
}

// runNumbers lists the numbers of the runs that have a directory or a cgroup.
func runNumbers() ([]string, error) {
	dirs := []string{Dir}
	hierarchies, err := cgroup.Hierarchies()
	if err != nil {
		return nil, err
	}
	for _, h := range hierarchies {
		dirs = append(dirs, h.Path(Cgroup))
	}
	var numbers []string
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			if run, ok := runOf(e.Name()); ok && e.IsDir() {
				numbers = append(numbers, run)
			}
		}
	}
	slices.Sort(numbers)
	return slices.Compact(numbers), nil
}

// removeRootIfIdle removes Dir and Cgroup, and restores the root cgroup's controllers, if no run is left.
func removeRootIfIdle() error {
	runs, err := runNumbers()
	if err != nil || len(runs) > 0 {
		return err
	}
	hierarchies, err := cgroup.Hierarchies()
	if err != nil {
		return err
	}
	for _, h := range hierarchies {
		// EBUSY or ENOTEMPTY: another program, such as the host's own containerd, has a namespace of the same name.
		err := unix.Rmdir(h.Path(Cgroup))
		if err != nil && err != unix.ENOENT && err != unix.EBUSY && err != unix.ENOTEMPTY {
			return fmt.Errorf("remove cgroup %s: %w", h.Path(Cgroup), err)
		}
	}
	if err := restoreControllers(); err != nil {
		return err
	}
	// EBUSY: it is a mount point, because an operator gave the lab a file system of its own.
	if err := os.Remove(Dir); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("the lab's directory holds something that belongs to no run; look at it and remove it by hand: %w", err)
	}
	return nil
}
