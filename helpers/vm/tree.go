package vm

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/erofs/go-erofs"
)

// tree is a tree of files to be, by their paths in the guest. It becomes an erofs image, which the guest reads piece
// by piece: a program of 60 MB costs only the pages that it touches, where an initramfs would cost all of them, twice.
type tree map[string]node

type node struct {
	from string      // a file outside, or
	link string      // the target of a symbolic link, or
	data []byte      // the content of a small file; neither of the three is a directory
	mode fs.FileMode // permissions; fs.ModeDir for a directory
	time time.Time
}

func (t tree) dir(name string)                       { t[name] = node{mode: fs.ModeDir | 0o755} }
func (t tree) link(name, target string)              { t[name] = node{link: target, mode: fs.ModeSymlink | 0o777} }
func (t tree) data(name, data string)                { t[name] = node{data: []byte(data), mode: 0o644} }
func (t tree) file(name, from string, m fs.FileMode) { t[name] = node{from: from, mode: m} }
func (t tree) has(name string) bool                  { _, ok := t[name]; return ok }
func (t tree) names() (names []string) {
	for n := range t {
		names = append(names, n)
	}
	slices.Sort(names)
	return
}

// add takes in a whole directory from outside. What can't be read is left out, and so is what is no file, directory
// or symbolic link.
func (t tree) add(name, from string, skip func(rel string, d fs.DirEntry) bool) error {
	return filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(from, p)
		if err != nil {
			if rel == "." {
				return err
			}
			return nil
		}
		if rel != "." && skip(rel, d) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return nil // gone since: other people work here
		}
		at := path.Join(name, filepath.ToSlash(rel))
		switch {
		case d.IsDir():
			t[at] = node{mode: fs.ModeDir | info.Mode().Perm(), time: info.ModTime()}
		case d.Type() == fs.ModeSymlink:
			if target, err := os.Readlink(p); err == nil {
				t.link(at, target)
			}
		case d.Type().IsRegular() && readable(p):
			t[at] = node{from: p, mode: info.Mode().Perm(), time: info.ModTime()}
		}
		return nil
	})
}

func readable(p string) bool {
	return syscall.Access(p, 4) == nil
}

// write makes the image.
func (t tree) write(out *os.File, tmp string) error {
	w := erofs.Create(out, erofs.WithTempDir(tmp))
	made := map[string]bool{"/": true}
	var mkdir func(name string) error
	mkdir = func(name string) error {
		if made[name] {
			return nil
		}
		if err := mkdir(path.Dir(name)); err != nil {
			return err
		}
		made[name] = true
		return w.Mkdir(name, 0o755)
	}
	for _, name := range t.names() {
		n := t[name]
		if err := mkdir(path.Dir(name)); err != nil {
			return err
		}
		var err error
		switch {
		case n.mode.IsDir():
			if err = mkdir(name); err == nil {
				err = w.Chmod(name, n.mode.Perm())
			}
		case n.link != "":
			err = w.Symlink(n.link, name)
		default:
			err = t.writeFile(w, name, n)
		}
		if err == nil && !n.time.IsZero() {
			err = w.Chtimes(name, n.time, n.time)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return w.Close()
}

func (t tree) writeFile(w *erofs.Writer, name string, n node) error {
	f, err := w.Create(name)
	if err != nil {
		return err
	}
	if err := f.Chmod(n.mode.Perm()); err != nil {
		return err
	}
	if n.from == "" {
		_, err = f.Write(n.data)
	} else {
		var src *os.File
		if src, err = os.Open(n.from); err != nil {
			return err
		}
		defer src.Close()
		_, err = io.Copy(f, src)
	}
	return errors.Join(err, f.Close())
}

// diskFault names the usual reason when an image can't be written.
func diskFault(tried, dir string, err error) error {
	f := &Fault{Tried: tried, Seen: err.Error()}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		var st syscall.Statfs_t
		_ = syscall.Statfs(dir, &st)
		f.Do = fmt.Sprintf("make room on the disk of %s: %d MB are free, 500 MB are enough. What is in it can be removed, and will be fetched and built again", dir, st.Bavail*uint64(st.Bsize)>>20)
	} else if strings.Contains(err.Error(), "permission") {
		f.Do = "make " + dir + " writable for you (a run as root may have left it behind)"
	}
	return f
}
