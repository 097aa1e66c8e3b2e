//go:build linux

package vm

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// writeResults writes the result files that the guest sent as a tar archive of this size.
func writeResults(archive *os.File, size int64, p *guestProgram) error {
	_, err := archive.Seek(0, io.SeekStart)
	if err == nil {
		err = unpackResults(io.LimitReader(archive, size), p.results, p.hostDir)
	}
	if _, ok := errors.AsType[*Fault](err); ok {
		return err
	}
	if err != nil {
		return &Fault{Tried: "write the result files of the command", Seen: err.Error(), Do: "check that the directory is yours, and that the disk is not full"}
	}
	return nil
}

func tooManyResults(seen string) error {
	return &Fault{
		Tried: "receive the result files of the command", Seen: seen,
		Do: "run fewer questions at once (Q=…), or write fewer and smaller artifacts and profiles",
	}
}

// unpackResults writes the guest's files to the wanted paths, or below them, and nowhere else. Neither a name with dots
// nor a symbolic link that exists on the host leads out of these places. With a hostDir, the one wanted path of the guest stands for
// this directory.
func unpackResults(r io.Reader, wanted []string, hostDir string) error {
	files, left := 0, int64(maxResultBytes)
	for archive := tar.NewReader(r); ; {
		h, err := archive.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if files++; files > maxResultFiles {
			return tooManyResults(fmt.Sprintf("the guest sent more than %d files", maxResultFiles))
		}
		// The size that the file will have here: the archive may hold a sparse file.
		if left -= h.Size; left < 0 {
			return tooManyResults(fmt.Sprintf("the files that the guest sent have more than %d MiB", maxResultBytes>>20))
		}
		name := filepath.Clean("/" + h.Name)
		base, rel := splitTrusted(name, wanted)
		if base == "" {
			return fmt.Errorf("the guest sent %q, which the command's flags do not name", name)
		}
		if hostDir != "" {
			if base, rel = hostDir, strings.TrimPrefix(name, wanted[0]+"/"); rel == name {
				continue // the directory itself
			}
		}
		if err := unpackEntry(archive, h, base, rel); err != nil {
			return err
		}
	}
}

// splitTrusted splits a name into a directory on the host that is trusted, and the rest. The directory is "" if the
// name is not at or below one of the wanted paths.
func splitTrusted(name string, wanted []string) (base, rel string) {
	for _, w := range wanted {
		if name == w || strings.HasPrefix(name, w+"/") {
			rel, err := filepath.Rel(filepath.Dir(w), name)
			if err == nil {
				return filepath.Dir(w), rel
			}
		}
	}
	return "", ""
}

// unpackEntry writes one file or directory of the archive below base.
func unpackEntry(content io.Reader, h *tar.Header, base, rel string) error {
	if err := os.MkdirAll(base, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(base)
	if err != nil {
		return err
	}
	defer root.Close()
	if h.Typeflag == tar.TypeDir {
		return root.MkdirAll(rel, 0o755)
	}
	if h.Typeflag != tar.TypeReg {
		return nil
	}
	if err := root.MkdirAll(filepath.Dir(rel), 0o755); err != nil {
		return err
	}
	f, err := root.Create(rel)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
