//go:build linux

package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"cdblab/helpers/retry"
)

// Sweep removes everything of each run that no process holds the lock of: its processes, mounts, cgroups and directories.
// It does not touch a run in progress. It does not touch a kept run either, unless keptToo is true.
func Sweep(keptToo bool) ([]Swept, error) {
	lab, err := lockLab()
	if err != nil {
		return nil, err
	}
	defer lab.Close()
	runs, err := runNumbers()
	if err != nil {
		return nil, err
	}
	var all []Swept
	var errs []error
	for _, run := range runs {
		if isKept(run) && !keptToo {
			continue
		}
		lock, err := tryLock(filepath.Join(Dir, run))
		switch {
		case errors.Is(err, errLocked):
			continue
		case errors.Is(err, os.ErrNotExist):
			// The run has cgroups only. Either its directory was removed by hand, or it is a run in progress in another mount
			// namespace, with its own /run. A person who calls `make sweep` wants the empty cgroups to go, and must decide about the
			// processes in the others: nothing proves that they are the lab's.
			if keptToo {
				swept, err := removeEmptyCgroups(NewOwner(run, ""))
				all, errs = append(all, swept), append(errs, err)
			}
			continue
		case err != nil:
			errs = append(errs, err)
			continue
		default:
			defer lock.Close()
		}
		swept, err := SweepOwner(ownerOf(run))
		all, errs = append(all, swept), append(errs, err)
	}
	return all, errors.Join(append(errs, removeRootIfIdle())...)
}

// RunsInProgress returns the owners of the runs whose locks other processes hold. It waits while a run begins or ends.
func RunsInProgress() ([]Owner, error) {
	lab, err := lockDir(Dir, unix.LOCK_EX) // so that no run begins now: it would find its new directory locked
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer lab.Close()
	runs, err := runNumbers()
	if err != nil {
		return nil, err
	}
	var out []Owner
	for _, run := range runs {
		lock, err := tryLock(filepath.Join(Dir, run))
		if err == nil {
			lock.Close()
		}
		if errors.Is(err, errLocked) {
			out = append(out, ownerOf(run))
		}
	}
	return out, nil
}

// LeftRuns returns the directories of the runs that were killed and not swept, and of those that were kept. It changes nothing.
func LeftRuns() (killed, kept []string, err error) {
	lab, err := tryLock(Dir) // so that no run begins now: it would find its new directory locked
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, nil, nil
	case errors.Is(err, errLocked):
		return nil, nil, errors.New("a run begins or ends at this moment: ask again")
	case err != nil:
		return nil, nil, err
	}
	defer lab.Close()
	runs, err := runNumbers()
	if err != nil {
		return nil, nil, err
	}
	for _, run := range runs {
		dir := filepath.Join(Dir, run)
		lock, err := tryLock(dir)
		if err == nil {
			lock.Close()
		}
		switch {
		case errors.Is(err, errLocked):
		case err == nil && isKept(run):
			kept = append(kept, dir)
		default:
			killed = append(killed, dir)
		}
	}
	return killed, kept, nil
}

// ParseMark returns the owner of the run whose [Owner.Mark] is mark.
func ParseMark(mark string) (run Owner, err error) {
	number, ok := runOfMark(mark)
	_, id, _ := strings.Cut(mark, ":")
	run = NewOwner(number, "").withID(id)
	if !ok || id == "" || run.Mark() != mark {
		return Owner{}, fmt.Errorf("%q is no mark of a run", mark)
	}
	return run, nil
}

// SweepRun waits until no process holds the lock of a run, and then removes what is left of the run, unless it is kept. A
// process that was just killed may hold its lock for a moment longer than its pipes. SweepRun does nothing if another run has
// the number by now.
func SweepRun(owner Owner) error {
	run := owner.Run
	var lock *os.File
	var err error
	retry.Until(patience(), func() bool {
		lock, err = tryLock(filepath.Join(Dir, run))
		return !errors.Is(err, errLocked)
	})
	if errors.Is(err, os.ErrNotExist) {
		return sweepBehind(owner)
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	lab, err := lockLab()
	if err != nil {
		return err
	}
	defer lab.Close()
	// A run that was ended by a signal may have removed the file of its id and not the rest: its questions went on for a moment.
	if id := ownerOf(run).id; isKept(run) || id != "" && id != owner.id {
		return nil
	}
	_, err = SweepOwner(owner)
	return errors.Join(err, removeRootIfIdle())
}

// sweepBehind removes what a run has made after its directory was removed. When a signal ends a run, its questions go on while it is
// swept, and a runtime that was about to create a container makes the container's cgroups behind the sweep.
func sweepBehind(owner Owner) error {
	lab, err := lockLab()
	if err != nil {
		return err
	}
	defer lab.Close()
	if exists(owner.Dir()) {
		return removeRootIfIdle() // another run has the number by now
	}
	// By the random id, and runc init, which has no mark, by its cgroup. No other run has the number: its directory would be there.
	_, err = StopUnits(owner)
	_, _, killErr := killAll(owner)
	_, removeErr := RemoveProfiles(owner)
	if err = errors.Join(err, killErr, removeErr); err == nil {
		_, err = removeEmptyCgroups(owner)
	}
	return errors.Join(err, removeRootIfIdle())
}
