//go:build linux

// Package file reads files and directories of the host for a question. A file that cannot be read fails the test.
package file

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/poll"
)

// Exists reports whether path exists. It reports false only if lstat(2) returns ENOENT.
func Exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// Read returns the content of a file without the white space around it.
func Read(tb testing.TB, path string) string {
	tb.Helper()
	text, err := TryRead(path)
	assert.NilError(tb, err)
	return text
}

// TryRead is [Read] for a file that may not be readable.
func TryRead(path string) (string, error) {
	data, err := os.ReadFile(path)
	return strings.TrimSpace(string(data)), err
}

// Remove removes a file.
func Remove(tb testing.TB, path string) {
	tb.Helper()
	assert.Check(tb, os.Remove(path))
}

// Names returns the names of the entries of a directory, sorted.
func Names(tb testing.TB, dir string) []string {
	tb.Helper()
	entries, err := os.ReadDir(dir)
	assert.NilError(tb, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// Same reports whether both paths refer to the same file.
func Same(a, b string) bool {
	sa, err1 := os.Stat(a)
	sb, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(sa, sb)
}

// DirHas returns a check that succeeds when the directory has an entry of this name.
func DirHas(dir, name string) poll.Check {
	return func(poll.LogT) poll.Result {
		if !Exists(filepath.Join(dir, name)) {
			return poll.Continue("%s has no %s yet", dir, name)
		}
		return poll.Success()
	}
}

// Contains returns a check that succeeds when the file contains text.
func Contains(path, text string) poll.Check {
	return func(poll.LogT) poll.Result {
		data, err := os.ReadFile(path)
		if err != nil {
			return poll.Error(err)
		}
		if !strings.Contains(string(data), text) {
			return poll.Continue("%s does not contain %q yet", path, text)
		}
		return poll.Success()
	}
}

// HasContent returns a check that succeeds when the file has exactly this content, apart from white space around it.
func HasContent(path, want string) poll.Check {
	return func(poll.LogT) poll.Result {
		got, err := TryRead(path)
		if err != nil || got != want {
			return poll.Continue("%s reads %q (%v), not yet %q", path, got, err, want)
		}
		return poll.Success()
	}
}
