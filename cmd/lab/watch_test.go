//go:build linux

package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/poll"
)

// watched is a directory that is watched. Each run of the command writes a line to the file runs.
type watched struct {
	t    *testing.T
	dir  string
	runs string
}

// startWatch watches a new directory until the test ends.
func startWatch(t *testing.T) *watched {
	t.Helper()
	w := &watched{t: t, dir: t.TempDir(), runs: filepath.Join(t.TempDir(), "runs")}
	w.write("a.go")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- watch(ctx, ctx, w.dir, []string{"sh", "-c", "echo run >> " + w.runs + "; exit 1"}) }()
	t.Cleanup(func() {
		cancel()
		assert.Check(t, <-ended)
	})
	w.waitForRuns(1)
	return w
}

func (w *watched) write(name string) {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	assert.NilError(w.t, os.MkdirAll(filepath.Dir(path), 0o755))
	assert.NilError(w.t, os.WriteFile(path, nil, 0o644))
}

func (w *watched) count() int {
	data, _ := os.ReadFile(w.runs)
	return strings.Count(string(data), "run\n")
}

func (w *watched) waitForRuns(n int) {
	w.t.Helper()
	poll.WaitOn(w.t, func(poll.LogT) poll.Result {
		if got := w.count(); got < n {
			return poll.Continue("the command has run %d times, not yet %d", got, n)
		}
		return poll.Success()
	})
}

// A run that fails is run again like any other. Several changes at once are one run, also in a new directory.
func TestWatch_RunsAgainAfterAChangeOfAGoFile(t *testing.T) {
	w := startWatch(t)
	w.write("a.go")
	w.waitForRuns(2)
	w.write("new/b.go")
	w.write("new/c.go")
	w.waitForRuns(3)
	w.write("new/b.go")
	w.waitForRuns(4)
	assert.NilError(t, os.Chtimes(filepath.Join(w.dir, "a.go"), time.Now(), time.Now())) // touch(1): run again without a change
	w.waitForRuns(5)
	assert.Equal(t, w.count(), 5)
}

// What else is written is no reason to run: results, caches, an editor's own files. The last change shows that the others were seen.
func TestWatch_IgnoresWhatIsNoSource(t *testing.T) {
	w := startWatch(t)
	for _, name := range []string{"README.md", ".a.go.swp", ".#a.go", "a.go~", ".lab/x.go", "_artifacts/y.go"} {
		w.write(name)
	}
	w.write("go.mod")
	w.waitForRuns(2)
	assert.Equal(t, w.count(), 2)
}

func TestWatch_SaysWhichCommandCannotBeStarted(t *testing.T) {
	err := watch(t.Context(), t.Context(), t.TempDir(), []string{"/nonexistent/make"})
	assert.ErrorContains(t, err, "start /nonexistent/make")
}
