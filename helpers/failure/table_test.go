//go:build linux

package failure

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
)

// The table has a line for each row, and a column for each death.
func TestFormat_HasAColumnForEachDeath(t *testing.T) {
	killed := Death{Killed: Shim, Signal: unix.SIGKILL, When: Running}.String()
	asked := Death{Killed: Shim, Signal: unix.SIGTERM, When: Running}.String()
	table := map[string]Observation{killed: {}, asked: {}}
	for _, row := range rows {
		table[killed][row], table[asked][row] = "-", "after kill, delete"
	}
	lines := strings.Split(strings.TrimSpace(format("after the death of", []string{killed, asked}, table)), "\n")
	assert.Equal(t, len(lines), 1+len(rows))
	assert.Equal(t, lines[0], "after the death of   shim KILL, running   shim TERM, running")
	assert.Equal(t, lines[1], "init                 -                    after kill, delete")
}

func TestObservation_BeginsWithWhatRemains(t *testing.T) {
	o := Observation{
		"init": "dead", "exec": "none", "shim": "alive", "bundle": "there", "cgroup": "gone",
		"new client: task": "STOPPED 7", "event 1": "exit init 7", "event 2": "-",
	}
	for _, row := range rows {
		if _, ok := o[row]; !ok {
			o[row] = "-"
		}
	}
	assert.Equal(t, o.String(),
		"alive: shim; there: bundle; dead: init; gone: cgroup; new client: task: STOPPED 7; event 1: exit init 7")
}
