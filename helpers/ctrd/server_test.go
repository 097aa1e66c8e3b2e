//go:build linux

package ctrd

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"gotest.tools/v3/assert"
)

func TestServer_AFileThatCannotBeExecutedDoesNotRun(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "containerd")
	assert.NilError(t, os.WriteFile(path, []byte("no program"), 0o755))
	s := server{dir: dir, command: func(argv ...string) (*exec.Cmd, error) { return exec.Command(path, argv[1:]...), nil }}
	assert.ErrorContains(t, s.start(), "exec format error")
	assert.Check(t, !s.runs())
	assert.NilError(t, s.stop())
}
