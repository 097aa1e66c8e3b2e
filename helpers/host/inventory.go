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

	"cdblab/helpers/cgroup"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Picture is what a host holds at one moment: for each kind of thing ("mount", "cgroup", "process", "namespace",
// "socket", "file", "loop device", "device"), name → description.
type Inventory map[string]map[string]string

// DefaultPlaces are where runc and containerd put things when nobody tells them otherwise. The lab tells them
// otherwise, so nothing of the lab's may appear there.
var DefaultPlaces = []string{
	"/run/containerd", "/var/lib/containerd", "/etc/containerd", "/opt/containerd",
	"/run/nri", "/opt/nri", "/run/runc", "/run/crun",
}

// TakePicture looks at the whole host.
func TakeInventory() (Inventory, error) { return take(nil) }

// PictureOf looks at the host as far as a part of the lab could have changed it: for a question, which looks often, and
// beside others that change it too. What of a part could be anywhere else, the whole picture shows that a run begins and
// ends with.
func TakeInventoryOf(part Owner) (Inventory, error) { return take(&part) }

func take(part *Owner) (Inventory, error) {
	p := Inventory{}
	for _, look := range []func(Inventory, *Owner) error{mounts, cgroups, processes, sockets, files, loops, devices} {
		if err := look(p, part); err != nil {
			return nil, fmt.Errorf("take a picture of the host: %w", err)
		}
	}
	return p, nil
}

func (p Inventory) put(kind, name, description string) {
	if p[kind] == nil {
		p[kind] = map[string]string{}
	}
	p[kind][name] = description
}

func mounts(p Inventory, _ *Owner) error {
	ms, err := mountinfo.GetMounts(nil)
	if err != nil {
		return err
	}
	for _, m := range ms {
		p.put("mount", fmt.Sprintf("%s (%s)", m.Mountpoint, m.FSType), fmt.Sprintf("from %s %s", m.Source, m.Root))
	}
	return nil
}

func cgroups(p Inventory, part *Owner) error {
	hs, err := cgroup.Hierarchies()
	if err != nil {
		return err
	}
	for _, h := range hs {
		below := []string{"/"}
		if part != nil {
			below = labRoots(h)
		}
		var all []string
		for _, top := range below {
			all = append(all, cgroup.Subtree(h, top)...)
		}
		for _, cg := range all {
			p.put("cgroup", h.Name+":"+cg, h.Path(cg))
		}
		if h.V2 {
			// Creating a cgroup with limits makes the runtime turn controllers on from the root down.
			data, err := os.ReadFile(h.Path("cgroup.subtree_control"))
			if err == nil {
				for c := range strings.FieldsSeq(string(data)) {
					p.put("cgroup controller", h.Name+":+"+c, "in "+h.Path("cgroup.subtree_control"))
				}
			}
		}
	}
	return nil
}

func processes(p Inventory, part *Owner) error {
	ps, err := processesWhere(func(q Process) bool { return part == nil || q.OwnedBy(*part) })
	if err != nil {
		return err
	}
	for _, proc := range ps {
		p.put("process", fmt.Sprintf("%d/%d", proc.PID, proc.Start), proc.String())
		for _, ns := range proc.Namespaces {
			p.put("namespace", fmt.Sprint(ns), "held by "+proc.String())
		}
	}
	return nil
}

func sockets(p Inventory, _ *Owner) error {
	// Only a bound socket has a path, in the eighth column (proc_net_unix(5)). An abstract one begins with @.
	data, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return err
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		if f := strings.Fields(line); len(f) == 8 && strings.ContainsAny(f[7], "/@") {
			p.put("socket", f[7], "bound")
		}
	}
	return nil
}

func files(p Inventory, part *Owner) error {
	ours := Dir
	if part != nil {
		ours = part.Dir()
	}
	for _, root := range slices.Concat(DefaultPlaces, []string{ours}) {
		_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return nil //nolint:nilerr // it is not there, or it vanished
			}
			kind := "file"
			switch {
			case d.Type()&fs.ModeNamedPipe != 0:
				kind = "FIFO"
			case d.Type()&fs.ModeSocket != 0:
				kind = "socket file"
			case d.IsDir():
				kind = "directory"
			}
			p.put(kind, path, d.Type().String())
			// Deep enough for <state>/<plugin>/<namespace>/<id>; a rootfs has thousands of files and tells no more.
			if d.IsDir() && strings.Count(strings.TrimPrefix(path, root), "/") >= depth(root) {
				return fs.SkipDir
			}
			return nil
		})
	}
	return nil
}

// deep is how many levels of a directory are looked at; a question's own is two levels below [Dir].
func depth(root string) int {
	if strings.HasPrefix(root, Dir+"/") {
		return 2
	}
	return 4
}

func loops(p Inventory, _ *Owner) error {
	backing, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return err
	}
	for _, f := range backing {
		if data, err := os.ReadFile(f); err == nil {
			p.put("loop device", strings.Split(f, "/")[3], "backed by "+strings.TrimSpace(string(data)))
		}
	}
	return nil
}

func devices(p Inventory, _ *Owner) error {
	// A program that runs as root and "cleans up" its output file can replace /dev/null by a regular file; everything
	// on the host then fails in odd ways.
	p.put("device", "/dev/null "+describeDevice("/dev/null"), "")
	return nil
}

func describeDevice(path string) string {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return err.Error()
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR {
		return fmt.Sprintf("is no character device (mode %o)", st.Mode)
	}
	return fmt.Sprintf("char %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
}

// NullDevice returns an error unless /dev/null is the null device, char 1:3.
func CheckNullDevice() error {
	if got := describeDevice("/dev/null"); got != "char 1:3" {
		return fmt.Errorf("/dev/null %s, not char 1:3: mend it with: rm -f /dev/null && mknod -m 666 /dev/null c 1 3", got)
	}
	return nil
}

// Change is one difference between two pictures.
type Change struct {
	Kind, Name, Description string
	Gone                    bool // it was there before; else it was not
}

func (c Change) String() string {
	if c.Gone {
		return fmt.Sprintf("%s gone: %s %s", c.Kind, c.Name, c.Description)
	}
	return fmt.Sprintf("%s left: %s %s", c.Kind, c.Name, c.Description)
}

// Diff lists the changes from one picture to the other, sorted.
func Diff(before, after Inventory) []Change {
	var out []Change
	add := func(a, b Inventory, gone bool) {
		for _, kind := range slices.Sorted(maps.Keys(b)) {
			for _, name := range slices.Sorted(maps.Keys(b[kind])) {
				if _, ok := a[kind][name]; !ok {
					out = append(out, Change{kind, name, b[kind][name], gone})
				}
			}
		}
	}
	add(before, after, false)
	add(after, before, true)
	return out
}

// Of keeps the changes that a part of the lab answers for: what carries its name; and what appeared in a [DefaultPlaces]
// entry that the host did not use before, under an id of the lab's, or in place of the null device, whoever made it.
func OwnedBy(changes []Change, before Inventory, part Owner) []Change {
	return slices.DeleteFunc(slices.Clone(changes), func(c Change) bool { return !isOwnedBy(c, before, part) })
}

func isOwnedBy(c Change, before Inventory, part Owner) bool {
	if c.Kind == "device" {
		return true
	}
	if c.Gone {
		return false
	}
	if part.Owns(c.Name) || part.Owns(c.Description) {
		return true
	}
	if c.Kind == "process" || c.Kind == "namespace" {
		return false // its description has every name by which it could be the lab's
	}
	for _, place := range DefaultPlaces {
		if pathBegins(c.Name, place) {
			if usedPlaces.has(place) || madeByARun(place) || ownedName.MatchString(c.Name) {
				return false // the run's own traces there are known by their suffix, and so are those of a run beside it
			}
			// Where the host's own runc or containerd lives, what has an id of the lab's is still not its own.
			return before["directory"][place] == "" || strings.Contains(c.Name, "/cdb-")
		}
	}
	return false
}
