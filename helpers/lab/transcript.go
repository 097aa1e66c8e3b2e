//go:build linux

package lab

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// createTranscript creates the file for the transcript of a test, in the test's artifact directory. Root gives both to the owner of
// the directory around them: after a run through sudo, its user can still remove them.
func createTranscript(t *testing.T) (*os.File, error) {
	dir := t.ArtifactDir()
	f, err := os.Create(filepath.Join(dir, "transcript.sh"))
	if err != nil || os.Geteuid() != 0 {
		return f, err
	}
	info, err := os.Stat(filepath.Dir(dir))
	if err != nil {
		return f, err
	}
	owner := info.Sys().(*syscall.Stat_t)
	return f, errors.Join(os.Chown(dir, int(owner.Uid), int(owner.Gid)), f.Chown(int(owner.Uid), int(owner.Gid)))
}
