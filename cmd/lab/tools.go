//go:build linux

package main

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"time"

	"al.essio.dev/pkg/shellescape"

	"cdblab/helpers/signals"
	"cdblab/helpers/tools"
)

// toolsMain builds the pinned programs that are missing or stale, with the Go command that the variable GO names, or with
// the one on PATH.
func toolsMain([]string) int {
	ctx, stop := signal.NotifyContext(context.Background(), signals.Stop()...)
	defer stop()
	sweepBuilds(filepath.Join(".lab", "bin"))
	for _, t := range tools.All {
		stale := t.Stale(".")
		if stale == nil {
			continue
		}
		if !errors.Is(stale, fs.ErrNotExist) {
			logf("%s is built again: %v", t.Search[0], stale)
		}
		err := buildTool(ctx, t)
		if err == nil {
			err = t.Stale(".") // for example, another Go has built it than the one that built this program
		}
		if err != nil && !errors.Is(err, tools.ErrDirectory) {
			logf("build %s: %v\n  what to do: check that this is the root directory of the module cdblab, and run `make deps`", t.Name, err)
			return 1
		}
	}
	return 0
}

// buildDir is the pattern of the directory in which a program is built.
const buildDir = ".new-*"

// sweepBuilds removes the directories of builds that were killed. A directory of the last hour may belong to a build in progress.
func sweepBuilds(bin string) {
	entries, _ := os.ReadDir(bin) // without a directory there is nothing to remove
	for _, e := range entries {
		if match, _ := filepath.Match(buildDir, e.Name()); !match {
			continue
		}
		path := filepath.Join(bin, e.Name())
		if info, err := e.Info(); err != nil || time.Since(info.ModTime()) < time.Hour {
			continue
		}
		if err := os.RemoveAll(path); err != nil {
			logf("a build that was killed has left %s: %v\n  what to do: remove it", path, err)
		}
	}
}

// buildTool builds a program beside its place in .lab/bin, and then moves it there: a build that was stopped leaves no
// half a program.
func buildTool(ctx context.Context, t tools.Tool) error {
	bin, name := filepath.Split(t.Search[0])
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(bin, buildDir)
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	work, err := os.MkdirTemp("", "cdblab-tools-*") // go leaves its files when it is stopped while it compiles
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	out := filepath.Join(tmp, name)
	env, args := t.Build.Command(out)
	c := exec.CommandContext(ctx, cmp.Or(os.Getenv("GO"), "go"), args...)
	c.Env, c.Stdout, c.Stderr = append(os.Environ(), env, "TMPDIR="+work), os.Stderr, os.Stderr
	_, shown := t.Build.Command(t.Search[0])
	logf("%s go %s", env, shellescape.QuoteCommand(shown))
	if err := c.Run(); err != nil {
		return err
	}
	return os.Rename(out, t.Search[0])
}
