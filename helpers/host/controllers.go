//go:build linux

package host

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"

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
	return renameio.WriteFile(note, data, 0o644)
}

// restoreControllers disables the controllers that noteControllers has not seen, and removes its note. A runtime enables, from
// the root down, the controllers that a container needs. A controller that the host uses by now stays enabled. The caller removes
// Cgroup afterwards.
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
	if err := os.Mkdir(h.Path(Cgroup), 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err // it shows the defaults
	}
	for controller := range strings.FieldsSeq(string(now)) {
		if !slices.Contains(strings.Fields(string(before)), controller) {
			// The kernel refuses this only if a child has enabled the controller for its own children.
			if !usesController(h.Mountpoint, h.Path(Cgroup), controller) {
				_ = os.WriteFile(h.Path(controllersFile), []byte("-"+controller), 0o644)
			}
		}
	}
	return os.Remove(note)
}

// usesController reports whether a cgroup below root, except the lab's own ones, has a setting of the controller that differs
// from the default. The default is what the lab's own cgroup has, which has never been configured.
func usesController(root, own, controller string) bool {
	settings, _ := filepath.Glob(filepath.Join(root, "*", controller+".*"))
	return slices.ContainsFunc(settings, func(setting string) bool {
		dir, name := filepath.Split(setting)
		info, err := os.Stat(setting)
		if err != nil || info.Mode()&0o200 == 0 || strings.HasPrefix(filepath.Base(dir), filepath.Base(Cgroup)) {
			return false
		}
		for _, measured := range []string{".peak", ".pressure", ".reclaim"} { // one can write to them, but they limit nothing
			if strings.HasSuffix(name, measured) {
				return false
			}
		}
		value, err1 := os.ReadFile(setting)
		usual, err2 := os.ReadFile(filepath.Join(own, name))
		return err1 == nil && (err2 != nil || string(value) != string(usual))
	})
}
