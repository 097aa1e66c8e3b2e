//go:build linux

package failure

import (
	"os"
	"slices"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/proc"
)

// RecordParents records as a fact which process of the victim is whose parent now. The shim has to be the parent of init and exec
// while they are alive, except of those that were adopted. The parent of the shim is the process that adopts orphans.
func (v *Victim) RecordParents(when string, adopted ...string) {
	v.q.Helper()
	processes := map[string]proc.Identity{Shim: v.Shim.Identity, Init: v.Init.Identity}
	if v.Exec != nil {
		processes[Exec] = v.Exec.Identity
	}
	names := map[string]proc.PID{Adopter: v.Shim.Parent, "test": proc.PID(os.Getpid())}
	for name, process := range processes {
		names[name] = process.PID
	}
	if pid := v.d.PID(); pid != 0 {
		names[Containerd] = pid
	}
	parents := proc.Parents(v.q, names)
	delete(parents, "test") // which process has started it depends on how the lab is run
	for name, process := range processes {
		if _, known := parents[name]; !known && !process.Alive() {
			continue
		}
		want := Shim
		if name == Shim || slices.Contains(adopted, name) {
			want = Adopter
		}
		assert.Check(v.q, cmp.Equal(parents[name], want), "%s: the parent of %s, %s: %v", v, name, when, parents)
	}
	v.q.Fact(v.String()+": parents "+when, parents)
}
