//go:build linux

package vm

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/dist"
)

// haveFree makes all disks of this machine have so much room.
func haveFree(t *testing.T, bytes int64) {
	t.Helper()
	was := freeSpace
	freeSpace = func(string) (int64, error) { return bytes, nil }
	t.Cleanup(func() { freeSpace = was })
}

func TestSpace_IsThatOfTheDirectory(t *testing.T) {
	dir := t.TempDir()
	free, err := freeSpace(dir)
	assert.NilError(t, err)
	// The same number from another program. Others write to this disk as well.
	out, err := exec.Command("df", "--output=avail", "-B1", dir).Output()
	assert.NilError(t, err)
	said, err := strconv.ParseInt(strings.Fields(string(out))[1], 10, 64)
	assert.NilError(t, err)
	assert.Check(t, free-said < 1<<30 && said-free < 1<<30, "%d bytes are free, and df says %d", free, said)
	_, err = freeSpace(filepath.Join(dir, "none"))
	assert.ErrorIs(t, err, os.ErrNotExist)
}

// A disk that fills while the guest boots ends the boot at once: QEMU stops the guest, and its console shows nothing more.
func TestSpace_ADiskThatFillsDuringTheBootEndsIt(t *testing.T) {
	haveFree(t, 1<<20)
	_, err := followGuestWith(t, t.Context(), &guestProgram{boot: newBootWatch("kvm")}, guestSends(""))
	f, ok := errors.AsType[*Fault](err)
	assert.Assert(t, ok, "%v", err)
	assert.Check(t, cmp.Contains(f.Seen, "has 1 MB free"))
	assert.Check(t, cmp.Contains(f.Do, "make room"))
}

// Without enough room nothing boots.
func TestSpace_IsCheckedBeforeTheBoot(t *testing.T) {
	c := &Cache{dir: t.TempDir()}
	haveFree(t, snapshotSpace-1)
	err := c.checkSpace("boot", snapshotSpace)
	assert.Check(t, cmp.ErrorContains(err, "has 511 MB free, and 512 MB are needed\n  what to do: make room"))
	haveFree(t, snapshotSpace)
	assert.NilError(t, c.checkSpace("boot", snapshotSpace))

	_, err = c.CheckDiskSpace()
	assert.Check(t, cmp.ErrorContains(err, "has 512 MB free, and 1212 MB are needed"))
	haveFree(t, diskSpace)
	seen, err := c.CheckDiskSpace()
	assert.NilError(t, err)
	assert.Check(t, cmp.Contains(seen, "1212 MB free"))
}

// A run with a disk image ends before QEMU starts, and before the questions are asked of a guest that cannot write.
func TestSpace_TooLittleForADiskImageIsAFaultBeforeTheBoot(t *testing.T) {
	needQEMUImg(t)
	booted := filepath.Join(t.TempDir(), "booted")
	fakeQEMU(t, `case "$*" in *--version*) echo QEMU emulator version 9.0.0;; *) touch '`+booted+`';; esac`)
	var tarball bytes.Buffer
	version := "cdblab 1 of 2026-11-27, linux/" + runtime.GOARCH + ", go1.26.8\n"
	assert.NilError(t, dist.Write(&tarball, map[string]dist.File{
		dist.Init: {Mode: 0o755, Content: []byte("init")}, dist.VersionFile: {Mode: 0o644, Content: []byte(version)},
	}, time.Now()))
	path := filepath.Join(t.TempDir(), "cdblab.tar.gz")
	assert.NilError(t, os.WriteFile(path, tarball.Bytes(), 0o644))
	c := &Command{Cache: &Cache{dir: t.TempDir()}, Args: []string{"lab.test"}, Stdout: io.Discard, Stderr: io.Discard, Log: t.Logf}
	c.Config = Config{Cgroup: "v2", Memory: defaultMemory, Accel: "tcg", Disk: newDisk(t, true), Tarball: path}
	haveFree(t, 100<<20)
	_, err := c.Run(t.Context())
	assert.Check(t, cmp.ErrorContains(err, "has 100 MB free, and 512 MB are needed"))
	_, err = os.Stat(booted)
	assert.ErrorIs(t, err, os.ErrNotExist)
}
