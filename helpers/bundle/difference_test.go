//go:build linux

package bundle

import (
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

func example() *specs.Spec {
	return &specs.Spec{
		Process: &specs.Process{Terminal: true, Args: []string{"sh"}, Env: []string{"PATH=/bin", "TERM=xterm"}},
		Mounts:  []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}, {Destination: "/dev", Type: "tmpfs", Source: "tmpfs"}},
	}
}

func TestDifference_IgnoresOrderThatMeansNothing(t *testing.T) {
	a, b := example(), example()
	same, err := Difference(a, b)
	assert.NilError(t, err)
	assert.Check(t, cmp.Len(same, 0))

	b.Process.Args = []string{"sleep", "3600"}
	b.Process.Terminal = false
	b.Process.Env = []string{"TERM=dumb", b.Process.Env[0]} // one word is changed, and the order, which means nothing
	b.Mounts[0], b.Mounts[1] = b.Mounts[1], b.Mounts[0]     // the order alone is changed
	b.Mounts = append(b.Mounts, specs.Mount{Destination: "/run", Type: "tmpfs", Source: "tmpfs"})
	got, err := Difference(a, b)
	assert.NilError(t, err)
	assert.DeepEqual(t, got, []string{
		`+ mounts[/run] = {"destination":"/run","source":"tmpfs","type":"tmpfs"}`,
		`- process.args = ["sh"]`,
		`+ process.args = ["sleep","3600"]`,
		`- process.env has TERM=xterm`,
		`+ process.env has TERM=dumb`,
		`- process.terminal = true`,
	})
}
