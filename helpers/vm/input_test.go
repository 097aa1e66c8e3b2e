//go:build linux

package vm

import (
	"errors"
	"flag"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

// oddName is a name that a user may give to a directory. It has characters of the shell, of make and of a glob pattern.
const oddName = `[x] it's "q" $y`

// Each row is bad input to `lab exec`. The run has to end with a Fault before anything boots.
func TestInput_BadInputIsAFaultBeforeTheBoot(t *testing.T) {
	text := filepath.Join(t.TempDir(), "text")
	assert.NilError(t, os.WriteFile(text, []byte("no kernel"), 0o644))
	fifo := filepath.Join(t.TempDir(), "fifo")
	assert.NilError(t, syscall.Mkfifo(fifo, 0o644))

	for name, c := range map[string]struct {
		env  map[string]string
		seen string
	}{
		"kernel of blanks":           {map[string]string{"CDB_KERNEL": " "}, "there is no such file"},
		"two kernels":                {map[string]string{"CDB_KERNEL": "6.1 6.12"}, "there is no such file"},
		"kernel in the parent":       {map[string]string{"CDB_KERNEL": "../x"}, "there is no such file"},
		"kernel with a dot":          {map[string]string{"CDB_KERNEL": "6."}, "there is no such file"},
		"kernel that is an option":   {map[string]string{"CDB_KERNEL": "-nodefaults"}, "there is no such file"},
		"kernel that is a directory": {map[string]string{"CDB_KERNEL": "."}, "it is no regular file"},
		"kernel that is a FIFO":      {map[string]string{"CDB_KERNEL": fifo}, "it is no regular file"},
		"kernel that is a text file": {map[string]string{"CDB_KERNEL": text}, "it is not a kernel image"},
		"kernel that is empty":       {map[string]string{"CDB_KERNEL": os.DevNull}, "it is no regular file"},
		"no apt":                     {map[string]string{"CDB_KERNEL": "6.1", "PATH": "no-apt"}, "this machine has no apt-get"},
		"offline":                    {map[string]string{"CDB_KERNEL": "6.1", "PATH": "offline"}, "Temporary failure resolving"},
		"memory with a unit":         {map[string]string{"CDB_MEM": "512M"}, `MEM is "512M", not a number of MiB`},
		"memory of 0":                {map[string]string{"CDB_MEM": "0"}, "MEM is 0, not a number"},
		"too much memory":            {map[string]string{"CDB_MEM": "99999999999999999999"}, "not a number of MiB"},
		"CPUs in words":              {map[string]string{"CDB_CPUS": "two"}, `CPUS is "two", not a number`},
		"a negative number of CPUs":  {map[string]string{"CDB_CPUS": "-1"}, "CPUS is -1, not a number"},
		"too many CPUs":              {map[string]string{"CDB_CPUS": "65"}, "CPUS is 65, not a number"},
		"accelerator in capitals":    {map[string]string{"CDB_ACCEL": "KVM"}, `ACCEL is "KVM"`},
		"cgroup mode in capitals":    {map[string]string{"CDB_CGROUP": "V2"}, `CGROUP is "V2"`},
		"cgroup mode with a blank":   {map[string]string{"CDB_CGROUP": "v2 "}, `CGROUP is "v2 "`},
		"firmware without a disk":    {map[string]string{"CDB_FIRMWARE": "uefi"}, `FIRMWARE is "uefi", and only a disk image`},
		"pinned without a disk":      {map[string]string{"CDB_DISK_PINNED": "1"}, "only a disk image has programs of its own"},
		"words with a disk": {
			map[string]string{"CDB_DISK": "node.qcow2", "CDB_VM_APPEND": "systemd.unified_cgroup_hierarchy=0"},
			`CDB_VM_APPEND is "systemd.unified_cgroup_hierarchy=0", and the boot loader`,
		},
		"modules with a disk":       {map[string]string{"CDB_DISK": "node.qcow2", "CDB_MODULES": "/mods"}, `CDB_MODULES is "/mods", and`},
		"modules with no kernel":    {map[string]string{"CDB_MODULES": "/mods"}, `CDB_MODULES is "/mods", and only a kernel`},
		"modules with a version":    {map[string]string{"CDB_KERNEL": "6.12", "CDB_MODULES": "/mods"}, `CDB_MODULES is "/mods", and`},
		"no modules":                {map[string]string{"CDB_KERNEL": "KERNEL", "CDB_MODULES": "/mods"}, "there is no directory kernel in"},
		"a console that is no word": {map[string]string{"CDB_VM_CONSOLE": "yes"}, `CDB_VM_CONSOLE is "yes"`},
		"no HOME":                   {map[string]string{"HOME": "", "XDG_CACHE_HOME": "", "GOCACHE": "", "GOENV": "off"}, "HOME"},
		"no test binary":            {map[string]string{"ARGS": "/nonexistent"}, "find the test binary /nonexistent: there is no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			booted := filepath.Join(t.TempDir(), "booted")
			fakeQEMU(t, `case "$*" in *--version*) echo QEMU emulator version 9.0.0;; *) touch '`+booted+`';; esac`)
			binary := os.Args[0]
			for _, name := range []string{
				"CDB_KERNEL", "CDB_MEM", "CDB_CPUS", "CDB_ACCEL", "CDB_CGROUP", "CDB_DISK", "CDB_FIRMWARE", "CDB_DISK_PINNED", "CDB_MODULES",
				"CDB_VM_APPEND", "CDB_VM_CONSOLE",
			} {
				t.Setenv(name, "")
			}
			cache := &Cache{Module: "../..", dir: t.TempDir()}
			for name, value := range c.env {
				switch name + value {
				case "PATHno-apt":
					// With pid 1 in the cache, because there is no go either.
					fakeInit(t, cache)
					qemu, err := exec.LookPath(platforms[runtime.GOARCH].program)
					assert.NilError(t, err)
					value = filepath.Dir(qemu)
				case "PATHoffline":
					fakeInit(t, cache)
					fakeProgram(t, "apt-cache", "exit 0")
					fakeProgram(t, "apt-get", "echo Temporary failure resolving >&2; exit 100")
					continue
				case "CDB_KERNELKERNEL":
					value = fakeKernel(t)
				case "ARGS/nonexistent":
					binary = value
					continue
				}
				if name == "CDB_KERNEL" {
					fakeInit(t, cache)
				}
				t.Setenv(name, value)
			}
			command := &Command{Cache: cache, Args: []string{binary}, Stdout: io.Discard, Stderr: io.Discard, Log: t.Logf}
			command.Flags(flag.NewFlagSet("", flag.PanicOnError))
			_, err := command.Run(t.Context())
			var f *Fault
			assert.Assert(t, errors.As(err, &f), "%v", err)
			assert.Assert(t, cmp.Contains(err.Error(), c.seen))
			assert.Assert(t, f.Do != "", "the fault names no remedy: %v", err)
			_, err = os.Stat(booted)
			assert.ErrorIs(t, err, os.ErrNotExist)
		})
	}
}

// fakeInit puts a pid 1 into the cache, so that a test does not have to build one.
func fakeInit(t *testing.T, c *Cache) {
	t.Helper()
	name, err := c.initName()
	assert.NilError(t, err)
	tmp := filepath.Join(t.TempDir(), "init")
	assert.NilError(t, os.WriteFile(tmp, []byte("pid 1"), 0o755))
	assert.NilError(t, c.commit(tmp, name))
}

func TestInput_ReadOnlyCheckout(t *testing.T) {
	dir := t.TempDir()
	if os.Geteuid() == 0 { // root may write to a directory without the permission
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
			t.Skipf("root of this machine can't mount a small file system: %v", err)
		}
		t.Cleanup(func() { assert.Check(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	}
	c := &Cache{Module: dir, dir: dir + "/.lab/vm"}
	assert.NilError(t, c.create())
	if os.Geteuid() == 0 {
		assert.NilError(t, syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	} else {
		assert.NilError(t, os.Chmod(c.dir, 0o555))
		t.Cleanup(func() { _ = os.Chmod(c.dir, 0o755) })
	}
	err := c.create()
	assert.Assert(t, cmp.Contains(err.Error(), "writable for you"))
	assert.Assert(t, cmp.Contains(err.Error(), "copy it"))
}

// A checkout may lie in any directory.
func TestInput_OddDirectory(t *testing.T) {
	module, err := filepath.Abs("../..")
	assert.NilError(t, err)
	odd := filepath.Join(t.TempDir(), oddName)
	for _, name := range []string{"cmd/lab-init", "helpers/vm/protocol"} {
		assert.NilError(t, os.CopyFS(filepath.Join(odd, name), os.DirFS(filepath.Join(module, name))))
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		b, err := os.ReadFile(filepath.Join(module, name))
		assert.NilError(t, err)
		assert.NilError(t, os.WriteFile(filepath.Join(odd, name), b, 0o644))
	}
	c := &Cache{Module: odd, dir: odd + "/.lab/vm"}
	assert.NilError(t, c.create())
	init, err := c.buildInit(t.Context(), t.Logf)
	assert.NilError(t, err)
	name, err := (&Cache{Module: module, dir: odd}).initName()
	assert.NilError(t, err)
	assert.Equal(t, filepath.Base(init), filepath.Base(name), "the key depends on the sources, not on the path")
	assert.NilError(t, os.WriteFile(odd+"/cmd/lab-init/new.go", []byte("package main\n"), 0o644))
	name, err = c.initName()
	assert.NilError(t, err)
	assert.Assert(t, name != init)

	a := newFakeArchive(t, "1")
	content, _ := a.fetch(c)
	assert.Equal(t, content, "content of 1")

	t.Chdir(odd)
	files := fileTree{}
	assert.NilError(t, files.addHostDir("/tree", odd, func(string, fs.DirEntry) bool { return false }))
	disk, err := c.workImage(files)
	assert.NilError(t, err)
	assert.NilError(t, disk.Close())
	assert.Assert(t, files.has("/tree/cmd/lab-init/main.go"))
}

// The guest does not depend on the umask of the checkout.
func TestInput_Umask(t *testing.T) {
	was := syscall.Umask(0o077)
	t.Cleanup(func() { syscall.Umask(was) })
	dir := t.TempDir()
	assert.NilError(t, os.Mkdir(dir+"/sub", 0o755))
	assert.NilError(t, os.WriteFile(dir+"/sub/data", nil, 0o644))
	assert.NilError(t, os.WriteFile(dir+"/sub/script", nil, 0o755))
	files := fileTree{}
	assert.NilError(t, files.addHostDir("/tree", dir, func(string, fs.DirEntry) bool { return false }))
	for name, want := range map[string]fs.FileMode{"": fs.ModeDir | 0o755, "/sub": fs.ModeDir | 0o755, "/sub/data": 0o644, "/sub/script": 0o755} {
		assert.Equal(t, files["/tree"+name].mode, want, name)
	}
}

// fakeCheckout returns a directory with the Makefile, in which the programs that make starts do nothing. In place of .lab/bin/lab, a
// script writes its arguments and the kernel to the file log.
func fakeCheckout(t *testing.T) (dir, log string) {
	t.Helper()
	if _, err := exec.LookPath("make"); err != nil {
		t.Skip("make is not on PATH; install make")
	}
	for _, name := range []string{"MAKEFLAGS", "MFLAGS", "MAKELEVEL"} { // of the make test that asks this: it would tell the directory
		t.Setenv(name, "")
	}
	dir = filepath.Join(t.TempDir(), oddName)
	assert.NilError(t, os.MkdirAll(dir+"/scripts", 0o755))
	for _, name := range []string{"Makefile", "vm.mk"} {
		b, err := os.ReadFile("../../" + name)
		assert.NilError(t, err)
		assert.NilError(t, os.WriteFile(filepath.Join(dir, name), b, 0o644))
	}
	assert.NilError(t, os.WriteFile(dir+"/scripts/deps.sh", []byte("#!/bin/sh\n"), 0o755))
	assert.NilError(t, os.MkdirAll(dir+"/.lab/bin", 0o755))
	log = filepath.Join(t.TempDir(), "log")
	script := `{ printf '<%s>' "$@"; echo " $CDB_KERNEL"; } >> '` + log + "'\n"
	assert.NilError(t, os.WriteFile(dir+"/.lab/bin/lab", []byte("#!/bin/sh\n"+script), 0o755))
	fakeProgram(t, "go", "") // it would build lab
	return dir, log
}

// make passes its variables to the shell as they were typed.
func TestInput_MakeQuotesItsVariables(t *testing.T) {
	dir, log := fakeCheckout(t)
	c := exec.Command("make", "lab", "Q=^A$|^B'$", "ARTIFACTS=out [1]", "JUNIT=it's/junit.xml", "KERNEL=/boot/a 'b'")
	c.Dir = dir
	out, err := c.CombinedOutput()
	assert.NilError(t, err, "%s", out)
	b, err := os.ReadFile(log)
	assert.NilError(t, err)
	calls := strings.Split(strings.TrimSpace(string(b)), "\n")
	last := calls[len(calls)-1]
	for _, want := range []string{
		"<run>", "<-run><^A$|^B'$>", "<-outputdir><out [1]>", "<-junit><it's/junit.xml>", "<-exec><.lab/bin/lab exec>", " /boot/a 'b'",
	} {
		assert.Check(t, cmp.Contains(last, want))
	}
}

// A slip in WHERE must not run the questions as root on this machine.
func TestInput_MakeRefusesAWrongWHERE(t *testing.T) {
	dir, log := fakeCheckout(t)
	run := func(target, where string) (string, error) {
		c := exec.Command("make", target, "WHERE="+where)
		c.Dir = dir
		out, err := c.CombinedOutput()
		return string(out), err
	}
	for _, target := range []string{"steady", "released", "watch", "compare", "matrix"} {
		for _, where := range []string{"VM", "vm2", "", "vm here", "1"} {
			out, err := run(target, where)
			assert.Check(t, err != nil, "make %s WHERE=%q: %s", target, where, out)
			assert.Check(t, cmp.Contains(out, `WHERE is "`+where+`", expected vm or here`))
		}
	}
	_, err := os.Stat(log)
	assert.ErrorIs(t, err, os.ErrNotExist)
	for where, target := range map[string]string{"vm": "lab", "here": "lab-here"} {
		out, err := run("watch", where)
		assert.NilError(t, err, out)
		b, err := os.ReadFile(log)
		assert.NilError(t, err)
		assert.Check(t, cmp.Contains(string(b), "<--no-print-directory><"+target+">"))
	}
}
