//go:build linux

package vm

import (
	"archive/tar"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// unpackResults writes the guest's files to where the command was told to leave them, and nowhere else: neither a
// name with dots in it nor a link that lies there leads out of these places.
func unpackResults(r io.Reader, wanted []string) error {
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		name := filepath.Clean("/" + h.Name)
		base, rel := place(name, wanted)
		if base == "" {
			return fmt.Errorf("the guest handed back %s, which nobody asked for", name)
		}
		if err := unpackOne(t, h, base, rel); err != nil {
			return err
		}
	}
}

// place splits a name into the directory that is trusted and the rest.
func place(name string, wanted []string) (base, rel string) {
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

func unpackOne(t *tar.Reader, h *tar.Header, base, rel string) error {
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
	_, err = io.Copy(f, t)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
