//go:build linux

package dist

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

func writeTarball(t *testing.T, files map[string]File) string {
	t.Helper()
	var b bytes.Buffer
	assert.NilError(t, Write(&b, files, someTime))
	path := filepath.Join(t.TempDir(), "cdblab.tar.gz")
	assert.NilError(t, os.WriteFile(path, b.Bytes(), 0o644))
	return path
}

func TestUnpack_ATarballOrItsDirectory(t *testing.T) {
	const nested = "bin/tool"
	tarball := writeTarball(t, map[string]File{
		Program: {0o755, []byte("#!/bin/sh\n")}, nested: {0o755, nil}, VersionFile: {0o644, []byte("cdblab 1 of today, linux/" + runtime.GOARCH + ", go1\n")},
	})
	defer unix.Umask(unix.Umask(0o077))
	first := filepath.Join(t.TempDir(), "tree")
	assert.NilError(t, Unpack(first, tarball))
	assert.NilError(t, os.WriteFile(filepath.Join(first, "results"), nil, 0o644)) // a file of the user
	second := filepath.Join(t.TempDir(), "tree")
	assert.NilError(t, Unpack(second, first))
	for _, dir := range []string{first, second} {
		for _, name := range []string{".", Program, filepath.Dir(nested)} {
			info, err := os.Stat(filepath.Join(dir, name))
			assert.NilError(t, err)
			assert.Equal(t, info.Mode().Perm(), os.FileMode(0o755), name)
		}
	}
	_, err := os.Stat(filepath.Join(second, "results"))
	assert.Check(t, os.IsNotExist(err))
}

func TestUnpack_RefusesWhatIsNotTheTarball(t *testing.T) {
	whole := writeTarball(t, map[string]File{Program: {0o755, bytes.Repeat([]byte("#!/bin/sh\n"), 10_000)}})
	b, err := os.ReadFile(whole)
	assert.NilError(t, err)
	cut := filepath.Join(t.TempDir(), "cut.tar.gz")
	assert.NilError(t, os.WriteFile(cut, b[:len(b)/2], 0o644))
	text := filepath.Join(t.TempDir(), "text")
	assert.NilError(t, os.WriteFile(text, []byte("hello, this is text\n"), 0o644))
	for path, want := range map[string]string{
		cut: "unexpected EOF", text: "invalid header", t.TempDir(): "no such file",
		writeTarball(t, map[string]File{"../../../outside": {0o644, nil}}):                                      "would be outside",
		writeTarball(t, map[string]File{VersionFile: {0o644, []byte("cdblab 1 of today, linux/s390x, go1\n")}}): "for linux/s390x",
	} {
		assert.Check(t, cmp.ErrorContains(Unpack(filepath.Join(t.TempDir(), "tree"), path), want), path)
	}
}
