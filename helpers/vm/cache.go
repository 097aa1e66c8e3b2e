//go:build linux

package vm

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sys/unix"
)

// Cache is the module's directory .lab/vm. It holds everything that is fetched or built for the VM; all of it can be
// fetched and built again.
type Cache struct {
	Module string // the module's root directory
	dir    string // .lab/vm below it
}

// OpenCache finds the module cdblab at or above the working directory, or else at or above the directory of this
// program (.lab/bin), so that packages of other modules can be tested too. It creates the cache's directory if that
// does not exist.
func OpenCache() (*Cache, error) {
	wd, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	starts := []string{wd}
	if exe, err := os.Executable(); err == nil {
		starts = append(starts, filepath.Dir(exe))
	}
	for _, start := range starts {
		for dir := moduleRoot(start); dir != ""; dir = moduleRoot(filepath.Dir(dir)) {
			if b, err := os.ReadFile(dir + "/go.mod"); err == nil && strings.HasPrefix(string(b), "module cdblab\n") {
				c := &Cache{Module: dir, dir: dir + "/.lab/vm"}
				return c, c.create()
			}
		}
	}
	return nil, &Fault{
		Tried: "find the module cdblab", Seen: "its go.mod is not in or above " + strings.Join(starts, ", nor "),
		Do: "run this command in the repository",
	}
}

// NewCache returns a cache in a directory, for a program that runs without the module. It serves only disks of the user.
func NewCache(dir string) (*Cache, error) {
	c := &Cache{dir: dir}
	return c, c.create()
}

func (c *Cache) create() error {
	err := os.MkdirAll(c.dir, 0o755)
	if err == nil {
		// Asked at once: a later step would report the same, but not so clearly.
		if werr := unix.Access(c.dir, unix.W_OK); werr != nil {
			err = &os.PathError{Op: "write to", Path: c.dir, Err: werr}
		}
	}
	if err == nil {
		return nil
	}
	return &Fault{
		Tried: "create the directory for the kernel and the images", Seen: err.Error(),
		Do: makeWritable(filepath.Dir(c.dir)) + ". If the checkout is on a read-only file system, copy it: the lab writes only below .lab",
	}
}

// moduleRoot returns the nearest directory at or above dir that has a go.mod, or "".
func moduleRoot(dir string) string {
	for {
		if _, err := os.Stat(dir + "/go.mod"); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			return ""
		}
		dir = up
	}
}

func (c *Cache) path(elem ...string) string {
	return filepath.Join(append([]string{c.dir}, elem...)...)
}

// lock lets one process at a time fetch or build. Two `make lab` at the same time work: the second one waits, and then
// finds what the first one fetched and built.
func (c *Cache) lock(ctx context.Context, log func(string, ...any)) (unlock func(), err error) {
	l := flock.New(c.path("lock"), flock.SetFlag(os.O_CREATE|os.O_RDWR), flock.SetPermissions(0o644))
	if ok, err := l.TryLock(); err == nil && !ok {
		log("waiting for another run in this checkout, which fetches or builds what the VM needs")
	}
	if _, err := l.TryLockContext(ctx, 50*time.Millisecond); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return nil, cause
		}
		return nil, err
	}
	return func() { _ = l.Unlock() }, nil
}

// use marks the cache as used by this run, until release is called: no other run removes what this run needs. If no other
// run uses the cache then, release removes what is not needed any more. Not before the run: what was not used for a long time may be
// what the run needs, and offline it can't be fetched again.
func (c *Cache) use(ctx context.Context) (release func(), err error) {
	l := flock.New(c.path("use"), flock.SetFlag(os.O_CREATE|os.O_RDWR), flock.SetPermissions(0o644))
	if _, err := l.TryRLockContext(ctx, 50*time.Millisecond); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return nil, cause
		}
		return nil, diskFault("lock the cache", c.dir, err)
	}
	return func() {
		// This turns our own shared lock into an exclusive one.
		if alone, _ := l.TryLock(); alone {
			c.sweep(time.Now())
		}
		_ = l.Unlock()
	}, nil
}

// unnamedFile creates a file without a name in dir. The file goes away when no process has it open any more, so a
// killed process leaves nothing behind.
func unnamedFile(dir string, content []byte) (*os.File, error) {
	f, err := os.CreateTemp(dir, ".lab-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	if _, err := f.Write(content); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
