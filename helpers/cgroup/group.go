//go:build linux

package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gotest.tools/v3/poll"

	"cdblab/helpers/proc"
)

// Group is a control group: one directory on v2, one for each hierarchy on v1.
type Group struct {
	Path string // relative to the root of each hierarchy
	V2   bool   // its controllers are in the unified hierarchy

	tb          testing.TB
	hierarchies []Hierarchy
}

// Of returns the group with this path, such as config.json's linux.cgroupsPath. It need not exist.
func Of(tb testing.TB, path string) Group {
	tb.Helper()
	hierarchies, err := Hierarchies()
	if err != nil {
		tb.Fatalf("find the cgroup hierarchies: %v", err)
	}
	return Group{Path: path, V2: ModeOf(hierarchies) == ModeV2, tb: tb, hierarchies: hierarchies}
}

// Has reports whether a mounted hierarchy has the controller ("memory").
func (g Group) Has(controller string) bool { return g.hierarchy(controller) != nil }

// hierarchy returns the hierarchy that has the controller, or nil.
func (g Group) hierarchy(controller string) *Hierarchy { return With(g.hierarchies, controller) }

// With returns the hierarchy that has the controller, or nil.
func With(hierarchies []Hierarchy, controller string) *Hierarchy {
	v2 := ModeOf(hierarchies) == ModeV2
	for _, h := range hierarchies {
		if h.V2 && v2 {
			list, _ := os.ReadFile(h.Path("cgroup.controllers"))
			// The freezer and the device filter are part of v2 itself. They are no controllers there.
			if slices.Contains(append(strings.Fields(string(list)), "", "freezer", "devices"), controller) {
				return &h
			}
		}
		if !h.V2 && slices.Contains(strings.Split(h.Name, ","), controller) {
			return &h
		}
	}
	return nil
}

// Dir returns the group's directory in the hierarchy that has the controller.
func (g Group) Dir(controller string) string {
	g.tb.Helper()
	h := g.hierarchy(controller)
	if h == nil {
		g.tb.Fatalf("no mounted cgroup hierarchy has the controller %q", controller)
	}
	return h.Path(g.Path)
}

// Dirs lists the group's directory in each hierarchy.
func (g Group) Dirs() []string {
	var out []string
	for _, h := range g.hierarchies {
		out = append(out, h.Path(g.Path))
	}
	return out
}

// Try returns the content of a controller's file without the white space around it. The file may be missing.
func (g Group) Try(controller, file string) (string, error) {
	g.tb.Helper()
	data, err := os.ReadFile(filepath.Join(g.Dir(controller), file))
	return strings.TrimSpace(string(data)), err
}

// Read is [Group.Try] for a file that has to be readable.
func (g Group) Read(controller, file string) string {
	g.tb.Helper()
	s, err := g.Try(controller, file)
	if err != nil {
		g.tb.Fatalf("read a file of cgroup %s: %v%s", g.Path, err, g.retracted(controller))
	}
	return s
}

// retracted explains a missing file of a group on v2, whose parent has the controller no more. It returns "" otherwise.
func (g Group) retracted(controller string) string {
	list, err := os.ReadFile(filepath.Join(g.Dir(controller), "cgroup.controllers"))
	if !g.V2 || err != nil || slices.Contains(append(strings.Fields(string(list)), "", "freezer", "devices"), controller) {
		return ""
	}
	return fmt.Sprintf("\nThe group has the controllers %q, and %s is none of them. systemd retracts a controller that none of its own "+
		"units needs, for instance at systemctl daemon-reload. Run the lab where systemd does not manage the cgroups, as in make lab.",
		strings.TrimSpace(string(list)), controller)
}

// Stat returns the number for a key in a file that has a key and a number on each line, such as memory.stat.
func (g Group) Stat(controller, file, key string) uint64 {
	g.tb.Helper()
	n, err := stat(g.Read(controller, file), key)
	if err != nil {
		g.tb.Fatalf("%s of cgroup %s: %v", file, g.Path, err)
	}
	return n
}

func stat(text, key string) (uint64, error) {
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == key {
			return strconv.ParseUint(f[1], 10, 64)
		}
	}
	return 0, fmt.Errorf("no line %q in %q", key, text)
}

// Settings returns the content of each file of the group that can be read and written, by the name of its hierarchy and its own:
// "unified/cpu.max". These files say what is set for the group. Those that say which processes it has, and what these use, are left out.
func (g Group) Settings() map[string]string {
	g.tb.Helper()
	out := map[string]string{}
	for _, h := range g.hierarchies {
		files, err := os.ReadDir(h.Path(g.Path))
		if os.IsNotExist(err) {
			continue // in hybrid mode not every runtime makes a group in the unified hierarchy
		}
		if err != nil {
			g.tb.Fatalf("read the files of cgroup %s: %v", g.Path, err)
		}
		for _, f := range files {
			info, err := f.Info()
			if err != nil || !info.Mode().IsRegular() || info.Mode()&0o600 != 0o600 || usageFile.MatchString(f.Name()) {
				continue
			}
			content, err := os.ReadFile(filepath.Join(h.Path(g.Path), f.Name()))
			if err != nil {
				content = []byte(err.Error()) // such as EOPNOTSUPP
			}
			out[h.Name+"/"+f.Name()] = strings.TrimSpace(string(content))
		}
	}
	return out
}

// usageFile matches the names of files that can be written, and that change while processes run: members, counters that a write
// resets, and pressures, of which a write asks for messages.
var usageFile = regexp.MustCompile(`^(tasks|cgroup\.procs|cgroup\.threads|.*\.pressure|.*\.peak|.*usage.*|.*\.failcnt)$`)

// Frozen reports whether the group is frozen. It reads cgroup.events on v2, freezer.state on v1.
func (g Group) Frozen() bool {
	g.tb.Helper()
	if g.V2 {
		return g.Stat("", "cgroup.events", "frozen") == 1
	}
	return g.Read("freezer", "freezer.state") == "FROZEN"
}

// Thawed reports whether the group is neither frozen nor about to be. It reads cgroup.freeze on v2, freezer.state on v1, which is FREEZING
// as long as one of the processes still runs.
func (g Group) Thawed() bool {
	g.tb.Helper()
	if g.V2 {
		return g.Read("", "cgroup.freeze") == "0"
	}
	return g.Read("freezer", "freezer.state") == "THAWED"
}

// Procs lists the processes of the group, by their pids in the test's pid namespace.
func (g Group) Procs() []proc.PID {
	g.tb.Helper()
	var out []proc.PID
	for f := range strings.FieldsSeq(g.Read(g.anyController(), "cgroup.procs")) {
		pid, err := strconv.Atoi(f)
		if err != nil {
			g.tb.Fatalf("cgroup.procs of %s: %v", g.Path, err)
		}
		out = append(out, proc.PID(pid))
	}
	slices.Sort(out)
	return out
}

// anyController returns a controller that the lab's groups always have.
func (g Group) anyController() string {
	if g.V2 {
		return ""
	}
	return "pids"
}

// Version returns the version of the hierarchies that have the controllers: "v1" (also in hybrid mode) or "v2".
func Version(tb testing.TB) string {
	tb.Helper()
	hierarchies, err := Hierarchies()
	if err != nil {
		tb.Fatalf("find the cgroup hierarchies: %v", err)
	}
	if ModeOf(hierarchies) == ModeV2 {
		return "v2"
	}
	return "v1"
}

// Removed returns a check that removes an empty cgroup, and succeeds when it is gone. The kernel removes a cgroup only
// when its last process is gone.
func Removed(dir string) poll.Check {
	return func(poll.LogT) poll.Result {
		if err := os.Remove(dir); err != nil && !os.IsNotExist(err) {
			return poll.Continue("%v", err)
		}
		return poll.Success()
	}
}

// CPUTime returns the processor time that the group has used, in nanoseconds.
func (g Group) CPUTime() uint64 {
	if g.V2 {
		return 1000 * g.Stat("", "cpu.stat", "usage_usec")
	}
	n, _ := strconv.ParseUint(g.Read("cpuacct", "cpuacct.usage"), 10, 64)
	return n
}

// CPUs returns the list of the CPUs on which the group's processes may run.
func (g Group) CPUs() string {
	g.tb.Helper()
	switch {
	case !g.Has("cpuset"):
		online, err := os.ReadFile("/sys/devices/system/cpu/online")
		if err != nil {
			g.tb.Fatal(err)
		}
		return strings.TrimSpace(string(online))
	case g.V2:
		return g.Read("cpuset", "cpuset.cpus.effective")
	}
	return g.Read("cpuset", "cpuset.effective_cpus")
}
