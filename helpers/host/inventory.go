//go:build linux

package host

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"

	"cdblab/helpers/cgroup"
)

// Inventory is what a host has at one moment: for each kind of thing ("mount", "cgroup", "process", "namespace", "socket",
// "file", "loop device", "device", "unit", "AppArmor profile"), name → description.
type Inventory map[string]map[string]string

// TakeInventory returns the inventory of the whole host.
func TakeInventory() (Inventory, error) { return takeInventory(nil) }

// TakeInventoryOf returns the inventory of the host, limited to what an owner could have changed. It is for a question, which
// takes inventories often and at the same time as other questions. What a question may have left elsewhere is seen in the
// inventories of the whole host at the beginning and the end of a run.
func TakeInventoryOf(owner Owner) (Inventory, error) { return takeInventory(&owner) }

func takeInventory(owner *Owner) (Inventory, error) {
	inv := Inventory{}
	for _, add := range []func(*Owner) error{
		inv.addMounts, inv.addCgroups, inv.addProcesses, inv.addSockets, inv.addFiles, inv.addLoopDevices, inv.addDevices, inv.addUnits,
		inv.addProfiles,
	} {
		if err := add(owner); err != nil {
			return nil, fmt.Errorf("take the inventory of the host: %w", err)
		}
	}
	return inv, nil
}

func (inv Inventory) add(kind, name, description string) {
	if inv[kind] == nil {
		inv[kind] = map[string]string{}
	}
	inv[kind][name] = description
}

func (inv Inventory) addMounts(*Owner) error {
	mounts, err := mountinfo.GetMounts(nil)
	if err != nil {
		return err
	}
	for _, m := range mounts {
		inv.add("mount", fmt.Sprintf("%s (%s)", m.Mountpoint, m.FSType), fmt.Sprintf("from %s %s", m.Source, m.Root))
	}
	return nil
}

func (inv Inventory) addCgroups(owner *Owner) error {
	hierarchies, err := cgroup.Hierarchies()
	if err != nil {
		return err
	}
	for _, h := range hierarchies {
		tops := []string{"/"}
		if owner != nil {
			tops = labRoots(h)
		}
		for _, top := range tops {
			for _, path := range cgroup.Subtree(h, top) {
				inv.add("cgroup", h.Name+":"+path, h.Path(path))
			}
		}
		if h.V2 {
			// For a cgroup with limits, the runtime enables controllers from the root down.
			data, err := os.ReadFile(h.Path(controllersFile))
			if err == nil {
				for controller := range strings.FieldsSeq(string(data)) {
					inv.add("cgroup controller", h.Name+":+"+controller, "in "+h.Path(controllersFile))
				}
			}
		}
	}
	return nil
}

func (inv Inventory) addProcesses(owner *Owner) error {
	processes, err := processesWhere(func(p Process) bool { return owner == nil || p.OwnedBy(*owner) })
	if err != nil {
		return err
	}
	for _, p := range processes {
		inv.add("process", fmt.Sprintf("%d/%d", p.PID, p.Start), p.String())
		for _, ns := range p.Namespaces {
			inv.add("namespace", fmt.Sprint(ns), "held by "+p.String())
		}
	}
	return nil
}

func (inv Inventory) addSockets(*Owner) error {
	// Only a bound socket has a path, in the eighth column (proc_net_unix(5)). An abstract path begins with @.
	data, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return err
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		if f := strings.Fields(line); len(f) == 8 && strings.ContainsAny(f[7], "/@") {
			inv.add("socket", f[7], "bound")
		}
	}
	return nil
}

func (inv Inventory) addFiles(owner *Owner) error {
	labDir := Dir
	if owner != nil {
		labDir = owner.Dir()
	}
	for _, root := range slices.Concat(DefaultPlaces, []string{labDir}) {
		_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return nil //nolint:nilerr // it does not exist, or it was removed during the walk
			}
			inv.add(kindOf(d.Type()), path, d.Type().String())
			// Deep enough for <state>/<plugin>/<namespace>/<id>. A rootfs has thousands of files, which show nothing more.
			if d.IsDir() && strings.Count(strings.TrimPrefix(path, root), "/") >= walkDepth(root) {
				return fs.SkipDir
			}
			return nil
		})
	}
	return nil
}

// walkDepth returns how many levels of a directory an inventory has. A question's own directory is two levels below [Dir].
func walkDepth(root string) int {
	if strings.HasPrefix(root, Dir+"/") {
		return 2
	}
	return 4
}

func (inv Inventory) addLoopDevices(*Owner) error {
	backing, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return err
	}
	for _, f := range backing {
		if data, err := os.ReadFile(f); err == nil {
			inv.add("loop device", strings.Split(f, "/")[3], "backed by "+strings.TrimSpace(string(data)))
		}
	}
	return nil
}

func (inv Inventory) addDevices(*Owner) error {
	inv.add("device", "/dev/null "+describeAccess("/dev/null"), "") // see CheckNullDevice
	return nil
}

// Change is one difference between two inventories.
type Change struct {
	Kind, Name, Description string
	Gone                    bool // it is in the first inventory only; otherwise it is in the second one only
}

func (c Change) String() string {
	if c.Gone {
		return fmt.Sprintf("%s gone: %s %s", c.Kind, c.Name, c.Description)
	}
	return fmt.Sprintf("%s left: %s %s", c.Kind, c.Name, c.Description)
}

// Diff lists the changes from one inventory to the other, sorted.
func Diff(before, after Inventory) []Change {
	var out []Change
	addMissing := func(in, from Inventory, gone bool) {
		for _, kind := range slices.Sorted(maps.Keys(from)) {
			for _, name := range slices.Sorted(maps.Keys(from[kind])) {
				if _, ok := in[kind][name]; !ok {
					out = append(out, Change{kind, name, from[kind][name], gone})
				}
			}
		}
	}
	addMissing(before, after, false)
	addMissing(after, before, true)
	return out
}

// OwnedBy returns the changes for which an owner is responsible:
//
//   - what has a name of the owner,
//   - what appeared below a [DefaultPlaces] directory under an id of the lab; see [Unnamed],
//   - what replaced the null device, whichever program did it,
//   - what unmounted a file system below /dev or /sys, whichever program did it: no system does so while it runs.
func OwnedBy(changes []Change, owner Owner) []Change {
	return slices.DeleteFunc(slices.Clone(changes), func(c Change) bool { return !isOwnedBy(c, owner) })
}

// isSystemMount reports whether a mount is below /dev or /sys. A restore by runc 1.5.2 unmounts /dev/pts of the host, if the container
// has a bind mount of /dev and the host's mounts are shared. Other mounts, such as /run/user/1000, come and go by themselves.
func isSystemMount(c Change) bool {
	return c.Kind == "mount" && (strings.HasPrefix(c.Name, "/dev/") || strings.HasPrefix(c.Name, "/sys/"))
}

func isOwnedBy(c Change, owner Owner) bool {
	if c.Kind == "device" || isSystemMount(c) && c.Gone {
		return true
	}
	if c.Gone {
		return false
	}
	if c.Kind == "process" || c.Kind == "namespace" {
		return owner.ownsProcess(c.Description)
	}
	if c.Kind == "unit" {
		return owner.ownsMark(c.Description)
	}
	if c.Kind == "AppArmor profile" {
		return owner.ownsProfile(c.Name)
	}
	if owner.Owns(c.Name) || owner.Owns(c.Description) {
		return true
	}
	for _, place := range DefaultPlaces {
		if pathBegins(c.Name, place) {
			if usedPlaces.has(place) || usedByARun(place) || hasOwner.MatchString(c.Name) {
				return false // what this run and other runs make there is recognised by its suffix
			}
			return isNamed(c)
		}
	}
	return false
}

// isNamed reports whether a path shows that the lab made it: the ids and containerd namespaces of the lab begin with cdb-.
func isNamed(c Change) bool { return strings.Contains(c.Name, "/cdb-") }

// Unnamed returns the directories of [DefaultPlaces] that appeared and have no name of the lab in them. The kernel does not tell who made
// a directory. So the runtime under test may have made one in spite of its flags, or another program that uses the default:
// `crun list` of a user in another terminal makes /run/crun. Such a directory fails no question, and no sweep removes it.
func Unnamed(changes []Change) []Change {
	return slices.DeleteFunc(slices.Clone(changes), func(c Change) bool {
		return c.Gone || c.Kind != "directory" || !slices.Contains(DefaultPlaces, c.Name) || usedPlaces.has(c.Name) || madeByARun(c.Name)
	})
}
