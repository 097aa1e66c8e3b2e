//go:build linux

package node

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"

	"cdblab/helpers/vm"
)

// A store is the directory .lab/disk of the module.
type store struct {
	dir string
	log func(string, ...any)
}

// Image returns the path of the image of a variant. It makes the image if the store has no image of what Debian's archive has
// today. The archive is at the address mirror; "" stands for the sources of this machine's apt.
func Image(ctx context.Context, v Variant, mirror string, log func(string, ...any)) (string, error) {
	if err := checkPrograms(); err != nil {
		return "", err
	}
	cache, err := vm.OpenCache() // it finds the module
	if err != nil {
		return "", err
	}
	s := &store{dir: filepath.Join(cache.Module, ".lab/disk"), log: log}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return "", s.diskError(err)
	}
	unlock, err := s.lock(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	path, err := s.image(ctx, v, mirror)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return "", cause // not what a program says when it is interrupted
	}
	if _, ok := errors.AsType[*os.PathError](err); ok || errors.Is(err, syscall.ENOSPC) {
		return "", s.diskError(err)
	}
	return path, err
}

// lock lets one process at a time make images. Of two at the same time the second one waits, and finds what the first one has made.
func (s *store) lock(ctx context.Context) (unlock func(), err error) {
	l := flock.New(filepath.Join(s.dir, "lock"), flock.SetPermissions(0o644))
	if ok, err := l.TryLock(); err == nil && !ok {
		s.log("waiting for another make disk in this checkout")
	}
	if _, err := l.TryLockContext(ctx, 50*time.Millisecond); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return nil, cause
		}
		return nil, s.diskError(err)
	}
	return func() { _ = l.Unlock() }, nil
}

// image finds or makes the image. The caller holds the lock.
func (s *store) image(ctx context.Context, v Variant, mirror string) (string, error) {
	a, err := openArchive(ctx, filepath.Join(s.dir, "apt", v.Suite), v.Suite, mirror)
	if err != nil {
		return "", err
	}
	var (
		stale error // why the lists are old: for example offline
		r     *recipe
	)
	// Lists of today are good enough for an image that is there. mmdebstrap installs what the archive has now, so the image that it makes
	// gets its name from lists of now.
	for _, age := range []time.Duration{listsAge, makeAge} {
		stale = a.fetchLists(ctx, age, s.log)
		if r, err = newRecipe(ctx, a, v); err != nil {
			break
		}
		if path := s.path(v, r.key()); s.use(path) {
			if stale != nil {
				s.log("can't find out whether there are newer packages; using the image of the last ones. %v", stale)
			}
			return path, nil
		}
		if stale != nil {
			break
		}
	}
	if fault, ok := errors.AsType[*vm.Fault](err); ok {
		return "", fault
	}
	if stale != nil {
		err = stale // the reason why there is no recipe, too
	}
	if err != nil {
		if path, made := s.last(v); path != "" && ctx.Err() == nil {
			s.log("can't find out whether there are newer packages; using the image of %s. %v", made.Format(time.DateOnly), err)
			return path, nil
		}
		return "", &vm.Fault{
			Tried: "ask Debian's archive for the packages of the suite " + v.Suite, Seen: err.Error(),
			Do: "check the network and the name of the suite. Mirrors do not have a suite that Debian no longer supports: " +
				"name an archive of old releases with MIRROR=",
		}
	}
	return s.make(ctx, a, r)
}

// path returns the path of an image.
func (s *store) path(v Variant, key string) string {
	return filepath.Join(s.dir, v.Name()+"-"+key+".qcow2")
}

// use reports whether the image is there, and marks it as used.
func (s *store) use(path string) bool {
	r, err := read(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false
	case err != nil:
		s.log("%v; making the image again", err)
		return false
	}
	now := time.Now()
	_ = os.Chtimes(recordOf(path), now, now) // sweep goes by the time
	s.log("the image is there: %s", describe(r.Packages))
	return true
}

// last returns the image of a variant that was made last, and when, or "".
func (s *store) last(v Variant) (path string, made time.Time) {
	for _, candidate := range s.images() {
		if r, err := read(candidate); err == nil && r.Variant == v && r.Made.After(made) {
			path, made = candidate, r.Made
		}
	}
	if path != "" && !s.use(path) {
		return "", made
	}
	return path, made
}

// images returns the paths of all images.
func (s *store) images() (paths []string) {
	entries, _ := os.ReadDir(s.dir)
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".qcow2") {
			paths = append(paths, filepath.Join(s.dir, e.Name()))
		}
	}
	return paths
}

// make makes an image, and returns its path.
func (s *store) make(ctx context.Context, a *archive, r *recipe) (string, error) {
	// Not when a run begins: an image that was not used for a month may be the only one that is left without a network.
	s.sweep(time.Now())
	dir, err := os.MkdirTemp(s.dir, ".new-*")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	logFile, err := os.Create(filepath.Join(s.dir, "make.log"))
	if err != nil {
		return "", err
	}
	defer logFile.Close()
	begin := time.Now()
	s.log("making the disk image of a node: %s. The output of the programs is in %s", describe(r.Versions), logFile.Name())
	b := &build{recipe: r, sources: a.sources, dir: dir, logFile: logFile, log: s.log}
	made, err := b.image(ctx)
	if err != nil {
		return "", err
	}
	path := s.path(r.Variant, r.key())
	info, err := os.Stat(made)
	if err == nil {
		err = publish(made, path)
	}
	if err == nil {
		err = writeRecord(path, record{Variant: r.Variant, Key: r.key(), Made: time.Now().UTC(), Size: info.Size(), Packages: r.Versions})
	}
	if err != nil {
		return "", err
	}
	s.log("made the image of %d MB in %.0f s", info.Size()/1e6, time.Since(begin).Seconds())
	return path, nil
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

func (s *store) diskError(err error) error {
	return &vm.Fault{
		Tried: "make the disk image of a node in " + s.dir, Seen: err.Error(),
		Do: "make this directory writable for you, and make room on its disk: 4 GB are enough",
	}
}
