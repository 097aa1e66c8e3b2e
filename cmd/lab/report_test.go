//go:build linux

package main

import (
	"os"
	"path/filepath"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/results"
)

// storedStream makes a directory with a stream in it, and goes to another one.
func storedStream(t *testing.T) (stream string) {
	t.Helper()
	data, err := os.ReadFile("../../helpers/results/testdata/stream.json")
	assert.NilError(t, err)
	t.Chdir(t.TempDir())
	stream = filepath.Join(t.TempDir(), "stored.json")
	assert.NilError(t, os.WriteFile(stream, data, 0o644))
	return stream
}

// A stream that a CI has stored gets a directory of its own.
func TestReport_OfAStream(t *testing.T) {
	stream := storedStream(t)
	assert.Equal(t, reportMain([]string{stream}), 0)
	dirs, err := filepath.Glob(filepath.Join(results.Dir, "2026-11-2*"))
	assert.NilError(t, err)
	assert.Equal(t, len(dirs), 1)
	assert.Equal(t, readFile(t, filepath.Join(dirs[0], results.StreamFile)), readFile(t, stream))
	assert.Check(t, readFile(t, filepath.Join(dirs[0], results.FactsFile)) != "")
}

func TestReport_OfADirectory(t *testing.T) {
	stream := storedStream(t)
	dir := filepath.Join(filepath.Dir(stream), "results")
	assert.Equal(t, reportMain([]string{"-o", dir, stream}), 0)
	first := readFile(t, filepath.Join(dir, results.FactsFile))
	assert.NilError(t, os.Remove(filepath.Join(dir, results.FactsFile)))
	assert.Equal(t, reportMain([]string{dir}), 0)
	assert.Equal(t, readFile(t, filepath.Join(dir, results.FactsFile)), first)
}

// Results from elsewhere may have a link in place of a file.
func TestReport_WritesThroughNoLink(t *testing.T) {
	dir := filepath.Dir(storedStream(t))
	mine := filepath.Join(t.TempDir(), "mine")
	assert.NilError(t, os.WriteFile(mine, []byte("mine"), 0o644))
	assert.NilError(t, os.Rename(filepath.Join(dir, "stored.json"), filepath.Join(dir, results.StreamFile)))
	assert.NilError(t, os.Symlink(mine, filepath.Join(dir, results.FactsFile)))
	assert.Equal(t, reportMain([]string{dir}), 0)
	assert.Equal(t, readFile(t, mine), "mine")
	info, err := os.Lstat(filepath.Join(dir, results.FactsFile))
	assert.NilError(t, err)
	assert.Check(t, info.Mode().IsRegular(), "%s", info.Mode())
}

func TestReport_OfWhatIsNoStream(t *testing.T) {
	stream := storedStream(t)
	dir := filepath.Dir(stream)
	assert.NilError(t, os.WriteFile(dir+"/facts.json", []byte(`{"format":1,"questions":[]}`), 0o644))
	assert.NilError(t, os.WriteFile(dir+"/log", []byte("=== RUN TestX\n"), 0o644))
	for name, want := range map[string]string{
		dir:                 "there is no " + dir + "/stream.json",
		dir + "/moon":       "there is no such file or directory",
		dir + "/facts.json": "is no stream",
		dir + "/log":        "is no stream",
	} {
		_, _, err := report(name, "")
		assert.Check(t, cmp.ErrorContains(err, want))
	}
	assert.Equal(t, reportMain(nil), 1) // no run yet
	_, err := os.Stat(results.Dir)
	assert.Check(t, cmp.ErrorIs(err, os.ErrNotExist)) // what cannot be read leaves nothing
}
