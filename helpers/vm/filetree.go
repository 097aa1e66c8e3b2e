//go:build linux

package vm

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/erofs/go-erofs"
)

// fileTree is a tree of files for the guest, by their paths there. It becomes an erofs image, which the guest reads
// piece by piece: a program of 60 MB costs only the pages that it touches. In an initramfs it would cost all its pages,
// twice.
type fileTree map[string]fileNode

// fileNode is a file, a symbolic link or a directory.
type fileNode struct {
	hostPath string      // a file of the host, or
	link     string      // the target of a symbolic link, or
	content  []byte      // the content of a small file. A directory has none of the three.
	mode     fs.FileMode // permissions; with fs.ModeDir for a directory
	optional bool        // the file of the host may be gone: it is left out then
	time     time.Time
}

func (t fileTree) addDir(name string) { t[name] = fileNode{mode: fs.ModeDir | 0o755} }
func (t fileTree) addSymlink(name, target string) {
	t[name] = fileNode{link: target, mode: fs.ModeSymlink | 0o777}
}
func (t fileTree) addContent(name, content string) {
	t[name] = fileNode{content: []byte(content), mode: 0o644}
}
func (t fileTree) addHostFile(name, hostPath string, mode fs.FileMode) {
	t[name] = fileNode{hostPath: hostPath, mode: mode}
}
func (t fileTree) has(name string) bool { _, ok := t[name]; return ok }
func (t fileTree) names() []string      { return slices.Sorted(maps.Keys(t)) }

// addHostDir adds a whole directory of the host. Files that cannot be read are left out, and so is everything that is
// not a regular file, a directory or a symbolic link. The permissions are those that git stores, so that the guest does not
// depend on the umask with which the source tree was checked out.
func (t fileTree) addHostDir(name, hostDir string, skip func(rel string, d fs.DirEntry) bool) error {
	return filepath.WalkDir(hostDir, func(p string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(hostDir, p)
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
			return nil // removed meanwhile: other programs work in this directory, too
		}
		at := path.Join(name, filepath.ToSlash(rel))
		switch {
		case d.IsDir():
			t[at] = fileNode{mode: fs.ModeDir | 0o755, time: info.ModTime()}
		case d.Type() == fs.ModeSymlink:
			if target, err := os.Readlink(p); err == nil {
				t.addSymlink(at, target)
			}
		case d.Type().IsRegular() && isReadable(p):
			mode := fs.FileMode(0o644)
			if info.Mode()&0o100 != 0 {
				mode = 0o755
			}
			t[at] = fileNode{hostPath: p, mode: mode, time: info.ModTime(), optional: true}
		}
		return nil
	})
}

func isReadable(p string) bool {
	return syscall.Access(p, 4) == nil
}

// writeImage writes the tree to out, as an erofs image. Temporary files are created in tmp.
func (t fileTree) writeImage(out *os.File, tmp string) error {
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
		var src *os.File
		var err error
		if n.hostPath != "" {
			src, err = os.Open(n.hostPath)
			if n.optional && errors.Is(err, fs.ErrNotExist) {
				continue // such as the swap file of an editor, which was there when the directory was listed
			}
			if err != nil {
				return err
			}
		}
		switch {
		case n.mode.IsDir():
			if err = mkdir(name); err == nil {
				err = w.Chmod(name, n.mode.Perm())
			}
		case n.link != "":
			err = w.Symlink(n.link, name)
		default:
			err = writeImageFile(w, name, n, src)
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

// writeImageFile writes a file of the tree, with the content of src if that is not nil. It closes src.
func writeImageFile(w *erofs.Writer, name string, n fileNode, src *os.File) error {
	defer src.Close() // without effect on nil
	f, err := w.Create(name)
	if err != nil {
		return err
	}
	if err := f.Chmod(n.mode.Perm()); err != nil {
		return err
	}
	if src == nil {
		_, err = f.Write(n.content)
	} else {
		_, err = io.Copy(f, src)
	}
	return errors.Join(err, f.Close())
}
