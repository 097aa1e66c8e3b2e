//go:build linux

package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"cdblab/helpers/retry"
	"cdblab/helpers/tools"
)

// A go command that is stopped while it compiles leaves its files, whatever signal it gets.
func TestBuildTool_LeavesNothingWhenItIsStopped(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	t.Chdir(t.TempDir())
	assert.NilError(t, os.WriteFile("go", []byte("#!/bin/sh\nmktemp -d && touch begun && exec sleep 1000\n"), 0o755))
	t.Setenv("GO", "./go")
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		retry.Until(time.Minute, func() bool { _, err := os.Stat("begun"); return err == nil })
		cancel()
	}()
	err := buildTool(ctx, tools.Tool{Search: []string{".lab/bin/runc"}, Build: tools.All[0].Build})
	assert.ErrorContains(t, err, "killed")
	for _, dir := range []string{tmp, ".lab/bin"} {
		left, err := os.ReadDir(dir)
		assert.NilError(t, err)
		assert.Equal(t, len(left), 0, "%v is left in %s", left, dir)
	}
}

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
