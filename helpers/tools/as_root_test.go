//go:build linux

package tools

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"gotest.tools/v3/assert"
)

// sudo-rs ignores -E and, in older versions, --preserve-env. The test has a sudo that passes nothing on.
func TestAsRoot_PassesVariablesThroughASudoThatDropsThem(t *testing.T) {
	bin := t.TempDir()
	for name, script := range map[string]string{
		"id":   "echo 1000",
		"sudo": `case $1 in -*) echo "sudo: $1 is ignored" >&2; shift;; esac; exec env -i PATH="$PATH" SUDO=yes "$@"`,
	} {
		assert.NilError(t, os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755))
	}
	value := "it's a \"b\" $HOME `id`\nCDB_NOT_SET=of this one\n"
	cmd := exec.Command("../../scripts/as-root.sh", "sh", "-c", `printf '%s|%s|%s|%s' "$SUDO" "$CDB_RUNC" "$CDB_KEEP" "$0"`, "an 'argument'")
	cmd.Env = []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "CDB_RUNC=" + value, "CDB_KEEP=1", "HOME=/home/x"}
	out, err := cmd.CombinedOutput()
	assert.NilError(t, err, "%s", out)
	assert.Equal(t, string(out), "yes|"+value+"|1|an 'argument'")

	// A checkout may lie in a directory a=b, and env takes leading words with a = for variables.
	script := filepath.Join(t.TempDir(), "a=b")
	assert.NilError(t, os.WriteFile(script, []byte("#!/bin/sh\necho \"$CDB_KEEP $1\"\n"), 0o755))
	cmd = exec.Command("../../scripts/as-root.sh", script, "c=d")
	cmd.Env = []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "CDB_KEEP=1"}
	out, err = cmd.CombinedOutput()
	assert.NilError(t, err, "%s", out)
	assert.Equal(t, string(out), "1 c=d\n")
}
