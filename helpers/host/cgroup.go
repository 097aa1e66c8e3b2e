//go:build linux

package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/retry"
	"cdblab/helpers/slowness"
)

// patience returns how long a sweep waits until the kernel has released what was killed or unmounted.
func patience() time.Duration { return slowness.Scale(10 * time.Second) }

// labRoots lists the cgroups at the root of a hierarchy below which the lab's cgroups are: Cgroup, and the cgroups of
// containerd namespaces whose names begin with it.
func labRoots(h cgroup.Hierarchy) []string {
	dirs, _ := filepath.Glob(h.Path(Cgroup) + "*")
	var out []string
	for _, dir := range dirs {
		out = append(out, "/"+filepath.Base(dir))
	}
	return out
}

// labCgroups lists the lab's cgroups in a hierarchy, of all owners. Parents come first.
func labCgroups(h cgroup.Hierarchy) []string {
	var out []string
	for _, top := range labRoots(h) {
		out = append(out, cgroup.Subtree(h, top)...)
	}
	return out
}

// thaw thaws the owner's cgroups. A process that the v1 freezer has frozen does not even react to SIGKILL.
func thaw(owner Owner) {
	hierarchies, _ := cgroup.Hierarchies()
	for _, h := range hierarchies {
		for _, path := range labCgroups(h) {
			if state := filepath.Join(h.Path(path), "freezer.state"); !h.V2 && owner.OwnsCgroup(path) && exists(state) {
				_ = os.WriteFile(state, []byte("THAWED"), 0o644)
			}
		}
	}
}

// removeCgroups removes the owner's cgroups in every hierarchy, and returns those that an experiment made. The cgroups of
// runs and questions themselves are removed as well, and not returned.
func removeCgroups(owner Owner) (removed []string, err error) {
	hierarchies, err := cgroup.Hierarchies()
	if err != nil {
		return nil, err
	}
	for _, h := range hierarchies {
		paths := labCgroups(h)
		slices.Reverse(paths) // children first
		for _, path := range paths {
			if !owner.OwnsCgroup(path) {
				continue
			}
			if err := removeCgroup(h.Path(path)); err != nil {
				return removed, err
			}
			if !pathBegins(owner.Cgroup(), path) && !(owner.Question == "" && isQuestionCgroup(owner, path)) {
				removed = append(removed, h.Name+":"+path)
			}
		}
	}
	return removed, nil
}

// removeEmptyCgroups removes the owner's cgroups that have no processes, and returns an error that names the others.
func removeEmptyCgroups(owner Owner) (Swept, error) {
	s := Swept{Dir: owner.Dir()}
	hierarchies, err := cgroup.Hierarchies()
	errs := []error{err}
	for _, h := range hierarchies {
		paths := labCgroups(h)
		slices.Reverse(paths) // children first
		for _, path := range paths {
			if !owner.OwnsCgroup(path) {
				continue
			}
			switch err := unix.Rmdir(h.Path(path)); err {
			case nil:
				s.Cgroups = append(s.Cgroups, h.Name+":"+path)
			case unix.ENOENT:
			default:
				errs = append(errs, fmt.Errorf("cgroup %s was not removed (%w): the directory of its run, %s, is gone, so nothing "+
					"proves that its processes %v are the lab's; end them by hand, and sweep again",
					h.Path(path), err, owner.Dir(), cgroup.ProcsIn(h.Path(path))))
			}
		}
	}
	return s, errors.Join(errs...)
}

// isQuestionCgroup reports whether a cgroup is the own cgroup of a question of the run, and not one that an experiment made.
func isQuestionCgroup(run Owner, path string) bool { return filepath.Dir(path) == run.Cgroup() }

func removeCgroup(dir string) error {
	var err error
	retry.Until(patience(), func() bool {
		// EBUSY: a process that has just died may count as a member for a moment longer.
		err = unix.Rmdir(dir)
		return err != unix.EBUSY
	})
	if err != nil && err != unix.ENOENT {
		return fmt.Errorf("remove cgroup %s (processes %v): %w", dir, cgroup.ProcsIn(dir), err)
	}
	return nil
}
