//go:build linux

package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// A build that got SIGKILL leaves its directory. The next `make tools` removes it, and not that of a build in progress.
func TestSweepBuilds_RemovesWhatKilledBuildsLeft(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "a [checkout]'s bin")
	old := time.Now().Add(-2 * time.Hour)
	for name, at := range map[string]time.Time{".new-killed": old, ".new-running": time.Now(), "runc": old} {
		assert.NilError(t, os.MkdirAll(filepath.Join(bin, name), 0o755))
		assert.NilError(t, os.WriteFile(filepath.Join(bin, name, "file"), nil, 0o755))
		assert.NilError(t, os.Chtimes(filepath.Join(bin, name), at, at))
	}
	sweepBuilds(bin)
	entries, err := os.ReadDir(bin)
	assert.NilError(t, err)
	var left []string
	for _, e := range entries {
		left = append(left, e.Name())
	}
	assert.DeepEqual(t, left, []string{".new-running", "runc"})
	sweepBuilds(filepath.Join(bin, "none"))
}
