//go:build linux

package release

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"cdblab/helpers/tools"
	"cdblab/helpers/vm"
)

// A store is the directory .lab/releases of the module, in which each release that was built has a directory.
type store struct {
	dir string
	gocmd
	log func(format string, args ...any)
}

// openStore returns the store of the module cdblab, and the go command that the variable GO names.
func openStore() (*store, error) {
	cache, err := vm.OpenCache() // it finds the module
	if err != nil {
		return nil, err
	}
	return &store{
		dir: filepath.Join(cache.Module, ".lab/releases"), gocmd: gocmd(cmp.Or(os.Getenv("GO"), "go")),
		log: func(format string, args ...any) { fmt.Fprintf(os.Stderr, "lab: "+format+"\n", args...) },
	}, nil
}

// get returns the path of a release's program. It builds the program if it is not there, or if its build information shows
// that it is another one.
func (s *store) get(ctx context.Context, p program) (string, error) {
	b := p.tool.OfRelease(p.version)
	dir := filepath.Join(s.dir, b.ReleaseDir(p.version))
	path := filepath.Join(dir, p.tool.Name)
	if b.Check(path, p.version, false) == nil {
		now := time.Now()
		_ = os.Chtimes(dir, now, now) // for Prune; another user's store stays as it is
		return path, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", s.diskError(p, err)
	}
	// Two runs at once: the second one waits, and finds what the first one has built.
	lock := flock.New(filepath.Join(dir, ".lock"), flock.SetPermissions(0o644))
	if _, err := lock.TryLockContext(ctx, 50*time.Millisecond); err != nil {
		return "", s.diskError(p, cmp.Or(context.Cause(ctx), err))
	}
	defer func() { _ = lock.Unlock() }()
	switch err := b.Check(path, p.version, false); {
	case err == nil:
		return path, nil
	case !errors.Is(err, fs.ErrNotExist):
		s.log("%s is built again: %v", path, err)
	}
	err := s.build(ctx, p, &b, path)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause // not what go says when it is interrupted
	}
	return path, err
}

// Prune removes the releases that no run has used for so long, and returns the names of their directories.
func Prune(unused time.Duration) ([]string, error) {
	s, err := openStore()
	if err != nil {
		return nil, err
	}
	return s.prune(unused)
}

func (s *store) prune(unused time.Duration) (removed []string, err error) {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if info, infoErr := e.Info(); infoErr != nil || !e.IsDir() || time.Since(info.ModTime()) < unused {
			continue
		}
		if removeErr := os.RemoveAll(filepath.Join(s.dir, e.Name())); removeErr != nil {
			err = errors.Join(err, removeErr)
			continue
		}
		removed = append(removed, e.Name())
	}
	return removed, err
}

// build builds a program beside its place, and then moves it there: a build that was stopped leaves no half a program.
func (s *store) build(ctx context.Context, p program, b *tools.Build, path string) error {
	// A build that was killed may have left its directory. It is not in use: this process has the lock.
	killed, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".new-*"))
	for _, dir := range killed {
		_ = os.RemoveAll(dir)
	}
	tmp, err := os.MkdirTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return s.diskError(p, err)
	}
	defer os.RemoveAll(tmp)
	start := time.Now()
	s.log("building %s %s: a minute or more, once. It is kept in %s", p.tool.Name, number(p.version), filepath.Dir(path))
	out := filepath.Join(tmp, p.tool.Name)
	if err := s.gocmd.build(ctx, p, b, tmp, out); err != nil {
		return err
	}
	if err := b.Check(out, p.version, false); err != nil {
		return &Error{p.given + ": build " + p.tool.Name, err.Error(), "check that GO names the go command that built this lab"}
	}
	if err := publish(out, path); err != nil {
		return s.diskError(p, err)
	}
	s.log("built %s %s in %.0f s", p.tool.Name, number(p.version), time.Since(start).Seconds())
	return nil
}

// publish moves a finished file to its place. The data is on the disk before the name is.
func publish(from, to string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return err
	}
	return os.Rename(from, to)
}

func (s *store) diskError(p program, err error) error {
	return &Error{p.given + ": keep the program in " + s.dir, err.Error(), "make this directory writable for you, and make room on its disk"}
}

// number returns a version without the v.
func number(version string) string { return strings.TrimPrefix(version, "v") }
