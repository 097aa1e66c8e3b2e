//go:build linux && vmlab && selftest

package selftest

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// The same go test a second time asks again: what it would show as "(cached)" may be of another kernel or another runc.
func TestGoTest_AsksAgain(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("sudo does not find go: make selftest as root, with go on PATH, shows this")
	}
	before := takeInventory(t)
	for range 2 {
		cmd := exec.Command("go", "test", "-tags", "vmlab", "-run", "WhichFieldsDecideWhatWillRun", ".")
		cmd.Dir, cmd.Env = "..", append(os.Environ(), "CDB_DISPOSABLE=yes")
		out, err := cmd.CombinedOutput()
		assert.NilError(t, err, "%s", out)
		assert.Check(t, !strings.Contains(string(out), "(cached)"), "%s", out)
	}
	assertHostUnchanged(t, before)
}
