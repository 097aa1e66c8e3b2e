//go:build linux

package host

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"cdblab/helpers/retry"
)

// unitsDir has a file for each transient unit of systemd, from its start until systemd unloads it. Without systemd the directory does
// not exist.
const unitsDir = "/run/systemd/transient"

// markedUnits returns the marks of transient units by the units' names. A unit has the mark of its question in its file: a service in
// its environment, and a scope in its description. The name alone would not show that a unit is the lab's.
func markedUnits(dir string) map[string]string {
	entries, _ := os.ReadDir(dir)
	marks := map[string]string{}
	for _, e := range entries {
		if e.IsDir() { // settings of a unit
			continue
		}
		text, _ := os.ReadFile(filepath.Join(dir, e.Name()))
		if _, after, ok := strings.Cut(string(text), OwnerEnv+"="); ok {
			mark, _, _ := strings.Cut(after, "\n")
			marks[e.Name()] = strings.Trim(mark, `"'`)
		}
	}
	return marks
}

// unitsOf lists the transient units of an owner, sorted.
func unitsOf(owner Owner) (units []string) {
	marks := markedUnits(unitsDir)
	for _, name := range slices.Sorted(maps.Keys(marks)) {
		if owner.ownsMark(marks[name]) {
			units = append(units, name)
		}
	}
	return units
}

// HasUnit reports whether systemd has a transient unit, active or not.
func HasUnit(name string) bool { return exists(filepath.Join(unitsDir, name)) }

// StopUnits stops the transient units of an owner, with all processes in their cgroups, waits until systemd has unloaded them, and
// returns their names.
func StopUnits(owner Owner) (stopped []string, err error) {
	stopped = unitsOf(owner)
	var said []string
	for _, unit := range stopped {
		// KILL, because a container's program may ignore TERM, and systemd would wait for a minute and a half. kill fails if the unit has
		// no process, and reset-failed if the unit has not failed: what counts is that systemd unloads the unit.
		for _, verb := range [][]string{{"kill", "--signal=KILL"}, {"stop"}, {"reset-failed"}} {
			cmd := exec.Command("systemctl", append(verb, unit)...)
			cmd.Env = append(os.Environ(), "SYSTEMD_BUS_TIMEOUT=600") // not 25 s, which a slow machine may need
			if out, err := cmd.CombinedOutput(); err != nil && verb[0] == "stop" {
				text := strings.TrimSpace(string(out))
				said = append(said, cmp.Or(text[strings.LastIndex(text, "\n")+1:], err.Error()))
			}
		}
	}
	var left []string
	if !retry.Until(patience(), func() bool { left = unitsOf(owner); return len(left) == 0 }) {
		return stopped, fmt.Errorf("systemd still has the units %v, %v after they were stopped; stop said %q: look with systemctl status",
			left, patience(), said)
	}
	return stopped, nil
}

func (inv Inventory) addUnits(owner *Owner) error {
	for name, mark := range markedUnits(unitsDir) {
		if owner == nil || owner.ownsMark(mark) {
			inv.add("unit", name, mark)
		}
	}
	return nil
}
