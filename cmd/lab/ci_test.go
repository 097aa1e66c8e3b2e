//go:build linux

package main

import (
	"os"
	"path/filepath"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

// In two jobs of the workflow questions may fail, but the run has to come to its end. Any run leaves a facts.json, so the jobs go by
// lab fleet.
func TestFleet_AfterARunThatMayFail(t *testing.T) {
	workflow, err := os.ReadFile("../../.github/workflows/lab.yml")
	assert.NilError(t, err)
	assert.Check(t, cmp.Contains(string(workflow), "make lab || .lab/bin/lab fleet .lab/results/latest\n"))
	assert.Check(t, cmp.Contains(string(workflow), `make lab DISK="$(make -s disk)" || .lab/bin/lab fleet .lab/results/latest`+"\n"))
	for name, test := range map[string]struct {
		script string
		want   int
	}{
		"questions failed": {"cat $STREAM; exit 1", exitSame},
		"no question":      {"exit 1", exitNotCompared},
		"cut":              {"head -200 $STREAM; exit 1", exitNotCompared},
		"the machine failed": {`printf '%s\n' '{"Action":"output","Test":"TestX","Output":"lab: ` + machineFailed + `\n"}' \
			'{"Action":"fail"}'; exit 1`, exitNotCompared},
	} {
		t.Run(name, func(t *testing.T) {
			fakeGo(t, test.script)
			assert.Check(t, runMain([]string{"./go", "test", "."}) != 0)
			_, err := os.Stat(latest("facts.json"))
			assert.NilError(t, err)
			code, out := said(t, func() int { return fleetMain([]string{filepath.Dir(latest("x"))}) })
			assert.Check(t, cmp.Equal(code, test.want), "%s", out)
		})
	}
}
