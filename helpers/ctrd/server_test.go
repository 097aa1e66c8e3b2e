//go:build linux

package ctrd

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"cdblab/helpers/proc"
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

func TestOutput_EndsAProgramThatDoesNotEnd(t *testing.T) {
	patience := proc.Patience
	proc.Patience = 100 * time.Millisecond
	defer func() { proc.Patience = patience }()
	_, err := output("sleep", "60")
	assert.ErrorContains(t, err, "did not end within 100ms")
}
