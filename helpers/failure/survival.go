//go:build linux

package failure

import (
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/proc"
)

// AssertSameProcesses asserts that shim, init and exec are the processes that they were at the beginning, by all that the kernel shows of
// them.
func (v *Victim) AssertSameProcesses() {
	v.q.Helper()
	for _, before := range []proc.Process{v.Shim, v.Init, *v.Exec} {
		if !before.Alive() {
			v.q.Fatalf("%s: process %d (%s) is dead, and it had to survive", v, before.PID, before.Comm)
		}
		now, then := proc.Snapshot(v.q, before.PID).Identity, before.Identity
		if before.PID == v.Shim.PID {
			now.Mounts, then.Mounts = nil, nil // the host's, which change with every container
		}
		assert.Check(v.q, cmp.DeepEqual(now, then), "%s: process %d (%s)", v, before.PID, before.Comm)
	}
}

// AssertRows asserts what the observation has in some rows.
func (o Observation) AssertRows(v *Victim, want Observation) {
	v.q.Helper()
	for _, row := range rows {
		if value, ok := want[row]; ok {
			assert.Check(v.q, cmp.Equal(o[row], value), "%s: %s", v, row)
		}
	}
}
