//go:build linux

package host

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"cdblab/helpers/cgroup"
)

// Run is one run of the lab. While it is in progress it holds a lock on its directory. By the lock, others distinguish a run
// in progress from one that was killed.
type Run struct {
	Owner
	mu   sync.Mutex
	lock *os.File // nil once the run is closed
}

// NewRun takes the lowest number that no directory, no cgroup and no process has, makes the run's directory and locks it.
func NewRun() (r *Run, err error) {
	lab, err := lockLab()
	if err != nil {
		return nil, err
	}
	defer lab.Close()
	defer func() {
		if err != nil {
			err = errors.Join(err, removeRootIfIdle()) // what lockLab has made
		}
	}()
	number, err := freeNumber()
	if err != nil {
		return nil, err
	}
	r = &Run{Owner: NewOwner(number, "").withID(newID())}
	if err := os.Mkdir(r.Dir(), dirMode); err != nil {
		return nil, fmt.Errorf("make the run's directory: %w", err)
	}
	if r.lock, err = prepareDir(r.Owner); err != nil {
		_, removeErr := SweepOwner(r.Owner)
		return nil, errors.Join(err, removeErr)
	}
	return r, nil
}

// prepareDir mounts a file system on the directory of a new run if it needs one, makes the run's cgroup in one hierarchy, locks
// the directory, and records the id.
func prepareDir(run Owner) (lock *os.File, err error) {
	if err := mountExec(run.Dir()); err != nil {
		return nil, err
	}
	// The cgroup shows that the number is taken to a run in another mount namespace, which has another /run.
	hierarchies, err := cgroup.Hierarchies()
	if err != nil {
		return nil, err
	}
	for _, h := range hierarchies[:min(1, len(hierarchies))] {
		if err := os.MkdirAll(h.Path(run.Cgroup()), 0o755); err != nil {
			return nil, fmt.Errorf("make the run's cgroup: %w", err)
		}
	}
	if lock, err = tryLock(run.Dir()); err != nil {
		return nil, err
	}
	err = os.WriteFile(idPath(run.Run), []byte(run.id), 0o600)
	if err := errors.Join(err, recordNullDevice(run.Run)); err != nil {
		lock.Close()
		return nil, fmt.Errorf("record the run's id and the null device: %w", err)
	}
	return lock, nil
}

// mountExec mounts a tmpfs on the directory of a run if its file system forbids to execute programs, as Debian's initramfs
// mounts /run. The programs in a bundle's rootfs are below the directory. A sweep of the run unmounts it.
func mountExec(dir string) error {
	if forbids, err := ForbidsExec(dir); err != nil || !forbids {
		return err
	}
	if err := unix.Mount("cdb-lab", dir, "tmpfs", 0, fmt.Sprintf("mode=%o", dirMode)); err != nil {
		return fmt.Errorf("%s is on a file system that forbids to execute programs, and a tmpfs cannot be mounted there: %w", dir, err)
	}
	return nil
}

// ForbidsExec reports whether the file system of a directory forbids to execute programs.
func ForbidsExec(dir string) (bool, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return false, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return st.Flags&unix.ST_NOEXEC != 0, nil
}

// newID returns a new random id of a run.
func newID() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // it never fails (crypto/rand)
	return hex.EncodeToString(b)
}

// idPath returns the file that has the id of a run.
func idPath(run string) string { return filepath.Join(Dir, run, "id") }

// ownerOf returns the owner of a run that has a directory. If its id is not recorded, the owner owns no process.
func ownerOf(run string) Owner {
	data, _ := os.ReadFile(idPath(run))
	return NewOwner(run, "").withID(string(data))
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
// up after itself has none. A second call does nothing.
func (r *Run) Close() (Swept, error) {
	swept, _, err := r.close(nil)
	return swept, err
}

// CloseAndCompare is [Run.Close]. It also returns the changes of the host since before, by whomever; see [OwnedBy] and [Unnamed].
// No other run begins until they are known, so no other run has the number by then.
func (r *Run) CloseAndCompare(before Inventory) (Swept, []Change, error) { return r.close(before) }

func (r *Run) close(before Inventory) (swept Swept, changes []Change, err error) {
	// For a signal at the end of a run, which closes the run as well.
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lock == nil {
		return Swept{}, nil, nil
	}
	lab, err := lockLab()
	if err != nil {
		return Swept{}, nil, err
	}
	defer lab.Close()
	defer func() {
		r.lock.Close()
		r.lock = nil
	}()
	if !isAt(r.lock, r.Dir()) || ownerOf(r.Run).id != r.id {
		return Swept{}, nil, fmt.Errorf("%s is not the directory of this run any more, so nothing was swept: "+
			"it was removed while the run was in progress; look for processes whose environment has %s=%s", r.Dir(), OwnerEnv, r.Mark())
	}
	if isKept(r.Run) {
		return Swept{Dir: r.Dir()}, nil, nil
	}
	if swept, err = SweepOwner(r.Owner); err == nil && before != nil {
		var after Inventory
		if after, err = TakeInventory(); err == nil {
			changes = Diff(before, after)
		}
	}
	return swept, changes, errors.Join(err, removeRootIfIdle())
}

// freeNumber returns the lowest number that no run has, and of which no run has left anything.
func freeNumber() (string, error) {
	taken, err := runNumbers()
	if err != nil {
		return "", err
	}
	processes, err := Processes()
	if err != nil {
		return "", err
	}
	for _, p := range processes {
		if run, ok := runOfMark(p.Mark); ok {
			taken = append(taken, run)
		}
	}
	n := 1
	for slices.Contains(taken, strconv.Itoa(n)) {
		n++
	}
	return strconv.Itoa(n), nil
}

// runOfMark returns the number of the run that a process's mark names.
func runOfMark(mark string) (run string, ok bool) {
	dir, _, _ := strings.Cut(mark, ":")
	rel, ok := strings.CutPrefix(dir, Dir+"/")
	if !ok {
		return "", false
	}
	run, _, _ = strings.Cut(rel, "/")
	_, err := strconv.Atoi(run)
	return run, err == nil
}

// runNumbers lists the numbers of the runs that have a directory or a cgroup.
func runNumbers() ([]string, error) {
	hierarchies, err := cgroup.Hierarchies()
	if err != nil {
		return nil, err
	}
	var names []string
	add := func(dir string) error {
		entries, err := os.ReadDir(dir)
		for _, e := range entries {
			if e.IsDir() {
				names = append(names, e.Name())
			}
		}
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	}
	if err := add(Dir); err != nil {
		return nil, err
	}
	for _, h := range hierarchies {
		if err := add(h.Path(Cgroup)); err != nil {
			return nil, err
		}
		for _, root := range labRoots(h) {
			names = append(names, strings.TrimPrefix(root, "/"))
		}
	}
	var numbers []string
	for _, name := range names {
		if run, ok := runOf(name); ok {
			numbers = append(numbers, run)
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
	if err := restoreControllers(); err != nil {
		return err
	}
	for _, h := range hierarchies {
		// EBUSY or ENOTEMPTY: another program, such as the host's own containerd, has a namespace of the same name.
		err := unix.Rmdir(h.Path(Cgroup))
		if err != nil && err != unix.ENOENT && err != unix.EBUSY && err != unix.ENOTEMPTY {
			return fmt.Errorf("remove cgroup %s: %w", h.Path(Cgroup), err)
		}
	}
	// EBUSY: it is a mount point, because an operator gave the lab a file system of its own.
	if err := os.Remove(Dir); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("the lab's directory holds something that belongs to no run; look at it and remove it by hand: %w", err)
	}
	return nil
}
