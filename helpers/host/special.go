//go:build linux

package host

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// SpecialFiles describes the sockets, FIFOs and devices below a directory: everything that is no file, no directory and no
// symbolic link. A program that ends in order removes its sockets and FIFOs. The whiteouts of overlayfs are devices, and they are
// no leftovers: they are the content of a snapshot, by which a file of a lower directory is deleted.
func SpecialFiles(dir string) ([]string, error) {
	var out []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // removed during the walk
		case err != nil:
			return err
		case !d.Type().IsRegular() && !d.IsDir() && d.Type() != fs.ModeSymlink && !isWhiteout(path):
			out = append(out, fmt.Sprintf("%s %s", kindOf(d.Type()), path))
		}
		return nil
	})
	return out, err
}

// isWhiteout reports whether a file is a character device with the number 0:0.
func isWhiteout(path string) bool {
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

// kindOf returns the kind of a file in an [Inventory].
func kindOf(mode fs.FileMode) string {
	switch {
	case mode&fs.ModeNamedPipe != 0:
		return "FIFO"
	case mode&fs.ModeSocket != 0:
		return "socket file"
	case mode&fs.ModeDevice != 0:
		return "device file"
	case mode.IsDir():
		return "directory"
	}
	return "file"
}
