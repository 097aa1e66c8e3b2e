//go:build linux

package failure

import (
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
)

// A table is compared cell by cell with the pinned one: what is parsed has to be what was formatted.
func TestParse_ReadsWhatFormatWrites(t *testing.T) {
	killed := Death{Killed: Shim, Signal: unix.SIGKILL, When: Running}.String()
	asked := Death{Killed: Shim, Signal: unix.SIGTERM, When: Running}.String()
	table := map[string]Observation{killed: {}, asked: {}}
	for _, row := range rows {
		table[killed][row], table[asked][row] = "-", "after kill, delete"
	}
	table[killed]["shim's socket"] = "error (Unavailable)"

	got := parse(format([]string{killed, asked}, table))
	assert.Equal(t, len(got), 2*len(rows))
	for column, o := range table {
		for row, cell := range o {
			assert.Equal(t, got[column+": "+row], cell)
		}
	}
	assert.Equal(t, got["shim KILL, running: shim's socket"], "error (Unavailable)")
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
