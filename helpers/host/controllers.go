//go:build linux

package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"cdblab/helpers/cgroup"
)

// controllersFile is the file of the v2 hierarchy's root that lists the controllers which are enabled for its children. The
// file of the same name in Dir is the lab's note: its first line has the controllers that were enabled before the lab's first run,
// and each further line has a cgroup that was there, by name and inode.
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
	controllers, err := os.ReadFile(h.Path(controllersFile))
	if err != nil {
		return err
	}
	lines := append([]string{strings.TrimSpace(string(controllers))}, topCgroups(h)...)
	return renameio.WriteFile(note, []byte(strings.Join(lines, "\n")+"\n"), 0o644)
}

// topCgroups lists the cgroups at the root of a hierarchy, by name and inode, except the lab's own ones. A cgroup that is made
// again under the same name has another inode.
func topCgroups(h cgroup.Hierarchy) []string {
	entries, _ := os.ReadDir(h.Mountpoint)
	var out []string
	for _, e := range entries {
		var st unix.Stat_t
		path := filepath.Join(h.Mountpoint, e.Name())
		if e.IsDir() && !strings.HasPrefix(e.Name(), filepath.Base(Cgroup)) && unix.Lstat(path, &st) == nil {
			out = append(out, fmt.Sprintf("%s %d", e.Name(), st.Ino))
		}
	}
	return out
}

// restoreControllers disables the controllers that noteControllers has not seen, and removes its note. A runtime enables, from
// the root down, the controllers that a container needs. A controller that the host uses by now stays enabled. So all controllers
// stay enabled if the host has made a cgroup since: it may only measure, and nothing would show that. The caller removes Cgroup
// afterwards.
func restoreControllers() error {
	note := filepath.Join(Dir, controllersFile)
	h, ok := v2Hierarchy()
	if !ok || !exists(note) {
		return nil
	}
	data, err1 := os.ReadFile(note)
	now, err2 := os.ReadFile(h.Path(controllersFile))
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	before := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	controllers, cgroups := strings.Fields(before[0]), before[1:]
	isNew := func(name string) bool { return !slices.Contains(cgroups, name) }
	if slices.ContainsFunc(topCgroups(h), isNew) {
		return os.Remove(note)
	}
	// The cgroup is made again: it shows the defaults then, and it has no controllers enabled for children of its own, because of
	// which the kernel would refuse to disable them at the root. It stays if another program has cgroups below it.
	_ = unix.Rmdir(h.Path(Cgroup))
	if err := os.Mkdir(h.Path(Cgroup), 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	for controller := range strings.FieldsSeq(string(now)) {
		if slices.Contains(controllers, controller) || usesController(h.Mountpoint, h.Path(Cgroup), controller) {
			continue
		}
		// The kernel refuses this only if a child has enabled the controller for its own children: then the host uses it.
		_ = os.WriteFile(h.Path(controllersFile), []byte("-"+controller), 0o644)
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
