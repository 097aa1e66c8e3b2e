package results

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

func TestNewDir_TwoRunsOfOneSecondAreApart(t *testing.T) {
	all := filepath.Join(t.TempDir(), "results")
	now := time.Date(2026, 11, 26, 17, 0, 0, 0, time.Local)
	for _, want := range []string{"2026-11-26T17-00-00", "2026-11-26T17-00-00.2", "2026-11-26T17-00-00.3"} {
		dir, err := NewDir(all, now)
		assert.NilError(t, err)
		assert.Equal(t, filepath.Base(dir), want)
		assert.NilError(t, Link(all, dir))
		target, err := os.Readlink(filepath.Join(all, Latest))
		assert.NilError(t, err)
		assert.Equal(t, target, want)
	}
}

// A container has the same small pid in each run, so a name with a pid is no name of one run.
func TestLink_AfterARunThatWasKilledWhileItMadeTheLink(t *testing.T) {
	all := t.TempDir()
	assert.NilError(t, os.Symlink("2026-11-26T17-00-00", fmt.Sprintf("%s.%d", filepath.Join(all, Latest), os.Getpid())))
	for _, run := range []string{"2026-11-26T17-00-01", "2026-11-26T17-00-02"} {
		assert.NilError(t, Link(all, filepath.Join(all, run)))
		target, err := os.Readlink(filepath.Join(all, Latest))
		assert.NilError(t, err)
		assert.Equal(t, target, run)
	}
}

// A file is there whole or not at all: a reader of the results may come at any time, and the disk may be full.
func TestReplaceFile_LeavesTheOldFileIfTheNewOneIsNotComplete(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, FactsFile)
	write := func(text string, err error) error {
		return ReplaceFile(file, func(w io.Writer) error {
			_, writeErr := io.WriteString(w, text)
			return errors.Join(writeErr, err)
		})
	}
	assert.NilError(t, write("whole", nil))
	err := write(strings.Repeat("half", 5000), syscall.ENOSPC)
	assert.Error(t, err, "write "+file+": no space left on device")
	assert.ErrorIs(t, err, syscall.ENOSPC)
	data, err := os.ReadFile(file)
	assert.NilError(t, err)
	assert.Equal(t, string(data), "whole")
	entries, err := os.ReadDir(dir)
	assert.NilError(t, err)
	assert.Equal(t, len(entries), 1, "%v: a temporary file is left", entries)
}

// What the user has renamed, the link and the file of the times stay.
func TestPrune_KeepsTheNewestRuns(t *testing.T) {
	all := t.TempDir()
	for hour := range 5 {
		dir, err := NewDir(all, time.Date(2026, 11, 26, hour, 0, 0, 0, time.Local))
		assert.NilError(t, err)
		assert.NilError(t, os.WriteFile(filepath.Join(dir, StreamFile), nil, 0o644))
		assert.NilError(t, Link(all, dir))
	}
	assert.NilError(t, os.Mkdir(filepath.Join(all, "runc-1.2"), 0o755))
	n, err := Prune(all, 2)
	assert.NilError(t, err)
	assert.Equal(t, n, 3)
	entries, err := os.ReadDir(all)
	assert.NilError(t, err)
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	assert.DeepEqual(t, got, []string{"2026-11-26T03-00-00", "2026-11-26T04-00-00", Latest, "runc-1.2"})

	n, err = Prune(filepath.Join(all, "moon"), 2)
	assert.NilError(t, err)
	assert.Equal(t, n, 0)
}

// The results of a `sudo make lab-here` keep an ordinary user from nothing.
func TestPrune_GoesOnAfterOneThatCannotBeRemoved(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root can remove everything; run the test as another user")
	}
	all := t.TempDir()
	for hour := range 3 {
		dir, err := NewDir(all, time.Date(2026, 11, 26, hour, 0, 0, 0, time.Local))
		assert.NilError(t, err)
		assert.NilError(t, os.WriteFile(filepath.Join(dir, StreamFile), nil, 0o644))
	}
	oldest := filepath.Join(all, "2026-11-26T00-00-00")
	assert.NilError(t, os.Chmod(oldest, 0o500))
	t.Cleanup(func() { assert.Check(t, os.Chmod(oldest, 0o700)) })
	n, err := Prune(all, 1)
	assert.ErrorIs(t, err, fs.ErrPermission)
	assert.Equal(t, n, 1)
	_, err = os.Stat(filepath.Join(all, "2026-11-26T01-00-00"))
	assert.ErrorIs(t, err, fs.ErrNotExist)
}

func TestTimes_EachKindOfRunHasItsOwn(t *testing.T) {
	all, run := t.TempDir(), sample(t)
	assert.Equal(t, len(Times(all, "vm")), 0)
	assert.NilError(t, SaveTimes(all, "vm", run))
	run.Question("TestLifecycle_WhatDoesPauseStop").Elapsed = time.Second
	assert.NilError(t, SaveTimes(all, "here", run))
	assert.Equal(t, fmt.Sprint(Times(all, "vm")["TestLifecycle_WhatDoesPauseStop"]), "12.08")
	assert.Equal(t, fmt.Sprint(Times(all, "here")["TestLifecycle_WhatDoesPauseStop"]), "1")

	assert.NilError(t, os.WriteFile(filepath.Join(all, timesFile), []byte(`{"vm":`), 0o644))
	assert.Equal(t, len(Times(all, "vm")), 0)
	assert.NilError(t, SaveTimes(all, "vm", run)) // it is whole again
	assert.Equal(t, len(Times(all, "vm")), 2)
}
