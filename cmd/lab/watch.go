//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"

	"cdblab/helpers/signals"
)

// quiet is how long no file may change before the command runs: an editor writes a file in several steps, and git many files.
const quiet = 300 * time.Millisecond

// watchMain runs a command, and runs it again when a Go file of the module below the working directory changes.
func watchMain(args []string) int {
	set := flag.NewFlagSet("lab watch", flag.ExitOnError)
	set.Usage = func() {
		fmt.Fprintln(set.Output(), "usage: lab watch COMMAND [ARGUMENT...]   runs a command again each time when a Go file has changed")
	}
	_ = set.Parse(args)
	if set.NArg() == 0 {
		set.Usage()
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals.Stop()...)
	defer stop()
	// Ctrl-C reaches the command as well: both are in the foreground of the terminal. Other signals have to be passed on.
	command, stop := signal.NotifyContext(context.Background(), signals.Heeded(syscall.SIGTERM, syscall.SIGHUP)...)
	defer stop()
	if err := watch(ctx, command, ".", set.Args()); err != nil {
		logf("watch: %v", err)
		return 1
	}
	return 0
}

// watch runs the command at once and after each change below the directory root, until ctx ends. The command is asked to end
// when the context command ends.
func watch(ctx, command context.Context, root string, argv []string) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("%w\n  what to do: allow more inotify instances: sysctl fs.inotify.max_user_instances=512", err)
	}
	defer watcher.Close()
	if _, err := watchBelow(watcher, root); err != nil {
		return err
	}
	for {
		if err := runWatched(command, argv); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
		logf("waiting for a change of a Go file; Ctrl-C ends")
		changed, err := nextChange(ctx, watcher)
		if err != nil || ctx.Err() != nil {
			return err
		}
		logf("changed: %s", strings.Join(changed, " "))
	}
}

// watchBelow watches a directory and those below it, except caches and what git has. It returns the Go files there: in a new
// directory, they were written before it was watched.
func watchBelow(watcher *fsnotify.Watcher, root string) (sources []string, err error) {
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // it was removed meanwhile
		case err != nil:
			return err
		case !d.IsDir():
			if isSource(path) {
				sources = append(sources, path)
			}
			return nil
		case d.Name() != "." && strings.HasPrefix(d.Name(), "."), d.Name() == "_artifacts":
			return fs.SkipDir
		}
		if err := watcher.Add(path); err != nil {
			return fmt.Errorf("watch %s: %w\n  what to do: allow more watches: sysctl fs.inotify.max_user_watches=65536", path, err)
		}
		return nil
	})
	return sources, err
}

// nextChange waits until Go files have changed and no file has changed for a moment. It returns the names of the files.
func nextChange(ctx context.Context, watcher *fsnotify.Watcher) ([]string, error) {
	changed := map[string]bool{}
	still := time.NewTimer(0)
	<-still.C
	for {
		select {
		case event := <-watcher.Events:
			var sources []string
			if info, err := os.Stat(event.Name); event.Has(fsnotify.Create) && err == nil && info.IsDir() {
				if sources, err = watchBelow(watcher, event.Name); err != nil {
					return nil, err
				}
			} else if isSource(event.Name) {
				sources = []string{event.Name}
			}
			for _, name := range sources {
				changed[filepath.Clean(name)] = true
				still.Reset(quiet)
			}
		case err := <-watcher.Errors:
			return nil, err
		case <-still.C:
			return slices.Sorted(maps.Keys(changed)), nil
		case <-ctx.Done():
			return nil, nil
		}
	}
}

// isSource reports whether a file is a Go file. Editors make files of other names beside it (.#x.go, x.go~).
func isSource(path string) bool {
	name := filepath.Base(path)
	return !strings.HasPrefix(name, ".") && !strings.HasPrefix(name, "#") &&
		(strings.HasSuffix(name, ".go") || name == "go.mod")
}

// runWatched runs the command. If ctx ends, the command is asked to end: a run of the lab cleans up then.
func runWatched(ctx context.Context, argv []string) error {
	c := exec.CommandContext(ctx, argv[0], argv[1:]...)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = time.Minute
	err := c.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); ok || ctx.Err() != nil {
		return nil // it has said itself what failed
	}
	if err != nil {
		return fmt.Errorf("start %s: %w", argv[0], err)
	}
	return nil
}
