package main

import (
	"archive/tar"
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"cdblab/helpers/vm/protocol"
)

// sendResults writes a tar archive of the given files and directories to the results port, and returns the archive's
// length. Files that do not exist are left out.
func sendResults(paths []string) (int64, error) {
	if len(paths) == 0 {
		return 0, nil
	}
	port, err := openPort(protocol.ResultsPort)
	if err != nil {
		return 0, err
	}
	defer port.Close()
	counter := &countingWriter{w: port}
	buf := bufio.NewWriterSize(counter, 64<<10)
	archive := tar.NewWriter(buf)
	for _, p := range paths {
		if err := addToArchive(archive, p); err != nil {
			return 0, fmt.Errorf("send back %s: %w", p, err)
		}
	}
	if err := archive.Close(); err != nil {
		return 0, err
	}
	if err := buf.Flush(); err != nil {
		return 0, fmt.Errorf("send back the result files: %w", err)
	}
	return counter.n, nil
}

func addToArchive(archive *tar.Writer, root string) error {
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
		// Only regular files and directories: a link or a device of the guest has no meaning on the host.
		if !info.Mode().IsRegular() && !info.IsDir() {
			return nil
		}
		h, err := tar.FileInfoHeader(info, "")
		if err != nil {
			return err
		}
		h.Name = path
		if err := archive.WriteHeader(h); err != nil || info.IsDir() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.CopyN(archive, f, info.Size())
		return err
	})
}

// countingWriter counts the bytes that it passes on.
type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}
