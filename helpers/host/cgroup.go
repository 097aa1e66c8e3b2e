//go:build linux

package host

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/retry"
)

// patience is how long a sweep waits until the kernel has released what was killed or unmounted.
const patience = 10 * time.Second

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

// labCgroups lists the lab's cgroups in a hierarchy, whoever their owner is. Parents come first.
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
			if state := filepath.Join(h.Path(path), "freezer.state"); !h.V2 && owner.Owns(path) && exists(state) {
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
			if !owner.Owns(path) {
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

// isQuestionCgroup reports whether a cgroup is the own cgroup of a question of the run, and not one that an experiment made.
func isQuestionCgroup(run Owner, path string) bool { return filepath.Dir(path) == run.Cgroup() }

func removeCgroup(dir string) error {
	var err error
	retry.Until(patience, func() bool {
		// EBUSY: a process that has just died may count as a member for a moment longer.
		err = unix.Rmdir(dir)
		return err != unix.EBUSY
	})
	if err != nil && err != unix.ENOENT {
		return fmt.Errorf("remove cgroup %s (processes %v): %w", dir, cgroup.ProcsIn(dir), err)
	}
	return nil
}
