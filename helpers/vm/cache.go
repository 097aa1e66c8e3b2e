package vm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"
	"github.com/google/renameio/v2"
)

// Cache is the directory .lab of the module: everything that is fetched or built, and nothing that is precious.
type Cache struct {
	Module string // the module's root
	dir    string // .lab/vm
}

// OpenCache finds the module that the working directory belongs to, or else the one that this program was built into
// (.lab/bin), so that packages of other modules can be tested too.
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
		for dir := moduleAbove(start); dir != ""; dir = moduleAbove(filepath.Dir(dir)) {
			if b, err := os.ReadFile(dir + "/go.mod"); err == nil && strings.HasPrefix(string(b), "module cdblab\n") {
				c := &Cache{Module: dir, dir: dir + "/.lab/vm"}
				return c, c.make()
			}
		}
	}
	return nil, &Fault{
		Tried: "find the module cdblab", Seen: "no go.mod of it in or above " + strings.Join(starts, ", nor "),
		Do: "run it from inside the repository",
	}
}

func (c *Cache) make() error {
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return &Fault{
			Tried: "make the directory for the kernel and the images", Seen: err.Error(),
			Do: "make " + filepath.Dir(c.dir) + " writable for you (a run as root may have left it behind)",
		}
	}
	return nil
}

// moduleAbove is the nearest directory at or above dir with a go.mod, or "".
func moduleAbove(dir string) string {
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

// lock lets one process at a time fetch or build. Two `make lab` at once work: the second one waits, and finds what the
// first one made.
func (c *Cache) lock(ctx context.Context) (unlock func(), err error) {
	l := flock.New(c.path("lock"), flock.SetFlag(os.O_CREATE|os.O_RDWR), flock.SetPermissions(0o644))
	if _, err := l.TryLockContext(ctx, 50*time.Millisecond); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return nil, cause
		}
		return nil, err
	}
	return func() { _ = l.Unlock() }, nil
}

// digests remembers the SHA-256 of files by their size, times and inode, so that a run does not have to read all the
// tools again to learn that nothing changed.
type digests struct {
	file  string
	known map[string]digest
	dirty bool
}

type digest struct {
	Size, Mtime, Ctime int64
	Ino                uint64
	SHA256             string
}

func (c *Cache) digests() *digests {
	d := &digests{file: c.path("digests.json"), known: map[string]digest{}}
	if b, err := os.ReadFile(d.file); err == nil {
		// A damaged memory is an empty one.
		_ = json.Unmarshal(b, &d.known)
	}
	return d
}

func (d *digests) of(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	st := info.Sys().(*syscall.Stat_t)
	now := digest{Size: st.Size, Mtime: st.Mtim.Nano(), Ctime: st.Ctim.Nano(), Ino: st.Ino}
	if old, ok := d.known[path]; ok {
		now.SHA256 = old.SHA256
		if now == old {
			return old.SHA256, nil
		}
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	now.SHA256 = hex.EncodeToString(h.Sum(nil))
	d.known[path], d.dirty = now, true
	return now.SHA256, nil
}

func (d *digests) save() {
	if !d.dirty {
		return
	}
	if b, err := json.MarshalIndent(d.known, "", "\t"); err == nil {
		_ = renameio.WriteFile(d.file, b, 0o644, renameio.WithTempDir(filepath.Dir(d.file)))
	}
}
