//go:build linux

package lab

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

func TestDropped_NamesTheVariablesThatSudoDidNotPassOn(t *testing.T) {
	t.Setenv("CDB_KEEP", "")
	err := dropped("sudo", []string{"HOME=/root", "CDB_RUNC=crun", "CDB_KEEP=1"})
	assert.ErrorContains(t, err, "sudo did not pass on the variables that it was started with:\n    CDB_RUNC=crun\n")
	assert.ErrorContains(t, err, "sudo CDB_RUNC=value …")
	assert.Check(t, !cmp.Contains(err.Error(), "CDB_KEEP")().Success(), "a variable that is set to nothing is passed on")
	assert.NilError(t, dropped("sudo", []string{"HOME=/root", "PATH=/bin"}))
}

// checkSudo finds sudo among the ancestors of the lab's process: here a shell under the name sudo.
func TestCheckSudo_FindsTheAncestor(t *testing.T) {
	if os.Getenv("LAB_TEST_CHECKSUDO") == "1" {
		err := checkSudo()
		assert.ErrorContains(t, err, "sudo did not pass on")
		assert.ErrorContains(t, err, "CDB_RUNC=/the caller's\n")
		return
	}
	sudo := filepath.Join(t.TempDir(), "sudo")
	shell, err := exec.LookPath("sh")
	assert.NilError(t, err)
	assert.NilError(t, os.Symlink(shell, sudo))
	// The kernel names the process by the path. busybox looks at the first argument, and has no applet sudo.
	cmd := &exec.Cmd{Path: sudo, Args: []string{"sh", "-c",
		`unset CDB_RUNC; sh -c "\"$0\" -test.run=TestCheckSudo -test.v; exit \$?"; exit $?`, os.Args[0]}}
	cmd.Env = append(os.Environ(), "CDB_RUNC=/the caller's", "LAB_TEST_CHECKSUDO=1")
	out, err := cmd.CombinedOutput()
	assert.NilError(t, err, "%s", out)
	assert.Check(t, cmp.Contains(string(out), "--- PASS: TestCheckSudo"))
}
