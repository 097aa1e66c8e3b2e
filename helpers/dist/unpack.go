//go:build linux

package dist

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// Unpack copies the files of a tarball to the directory, without [Top], and verifies them. from is the tarball, or the directory of one
// that was unpacked.
func Unpack(to, from string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	if info.IsDir() {
		err = Tree(from).copy(to)
	} else {
		err = extract(to, from)
	}
	if err = errors.Join(err, openDirs(to)); err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	if err := Tree(to).Verify(); err != nil {
		return err
	}
	if _, system, ok := strings.Cut(Tree(to).Version(), ", linux/"); ok {
		if arch, _, _ := strings.Cut(system, ","); arch != runtime.GOARCH {
			return fmt.Errorf("%s: it is for linux/%s, and this machine is linux/%s: use the tarball for it (make dist ARCH=%s)",
				from, arch, runtime.GOARCH, runtime.GOARCH)
		}
	}
	return nil
}

// copy copies the files that [SumsFile] names, and no others: a user may keep results beside them.
func (t Tree) copy(to string) error {
	sums, err := os.ReadFile(t.path(SumsFile))
	if err != nil {
		return err
	}
	names := []string{SumsFile}
	for line := range strings.Lines(string(sums)) {
		if _, name, ok := strings.Cut(strings.TrimSpace(line), "  "); ok {
			names = append(names, name)
		}
	}
	for _, name := range names {
		info, err := os.Stat(t.path(name))
		if err != nil {
			return err
		}
		from, err := os.Open(t.path(name))
		if err != nil {
			return err
		}
		err = errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(to, name)), 0o755), writeFile(filepath.Join(to, name), info.Mode().Perm(), from))
		from.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// extract unpacks a tarball without its top directory.
func extract(to, tarball string) error {
	f, err := os.Open(tarball)
	if err != nil {
		return err
	}
	defer f.Close()
	zip, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	for archive := tar.NewReader(zip); ; {
		h, err := archive.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		_, name, _ := strings.Cut(filepath.Clean(h.Name), "/")
		if name != "" && !filepath.IsLocal(name) {
			return fmt.Errorf("it has a file %q, which would be outside", h.Name)
		}
		switch {
		case name == "":
		case h.Typeflag == tar.TypeDir:
			err = os.MkdirAll(filepath.Join(to, name), 0o755)
		case h.Typeflag == tar.TypeReg:
			err = writeFile(filepath.Join(to, name), h.FileInfo().Mode().Perm(), archive)
		}
		if err != nil {
			return err
		}
	}
}

// openDirs lets every user enter the directories, whatever the umask is: some questions run programs of the tarball as an ordinary user.
func openDirs(root string) error {
	return filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		return os.Chmod(path, 0o755)
	})
}

func writeFile(name string, mode os.FileMode, content io.Reader) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	return errors.Join(err, f.Chmod(mode), f.Close()) // whatever the umask is
}
