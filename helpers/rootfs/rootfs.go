//go:build linux

// Package rootfs makes the root filesystem of the lab: static busybox, a link for each of its applets, and the directories
// that a container's mounts need. The hand-built bundle gets it as a directory and the image gets it as a layer, so the two can
// be compared file by file.
//
// Why busybox: it is one file, every distribution has it, and it has all the programs that the chapter types. Why static: the
// rootfs then needs no dynamic linker and no libc, and the experiments are about the runtime, not about shared libraries.
package rootfs

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// FS is a root filesystem: its entries, parents before children.
type FS struct {
	entries []tar.Header
	content map[string][]byte // name → content of a regular file
}

// directories are the directories of the rootfs and their modes.
var directories = []struct {
	name string
	mode int64
}{
	{"bin", 0o755}, {"dev", 0o755}, {"etc", 0o755}, {"proc", 0o755}, {"root", 0o700}, {"run", 0o755}, {"sys", 0o755},
	{"tmp", 0o1777},
}

// etc has the files that programs need to look up the names of ids.
var etc = []struct{ name, content string }{
	{"etc/group", "root:x:0:\nnobody:x:65534:\n"},
	{"etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"},
}

// Busybox returns the root filesystem with this static busybox. The program itself lists its applets.
func Busybox(busybox string) (*FS, error) {
	if err := CheckStatic(busybox); err != nil {
		return nil, err
	}
	program, err := os.ReadFile(busybox)
	if err != nil {
		return nil, err
	}
	list, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("run %s --list to get its applets: %w", busybox, err)
	}
	fs := &FS{content: map[string][]byte{}}
	for _, d := range directories {
		fs.entries = append(fs.entries, tar.Header{Typeflag: tar.TypeDir, Name: d.name + "/", Mode: d.mode})
	}
	for _, f := range etc {
		fs.addFile(f.name, 0o644, []byte(f.content))
	}
	fs.addFile("bin/busybox", 0o755, program)
	applets := strings.Fields(string(list))
	slices.Sort(applets)
	fs.addLinks("bin/", "busybox", slices.DeleteFunc(applets, func(a string) bool { return a == "busybox" }))
	return fs, nil
}

func (fs *FS) addFile(name string, mode int64, content []byte) {
	fs.entries = append(fs.entries, tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content))})
	fs.content[name] = content
}

// addLinks adds symbolic links to a file of the same directory. Each but the first is a hard link to the first. It looks like a symbolic
// link of its own, but has no inode of its own: on ext4, making 400 inodes takes eight times as long, for each bundle and each layer.
func (fs *FS) addLinks(dir, to string, names []string) {
	for i, name := range names {
		link := tar.Header{Typeflag: tar.TypeSymlink, Name: dir + name, Linkname: to, Mode: 0o777}
		if i > 0 {
			link.Typeflag, link.Linkname = tar.TypeLink, dir+names[0]
		}
		fs.entries = append(fs.entries, link)
	}
}

// ErrNotStatic is the error for a program that needs a dynamic linker, which the rootfs does not have.
var ErrNotStatic = errors.New("not static")

// CheckStatic returns an error unless the file is an ELF executable without an interpreter (elf(5), PT_INTERP).
func CheckStatic(program string) error {
	f, err := elf.Open(program)
	if err != nil {
		return fmt.Errorf("%s is no ELF executable: %w", program, err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			interp := make([]byte, p.Filesz)
			if _, err := p.ReadAt(interp, 0); err != nil && !errors.Is(err, io.EOF) {
				return fmt.Errorf("read the interpreter of %s: %w", program, err)
			}
			return fmt.Errorf("%s is %w: it asks for %s", program, ErrNotStatic, bytes.TrimRight(interp, "\x00"))
		}
	}
	return nil
}

// WriteDir writes the root filesystem into an existing directory.
func (fs *FS) WriteDir(dir string) error {
	for _, e := range fs.entries {
		path := filepath.Join(dir, e.Name)
		var err error
		switch e.Typeflag {
		case tar.TypeDir:
			if err = os.Mkdir(path, 0o755); err == nil {
				// Mkdir applies the umask to the mode, and ignores the sticky bit.
				err = os.Chmod(path, e.FileInfo().Mode())
			}
		case tar.TypeSymlink:
			err = os.Symlink(e.Linkname, path)
		case tar.TypeLink:
			err = os.Link(filepath.Join(dir, e.Linkname), path)
		case tar.TypeReg:
			if err = os.WriteFile(path, fs.content[e.Name], e.FileInfo().Mode()); err == nil {
				err = os.Chmod(path, e.FileInfo().Mode()) // whatever the umask is
			}
		}
		if err != nil {
			return fmt.Errorf("write the rootfs: %w", err)
		}
	}
	return nil
}

// WriteTar writes the root filesystem as an uncompressed OCI layer. The bytes depend on busybox alone.
func (fs *FS) WriteTar(w io.Writer) error {
	tw := tar.NewWriter(w)
	for _, e := range fs.entries {
		e.ModTime = time.Unix(0, 0)
		if err := tw.WriteHeader(&e); err != nil {
			return err
		}
		if _, err := tw.Write(fs.content[e.Name]); err != nil {
			return err
		}
	}
	return tw.Close()
}

// Digest returns the digest of the uncompressed layer, which an image's config lists as its diff_id.
func (fs *FS) Digest() (string, error) {
	h := sha256.New()
	if err := fs.WriteTar(h); err != nil {
		return "", err
	}
	return fmt.Sprintf("sha256:%x", h.Sum(nil)), nil
}
