//go:build linux

package vm

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

// A record describes a file or directory of the cache as it was when it was complete. It lies beside it, as NAME.json. A
// file without a record, or with another content, is made again: it was cut short, or it was damaged later. The time of
// the record is the time of the last use.
type record struct {
	Size   int64  // of all files
	Digest string // see digestCache.digest
}

func recordOf(path string) string { return path + ".json" }

// check returns nil if path is what its record says, and then marks it as used.
func (c *Cache) check(path string) error {
	b, err := os.ReadFile(recordOf(path))
	if err != nil {
		return err
	}
	var want record
	if err := json.Unmarshal(b, &want); err != nil {
		return fmt.Errorf("%s: %w", recordOf(path), err)
	}
	digests := c.digests()
	defer digests.save()
	got, err := digests.digest(path)
	switch {
	case err != nil:
		return err
	case got.Size != want.Size:
		return fmt.Errorf("it has %d bytes instead of %d", got.Size, want.Size)
	case got.Digest != want.Digest:
		return errors.New("its content has changed")
	}
	now := time.Now()
	_ = os.Chtimes(recordOf(path), now, now) // sweep goes by the time
	return nil
}

// commit moves tmp to path, and writes the record. The content is on the disk before the name is: after a power failure
// there is no file that has the right name and size, and zeros in it.
func (c *Cache) commit(tmp, path string) error {
	f, err := os.Open(tmp)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.IsDir() {
		err = unix.Syncfs(int(f.Fd())) // one call for a thousand small files
	} else {
		err = f.Sync()
	}
	if err == nil {
		err = os.RemoveAll(path)
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return err
	}
	digests := c.digests()
	defer digests.save()
	d, err := digests.digest(path)
	if err != nil {
		return err
	}
	return writeJSON(recordOf(path), d.record)
}

// writeJSON writes a file that is then complete or does not exist.
func writeJSON(file string, v any) error {
	b, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		return err
	}
	return renameio.WriteFile(file, append(b, '\n'), 0o644, renameio.WithTempDir(filepath.Dir(file)))
}

// digestCache remembers the digests of files and directories by the size, times and inode of each file. So a run does not
// have to read all tools, modules and images again to find out that nothing changed.
type digestCache struct {
	file    string
	known   map[string]knownDigest
	changed bool
}

type knownDigest struct {
	record
	Files string // a digest of the sizes, times and inodes
}

func (c *Cache) digests() *digestCache {
	d := &digestCache{file: c.path("digests.json"), known: map[string]knownDigest{}}
	if b, err := os.ReadFile(d.file); err == nil {
		// A damaged file counts as an empty one.
		_ = json.Unmarshal(b, &d.known)
	}
	return d
}

// digest returns the size of a file, and a SHA-256 of its content; for a directory, of the names and contents of all
// regular files in it.
func (d *digestCache) digest(path string) (knownDigest, error) {
	root, err := filepath.EvalSymlinks(path)
	if err != nil {
		return knownDigest{}, err
	}
	var (
		now   knownDigest
		names []string
		stats = sha256.New()
	)
	err = filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		fmt.Fprintf(stats, "%q %d %d %d %d\n", rel, st.Size, st.Mtim.Nano(), st.Ctim.Nano(), st.Ino)
		now.Size += st.Size
		names = append(names, rel)
		return nil
	})
	if err != nil {
		return knownDigest{}, err
	}
	now.Files = hex.EncodeToString(stats.Sum(nil))
	if old, ok := d.known[path]; ok && old.Files == now.Files {
		return old, nil
	}
	h := sha256.New()
	for _, name := range names {
		fmt.Fprintf(h, "%q\n", name)
		if err := copyFile(h, filepath.Join(root, name)); err != nil {
			return knownDigest{}, err
		}
	}
	now.Digest = "sha256:" + hex.EncodeToString(h.Sum(nil))
	d.known[path], d.changed = now, true
	return now, nil
}

func copyFile(to io.Writer, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.Copy(to, f)
	if err == nil {
		_, err = fmt.Fprintf(to, "\n%d\n", n)
	}
	return err
}

// save writes what was learned, without the files that are gone.
func (d *digestCache) save() {
	if !d.changed {
		return
	}
	for path := range d.known {
		if _, err := os.Lstat(path); err != nil {
			delete(d.known, path)
		}
	}
	_ = writeJSON(d.file, d.known)
}
