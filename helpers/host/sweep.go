//go:build linux

package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"cdblab/helpers/cgroup"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Swept tells what a sweep removed of one part of the lab.
type Swept struct {
	Dir       string // the part's directory
	Processes []string
	Mounts    []string
	Cgroups   []string
	Files     int
}

// Empty says that there was nothing but the part's own directory and cgroup.
func (s Swept) Empty() bool {
	return len(s.Processes)+len(s.Mounts)+len(s.Cgroups)+s.Files == 0
}

func (s Swept) String() string {
	return fmt.Sprintf("%s: %d processes, %d mounts, %d cgroups, %d files", s.Dir, len(s.Processes), len(s.Mounts),
		len(s.Cgroups), s.Files)
}

// Sweep removes, to the last trace, each run whose lock nobody holds: its processes, mounts, cgroups and directories.
// A run that is under way is left alone, and so is one that was kept, unless keptToo is true.
func Sweep(keptToo bool) ([]Swept, error) {
	lab, err := lockLab()
	if err != nil {
		return nil, err
	}
	defer lab.Close()
	names, err := runNames()
	if err != nil {
		return nil, err
	}
	var all []Swept
	var errs []error
	for _, name := range names {
		if kept(name) && !keptToo {
			continue
		}
		dir := filepath.Join(Dir, name)
		lock, err := tryLock(dir)
		switch {
		case errors.Is(err, errLocked):
			continue
		case errors.Is(err, os.ErrNotExist):
			// Only its cgroups are here: somebody removed its directory, or it is a run that is under way in another mount
			// namespace, with a /run of its own. Only who asks for it by hand can know.
			if !keptToo {
				continue
			}
		case err != nil:
			errs = append(errs, err)
			continue
		default:
			defer lock.Close()
		}
		swept, err := SweepOwner(NewOwner(name, ""))
		all, errs = append(all, swept), append(errs, err)
	}
	return all, errors.Join(append(errs, removeRootIfIdle())...)
}

// SweepRun waits until nobody holds the lock of a run, and then removes what is left of it, unless it is kept. A process
// that has just been killed may hold its lock for a moment longer than its pipes.
func SweepRun(run string) error {
	var lock *os.File
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		var err error
		if lock, err = tryLock(filepath.Join(Dir, run)); err == nil {
			break
		}
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, errLocked) || time.Now().After(deadline) {
			return err
		}
	}
	defer lock.Close()
	lab, err := lockLab()
	if err != nil {
		return err
	}
	defer lab.Close()
	if kept(run) {
		return nil
	}
	_, err = SweepOwner(NewOwner(run, ""))
	return errors.Join(err, removeRootIfIdle())
}

// SweepPart removes what is left of a part of the lab.
func SweepOwner(part Owner) (Swept, error) {
	s := Swept{Dir: part.Dir()}
	var err error
	if s.Processes, err = killAll(part); err != nil {
		return s, err
	}
	if s.Mounts, err = unmountAll(part.Dir()); err != nil {
		return s, err
	}
	if s.Cgroups, err = removeCgroups(part); err != nil {
		return s, err
	}
	if err := leaveDefaultPlaces(part); err != nil {
		return s, err
	}
	s.Files, err = Remove(part.Dir())
	return s, err
}

// Tidy removes a part's directory and its empty cgroups, when nothing else is left of it.
func RemoveEmpty(part Owner) error {
	if _, err := removeCgroups(part); err != nil {
		return err
	}
	_, err := Remove(part.Dir())
	return err
}

// patience is how long a sweep waits for the kernel to let go of what was killed or unmounted.
const patience = 10 * time.Second

// killAll kills every process of the part, until there is none.
//
// To look once is not enough: one that was about to fork may leave a child with a lower pid, which the look has already
// passed; and one that is in the middle of execve(2) has no environment to be known by, for a moment. So it takes several
// looks in a row that find none and in which nobody young is without an environment.
func killAll(part Owner) (killed []string, err error) {
	clean := 0
	for deadline := time.Now().Add(patience); clean < 3; time.Sleep(5 * time.Millisecond) {
		all, err := Processes()
		if err != nil {
			return killed, err
		}
		var ps []Process
		clean++
		for _, p := range all {
			switch {
			case int(p.PID) == os.Getpid():
			case p.OwnedBy(part):
				ps = append(ps, p)
				clean = 0
			case p.NoEnvironment && p.age() < 2*time.Second:
				clean = 0
			}
		}
		if len(ps) > 0 {
			thaw(part) // a process frozen by the v1 freezer does not even take SIGKILL
		}
		for _, p := range ps {
			name := fmt.Sprintf("%d (%s)", p.PID, p.Comm)
			if !slices.Contains(killed, name) {
				killed = append(killed, name)
			}
			if err := p.kill(); err != nil {
				return killed, err
			}
		}
		if time.Now().After(deadline) {
			return killed, fmt.Errorf("still alive %v after SIGKILL: %v", patience, ps)
		}
	}
	return killed, nil
}

func thaw(part Owner) {
	hs, _ := cgroup.Hierarchies()
	for _, h := range hs {
		for _, cg := range labCgroups(h) {
			if f := filepath.Join(h.Path(cg), "freezer.state"); !h.V2 && part.Owns(cg) && exists(f) {
				_ = os.WriteFile(f, []byte("THAWED"), 0o644)
			}
		}
	}
}

// unmountAll unmounts everything at and below dir, the latest mount first.
func unmountAll(dir string) (done []string, err error) {
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		ms, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
		if err != nil || len(ms) == 0 {
			return done, err
		}
		slices.Reverse(ms)
		for _, m := range ms {
			if err := unix.Unmount(m.Mountpoint, unix.UMOUNT_NOFOLLOW); err == nil {
				done = append(done, m.Mountpoint)
			} else if err != unix.EBUSY {
				return done, fmt.Errorf("unmount %s: %w", m.Mountpoint, err)
			}
		}
		if time.Now().After(deadline) {
			return done, fmt.Errorf("still mounted and busy after %v: %s", patience, ms[0].Mountpoint)
		}
	}
}

// removeCgroups removes the part's cgroups, in every hierarchy. The part's own, which is but the frame of what it made,
// goes without a word.
func removeCgroups(part Owner) (removed []string, err error) {
	hs, err := cgroup.Hierarchies()
	if err != nil {
		return nil, err
	}
	for _, h := range hs {
		all := labCgroups(h)
		slices.Reverse(all)
		for _, cg := range all {
			if !part.Owns(cg) {
				continue
			}
			if err := removeCgroup(h.Path(cg)); err != nil {
				return removed, err
			}
			if !pathBegins(part.Cgroup(), cg) && !(part.Question == "" && isQuestionCgroup(part, cg)) {
				removed = append(removed, h.Name+":"+cg)
			}
		}
	}
	return removed, nil
}

// frame says whether a cgroup of a run is but the frame of a question.
func isQuestionCgroup(run Owner, cgroup string) bool { return filepath.Dir(cgroup) == run.Cgroup() }

func removeCgroup(dir string) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		err := unix.Rmdir(dir)
		// A process that has just died may count as a member for a moment more: EBUSY.
		if err == nil || err == unix.ENOENT {
			return nil
		}
		if err != unix.EBUSY || time.Now().After(deadline) {
			return fmt.Errorf("remove cgroup %s (processes %v): %w", dir, cgroup.ProcsIn(dir), err)
		}
	}
}

// Remove removes dir with all in it, and counts what was no directory; but nothing while anything is mounted there.
func Remove(dir string) (files int, err error) {
	// To remove through a mount that is still there would reach into somebody else's files.
	ms, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return 0, err
	}
	if len(ms) > 0 {
		return 0, fmt.Errorf("not removed: %s is still mounted", ms[0].Mountpoint)
	}
	_ = filepath.Walk(dir, func(_ string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
			files++
		}
		return nil
	})
	return files, os.RemoveAll(dir)
}

// controllersFile in Dir says which controllers were on at the root of the v2 hierarchy before the lab's first run.
const controllersFile = "cgroup.subtree_control"

func unified() (cgroup.Hierarchy, bool) {
	hs, _ := cgroup.Hierarchies()
	i := slices.IndexFunc(hs, func(h cgroup.Hierarchy) bool { return h.V2 })
	if i < 0 {
		return cgroup.Hierarchy{}, false
	}
	return hs[i], true
}

// noteControllers writes controllersFile where it is missing.
func noteControllers() error {
	f := filepath.Join(Dir, controllersFile)
	h, ok := unified()
	if !ok || exists(f) {
		return nil
	}
	data, err := os.ReadFile(h.Path(controllersFile))
	if err != nil {
		return err
	}
	return os.WriteFile(f, data, 0o644)
}

// lastOut removes the lab's own frame once no run is left: the root cgroup's controllers are as they were (a runtime
// turns on, from the root down, those that a container needs), and Dir and Cgroup are gone.
func removeRootIfIdle() error {
	names, err := runNames()
	if err != nil || len(names) > 0 {
		return err
	}
	hs, err := cgroup.Hierarchies()
	if err != nil {
		return err
	}
	for _, h := range hs {
		// Busy: somebody else, such as a containerd of the host's own, has a namespace of the same name.
		err := unix.Rmdir(h.Path(Cgroup))
		if err != nil && err != unix.ENOENT && err != unix.EBUSY && err != unix.ENOTEMPTY {
			return fmt.Errorf("remove cgroup %s: %w", h.Path(Cgroup), err)
		}
	}
	f := filepath.Join(Dir, controllersFile)
	if h, ok := unified(); ok && exists(f) {
		before, err1 := os.ReadFile(f)
		now, err2 := os.ReadFile(h.Path(controllersFile))
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		for c := range strings.FieldsSeq(string(now)) {
			if !slices.Contains(strings.Fields(string(before)), c) {
				// Somebody else may use it by now; then it stays.
				_ = os.WriteFile(h.Path(controllersFile), []byte("-"+c), 0o644)
			}
		}
		if err := os.Remove(f); err != nil {
			return err
		}
	}
	// It may be a mount point, if somebody gave the lab a file system of its own.
	if err := os.Remove(Dir); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("the lab's directory holds something that is no run's: %w", err)
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
