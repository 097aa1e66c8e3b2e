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

// ctr gives up after ten seconds. Then it has called nothing, and may be run again.
func TestHasNotConnected_InTheWordsOfEachRelease(t *testing.T) {
	for message, want := range map[string]bool{
		`ctr: failed to dial "/run/x.sock": context deadline exceeded`:                                              true, // 1.7.29
		`ctr: failed to dial "/run/x.sock": context deadline exceeded: connection error: desc = "transport: error"`: true,
		`ctr: rpc error: code = Unavailable desc = connection error: desc = "transport: error while dialing"`:       true,
		`ctr: task cdb: already exists`: false,
	} {
		assert.Equal(t, hasNotConnected(message), want, message)
	}
}
