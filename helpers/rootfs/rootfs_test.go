//go:build linux

package rootfs

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

func busybox(t *testing.T) *FS {
	t.Helper()
	path, err := exec.LookPath("busybox")
	if err == nil {
		err = CheckStatic(path)
	}
	if err != nil {
		t.Skipf("no static busybox (%v); to run this: make deps", err)
	}
	fs, err := Busybox(path)
	assert.NilError(t, err)
	return fs
}

func TestBusybox_DirectoryAndLayerHaveTheSameFiles(t *testing.T) {
	fs := busybox(t)
	dir := t.TempDir()
	defer unix.Umask(unix.Umask(0o077)) // the modes are those of the rootfs
	assert.NilError(t, fs.WriteDir(dir))
	var layer bytes.Buffer
	assert.NilError(t, fs.WriteTar(&layer))
	entries := 0
	for r := tar.NewReader(&layer); ; entries++ {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		assert.NilError(t, err)
		info, err := os.Lstat(filepath.Join(dir, h.Name))
		assert.NilError(t, err)
		if h.Typeflag == tar.TypeLink {
			first, err := os.Lstat(filepath.Join(dir, h.Linkname))
			assert.NilError(t, err)
			assert.Check(t, os.SameFile(info, first), h.Name)
			continue
		}
		assert.Check(t, cmp.Equal(info.Mode(), h.FileInfo().Mode()), h.Name)
		if h.Typeflag == tar.TypeReg {
			assert.Check(t, cmp.Equal(info.Size(), h.Size), h.Name)
		}
	}
	assert.Check(t, entries > 100, "expected the links of more than 100 applets, got %d entries", entries)
	out, err := exec.Command(filepath.Join(dir, "bin", "echo"), "hello").Output()
	assert.NilError(t, err)
	assert.Equal(t, string(out), "hello\n")
}

func TestDigest_IsTheSameEachTime(t *testing.T) {
	a, err := busybox(t).Digest()
	assert.NilError(t, err)
	b, err := busybox(t).Digest()
	assert.NilError(t, err)
	assert.Equal(t, a, b)
}

func TestCheckStatic_RefusesDynamicProgramsAndOtherFiles(t *testing.T) {
	ls, err := exec.LookPath("ls")
	assert.NilError(t, err)
	if err := CheckStatic(ls); err == nil {
		t.Skip("this machine has a static ls: nothing to test with")
	}
	assert.ErrorIs(t, CheckStatic(ls), ErrNotStatic)
	_, err = Busybox(ls)
	assert.ErrorIs(t, err, ErrNotStatic)
	assert.ErrorContains(t, CheckStatic("/etc/passwd"), "no ELF executable")
	assert.ErrorIs(t, CheckStatic("/no/such/file"), os.ErrNotExist)
}

func TestWriteDir_AppletsAreLinksToBusybox(t *testing.T) {
	dir := t.TempDir()
	assert.NilError(t, busybox(t).WriteDir(dir))
	for _, applet := range []string{"[", "ls", "sleep"} {
		to, err := os.Readlink(filepath.Join(dir, "bin", applet))
		assert.NilError(t, err)
		assert.Equal(t, to, "busybox")
	}
}
