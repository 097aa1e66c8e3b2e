//go:build linux

package host

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"cdblab/helpers/cgroup"
)

// controllersFile is the file of the v2 hierarchy's root that lists the controllers which are enabled for its children. The
// file of the same name in Dir has the controllers that were enabled before the lab's first run.
const controllersFile = "cgroup.subtree_control"

// v2Hierarchy returns the mounted v2 hierarchy, if there is one.
func v2Hierarchy() (cgroup.Hierarchy, bool) {
	hierarchies, _ := cgroup.Hierarchies()
	i := slices.IndexFunc(hierarchies, func(h cgroup.Hierarchy) bool { return h.V2 })
	if i < 0 {
		return cgroup.Hierarchy{}, false
	}
	return hierarchies[i], true
}

// noteControllers writes controllersFile if it does not exist.
func noteControllers() error {
	note := filepath.Join(Dir, controllersFile)
	h, ok := v2Hierarchy()
	if !ok || exists(note) {
		return nil
	}
	data, err := os.ReadFile(h.Path(controllersFile))
	if err != nil {
		return err
	}
	return os.WriteFile(note, data, 0o644)
}

// restoreControllers disables the controllers that noteControllers has not seen, and removes its note. A runtime enables, from
// the root down, the controllers that a container needs.
func restoreControllers() error {
	note := filepath.Join(Dir, controllersFile)
	h, ok := v2Hierarchy()
	if !ok || !exists(note) {
		return nil
	}
	before, err1 := os.ReadFile(note)
	now, err2 := os.ReadFile(h.Path(controllersFile))
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	for controller := range strings.FieldsSeq(string(now)) {
		if !slices.Contains(strings.Fields(string(before)), controller) {
			// If another program uses the controller by now, the kernel refuses to disable it, and it stays.
			_ = os.WriteFile(h.Path(controllersFile), []byte("-"+controller), 0o644)
		}
	}
	return os.Remove(note)
}
