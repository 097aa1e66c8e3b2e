//go:build linux

package failure

import (
	"os"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/proc"
)

// RecordParents records as a fact which process of the victim is whose parent now. In want are the processes that have to be
// alive, with the names of their parents, except for containerd, which the test has started. The parent of the shim adopts
// orphans.
func (v *Victim) RecordParents(when string, want map[string]string) {
	v.q.Helper()
	names := map[string]proc.PID{
		Shim: v.Shim.PID, Init: v.Init.PID, Adopter: v.Shim.Parent, "test": proc.PID(os.Getpid()),
	}
	if pid := v.d.PID(); pid != 0 {
		names[Containerd] = pid
	}
	if v.Exec != nil {
		names[Exec] = v.Exec.PID
	}
	parents := proc.Parents(v.q, names)
	delete(parents, "test") // which process has started it depends on how the lab is run
	v.q.Fact(v.String()+": parents "+when, parents)
	delete(parents, Containerd)
	assert.Check(v.q, cmp.DeepEqual(parents, want), "%s: the parent of each process that is alive, %s", v, when)
}

// ParentsOf returns the parents of a task's processes that are alive, where no orphan was adopted.
func ParentsOf(alive ...string) map[string]string {
	parent := map[string]string{Shim: Adopter, Init: Shim, Exec: Shim}
	out := map[string]string{}
	for _, name := range alive {
		out[name] = parent[name]
	}
	return out
}
