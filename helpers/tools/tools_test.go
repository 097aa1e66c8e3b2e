//go:build linux

package tools

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

func tool(t *testing.T, name string) Tool {
	t.Helper()
	for _, tool := range All {
		if tool.Name == name {
			return tool
		}
	}
	t.Fatalf("the table has no %s", name)
	return Tool{}
}

func executable(t *testing.T, path string) string {
	t.Helper()
	assert.NilError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	assert.NilError(t, os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755))
	return path
}

func TestFind_NamesTheRemedy(t *testing.T) {
	dir, runc := t.TempDir(), tool(t, "runc")
	_, err := runc.Find(dir)
	assert.ErrorContains(t, err, "runc is not built")
	assert.ErrorContains(t, err, "make tools")
	assert.ErrorContains(t, err, "CDB_RUNC=")

	plain := filepath.Join(dir, "plain")
	assert.NilError(t, os.WriteFile(plain, []byte("#!/bin/sh\n"), 0o644))
	t.Setenv("CDB_RUNC", plain)
	_, err = runc.Find(dir)
	assert.ErrorContains(t, err, "names no executable")
	assert.ErrorContains(t, err, plain)
	assert.ErrorContains(t, err, "make lab RUNC=1.2.3")
	assert.ErrorIs(t, err, os.ErrPermission)

	assert.NilError(t, os.Chmod(plain, 0o755))
	p, err := runc.Find(dir)
	assert.NilError(t, err)
	assert.Equal(t, p.Path, plain)
	assert.Assert(t, !p.Pinned)
	t.Setenv(PinnedEnv, "CDB_CTR,CDB_RUNC")
	assert.Assert(t, runc.Pinned(), "in the VM the pinned tools are named as well")
}

func TestFind_LooksBelowTheModule(t *testing.T) {
	dir := fakeModule(t, upToDate())
	want := dir + "/.lab/bin/runc"
	p, err := tool(t, "runc").Find(dir)
	assert.NilError(t, err)
	assert.DeepEqual(t, p, Program{Name: "runc", Path: want, Pinned: true})
	t.Chdir(dir)
	p, err = tool(t, "runc").Find(".")
	assert.NilError(t, err)
	assert.Equal(t, p.Path, want)
}

// A dynamic busybox is passed over, and so is a script; a static one at a later place is found.
func TestFind_BusyboxMustBeStatic(t *testing.T) {
	busybox := tool(t, "busybox")
	script := executable(t, t.TempDir()+"/busybox")
	t.Setenv("CDB_BUSYBOX", script)
	_, err := busybox.Find(".")
	assert.ErrorContains(t, err, "cannot be the rootfs")
	assert.ErrorContains(t, err, "busybox-static")

	t.Setenv("CDB_BUSYBOX", "")
	dynamic := elfFile(t, "/lib64/ld-linux-x86-64.so.2")
	busybox.Search = []string{script, dynamic}
	_, err = busybox.Find(".")
	assert.ErrorContains(t, err, "no static busybox")
	assert.ErrorContains(t, err, "asks for /lib64/ld-linux-x86-64.so.2")
	assert.ErrorContains(t, err, "make deps")

	busybox.Search = append(busybox.Search, elfFile(t, ""))
	p, err := busybox.Find(".")
	assert.NilError(t, err)
	assert.Equal(t, p.Path, busybox.Search[2])
}

// elfFile makes an executable that asks for this interpreter, or for none (elf(5)). It has no code.
func elfFile(t *testing.T, interpreter string) string {
	t.Helper()
	header := elf.Header64{
		Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT),
	}
	header.Ehsize, header.Phentsize = uint16(binary.Size(header)), uint16(binary.Size(elf.Prog64{}))
	var program []elf.Prog64
	if interpreter != "" {
		header.Phoff, header.Phnum = uint64(header.Ehsize), 1
		program = []elf.Prog64{{
			Type: uint32(elf.PT_INTERP), Off: uint64(header.Ehsize + header.Phentsize), Filesz: uint64(len(interpreter)),
		}}
	}
	var file bytes.Buffer
	for _, part := range []any{header, program, []byte(interpreter)} {
		assert.NilError(t, binary.Write(&file, binary.LittleEndian, part))
	}
	path := filepath.Join(t.TempDir(), "busybox")
	assert.NilError(t, os.WriteFile(path, file.Bytes(), 0o755))
	return path
}

func TestInstalled_IgnoresAVariableThatNamesNothing(t *testing.T) {
	crun := tool(t, "crun")
	crun.Search = []string{t.TempDir() + "/crun"}
	assert.Assert(t, !crun.Installed("."))
	_, err := crun.Find(".")
	assert.ErrorContains(t, err, "crun is not installed")
	executable(t, crun.Search[0])
	assert.Assert(t, crun.Installed("."))
	crun.Env = "CDB_TEST_CRUN"
	t.Setenv(crun.Env, "/nonexistent")
	assert.Assert(t, crun.Installed("."))
}

func TestVersion_OfAProgramThatPrintsNone(t *testing.T) {
	assert.Check(t, cmp.Contains(version("/bin/false", nil, nil), "prints no version (exit status 1)"))
}

// A program is not asked in the caller's environment: with NOTIFY_SOCKET, runc makes a socket.
func TestVersion_HasTheGivenEnvironment(t *testing.T) {
	script := executable(t, t.TempDir()+"/runc")
	assert.NilError(t, os.WriteFile(script, []byte("#!/bin/sh\necho version $NOTIFY_SOCKET $GIVEN\n"), 0o755))
	t.Setenv("NOTIFY_SOCKET", "/run/notify")
	found := map[string]Program{"runc": {Name: "runc", Path: script}}
	Describe(found, []string{"GIVEN=given"})
	assert.Equal(t, found["runc"].Version, "version given")
}

// The shim of containerd 1.6 prints its path, the others print their name.
func TestVersion_OfAShim(t *testing.T) {
	script := executable(t, t.TempDir()+"/shim")
	assert.NilError(t, os.WriteFile(script, []byte("#!/bin/sh\nprintf '%s:\\n  Version:  1.6.36\\n  Revision: \\n' \"$0\"\n"), 0o755))
	assert.Equal(t, version(script, []string{"-v"}, nil), "Version:  1.6.36")
}

func TestDescribe(t *testing.T) {
	script := executable(t, t.TempDir()+"/script")
	found := map[string]Program{"runc": {Name: "runc", Path: script}, "ctr": {Name: "ctr", Path: script, Pinned: true}}
	Describe(found, nil)
	assert.Equal(t, len(found), 2)
	assert.Equal(t, found["ctr"].Version, "prints no version")
	assert.Assert(t, found["ctr"].Pinned)
	assert.Equal(t, found["runc"].Version, "prints no version")
	assert.Equal(t, found["runc"].Digest, "sha256:a8076d3d28d21e02012b20eaf7dbf75409a6277134439025f282e368e3305abf")
}
