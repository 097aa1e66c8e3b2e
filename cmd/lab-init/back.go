package main

import (
	"archive/tar"
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"cdblab/helpers/vm/wire"
)

// sendBack writes the files and directories that are there to the files port, as a tar, and returns its length.
func sendBack(paths []string) (int64, error) {
	if len(paths) == 0 {
		return 0, nil
	}
	port, err := openPort(wire.Files)
	if err != nil {
		return 0, err
	}
	defer port.Close()
	count := &counter{w: port}
	buf := bufio.NewWriterSize(count, 64<<10)
	t := tar.NewWriter(buf)
	for _, p := range paths {
		if err := add(t, p); err != nil {
			return 0, fmt.Errorf("bring back %s: %w", p, err)
		}
	}
	if err := t.Close(); err != nil {
		return 0, err
	}
	if err := buf.Flush(); err != nil {
		return 0, fmt.Errorf("bring back files: %w", err)
	}
	return count.n, nil
}

func add(t *tar.Writer, root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if path == root && os.IsNotExist(err) {
				return nil
			}
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		// Only plain files: a link or a device of the guest's has no meaning outside.
		if !info.Mode().IsRegular() && !info.IsDir() {
			return nil
		}
		h, err := tar.FileInfoHeader(info, "")
		if err != nil {
			return err
		}
		h.Name = path
		if err := t.WriteHeader(h); err != nil || info.IsDir() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.CopyN(t, f, info.Size())
		return err
	})
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}
