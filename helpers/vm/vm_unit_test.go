//go:build linux

package vm

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/erofs/go-erofs"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/tools"
	"cdblab/helpers/vm/protocol"
)

func TestTestResults_AreWhatTheFlagsName(t *testing.T) {
	results, mkdir := testResults([]string{
		"-test.v", "-test.outputdir=/out", "-test.coverprofile=/tmp/b001/_cover_.out", "-test.cpuprofile=cpu.out",
		"-test.gocoverdir=/tmp/cov", "-test.artifacts=true", "-test.testlogfile=/tmp/b001/testlog.txt", "-mine=x",
	}, "/src/pkg")
	assert.DeepEqual(t, results, []string{"/tmp/b001/_cover_.out", "/out/cpu.out", "/tmp/cov", "/out/_artifacts"})
	assert.DeepEqual(t, mkdir, []string{"/out", "/tmp/b001", "/out", "/tmp/cov", "/tmp/b001"})

	results, _ = testResults([]string{"-test.cpuprofile=cpu.out"}, "/src/pkg")
	assert.DeepEqual(t, results, []string{"/src/pkg/cpu.out"})
}

func TestJob_NamesTheToolsWhereTheGuestHasThem(t *testing.T) {
	t.Setenv("CDB_RUNC", "/home/me/runc")
	t.Setenv("CDB_SEED", "7")
	t.Setenv("SECRET", "x")
	t.Setenv("CDB_JANITOR", "1")
	j := newJob(&guestProgram{dir: "/src"}, Config{Cgroup: "v1"}, []string{"CDB_CGROUP=v1", "CDB_RUNC=/usr/local/bin/runc"}, false)
	env := strings.Join(j.Env, "\n") + "\n"
	assert.Equal(t, strings.Count(env, "CDB_RUNC="), 1, env)
	for _, want := range []string{"CDB_RUNC=/usr/local/bin/runc\n", "CDB_SEED=7\n", "CDB_CGROUP=v1\n", "CDB_DISPOSABLE=yes\n", "PWD=/src\n"} {
		assert.Check(t, cmp.Contains(env, want))
	}
	assert.Check(t, !strings.Contains(env, "SECRET"))
	assert.Check(t, !strings.Contains(env, "CDB_JANITOR"), "it would turn the test binary into a janitor, which asks nothing and exits 0")
}

func TestTimeout_IsTheTestBinarysOwn(t *testing.T) {
	assert.Equal(t, testTimeout([]string{"x", "-test.timeout=1m30s"}), 90*time.Second)
	assert.Equal(t, testTimeout([]string{"x"}), time.Duration(0))
}

// The guest's files are written only to the places that the flags name, whatever names the guest sends.
func TestUnpackResults_WritesOnlyWantedPaths(t *testing.T) {
	send := func(h *tar.Header, content string) *bytes.Buffer {
		b := new(bytes.Buffer)
		w := tar.NewWriter(b)
		h.Size, h.Mode = int64(len(content)), 0o644
		assert.NilError(t, w.WriteHeader(h))
		_, err := w.Write([]byte(content))
		assert.NilError(t, err)
		assert.NilError(t, w.Close())
		return b
	}
	dir := t.TempDir()
	wanted := []string{dir + "/out/_artifacts", dir + "/out/cover.out"}

	assert.NilError(t, unpackResults(send(&tar.Header{Name: dir + "/out/_artifacts/a/b", Typeflag: tar.TypeReg}, "yes"), wanted, ""))
	b, err := os.ReadFile(dir + "/out/_artifacts/a/b")
	assert.NilError(t, err)
	assert.Equal(t, string(b), "yes")

	for _, name := range []string{"/etc/cdblab", dir + "/out/other", dir + "/out/_artifacts/../../x", dir + "/out/_artifactsX", "../x"} {
		assert.ErrorContains(t, unpackResults(send(&tar.Header{Name: name, Typeflag: tar.TypeReg}, "no"), wanted, ""),
			"which the command's flags do not name")
	}
	// A symbolic link that leads out: one that exists on the host, and one that the guest sends.
	assert.NilError(t, os.Symlink("/", dir+"/out/_artifacts/root"))
	assert.ErrorContains(t, unpackResults(send(&tar.Header{Name: dir + "/out/_artifacts/root/x", Typeflag: tar.TypeReg}, "no"), wanted, ""),
		"escapes")
	assert.NilError(t, unpackResults(send(&tar.Header{Name: dir + "/out/_artifacts/link", Typeflag: tar.TypeSymlink, Linkname: "/"}, ""), wanted, ""))
	_, err = os.Lstat(dir + "/out/_artifacts/link")
	assert.Assert(t, errors.Is(err, os.ErrNotExist))
}

func TestTestCounter(t *testing.T) {
	tests := new(testCounter)
	text := "=== RUN   TestA\n--- PASS: TestA (0.00s)\n    --- PASS: TestA/sub (0.00s)\n" +
		"\x16--- PASS: TestA/sub (0.00s)\n\x16--- FAIL: TestB (0.1s)\n--- SKIP: TestC (0.00s)\nno --- PASS: x\n"
	for i := range text { // in the smallest pieces
		_, err := tests.Write([]byte(text[i : i+1]))
		assert.NilError(t, err)
	}
	assert.Equal(t, tests.count.String(), "3 asked, 1 answered, 1 failed, 1 skipped")
}

func TestTestSummary_OfARunWithoutNames(t *testing.T) {
	assert.Assert(t, cmp.Contains((&Result{}).TestSummary(), "no test was seen to run"))
	assert.Equal(t, (&Result{ExitCode: 1}).TestSummary(), "0 asked, 0 answered, 0 failed, 0 skipped")
}

func TestReleaseOf(t *testing.T) {
	head := make([]byte, 0x1000)
	_, ok := releaseOf(head, "/boot/vmlinuz-6.1")
	assert.Assert(t, !ok, "zeros are not a kernel")
}

func TestKernelCommandLine(t *testing.T) {
	q := &qemu{platform: platforms["amd64"]}
	assert.Equal(t, q.kernelCommandLine("tcg", "probe"),
		"console=ttyS0 quiet panic=-1 LAB_SLOWNESS=1 mitigations=off no_timer_check  -- probe")
	assert.Equal(t, q.kernelCommandLine("kvm", ""), "console=ttyS0 quiet panic=-1 LAB_SLOWNESS=1 ")
	// A word that the kernel does not know becomes an argument of pid 1.
	arm := &qemu{platform: platforms["arm64"]}
	assert.Equal(t, arm.kernelCommandLine("tcg", ""), "console=ttyAMA0 quiet panic=-1 LAB_SLOWNESS=1 mitigations=off ")
}

func TestParseVersion(t *testing.T) {
	for out, want := range map[string]string{
		"QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright": "7.2.22",
		"QEMU emulator version 10.0.2\n":                                         "10.0.2",
		"bash: nonsense":                                                         "",
	} {
		assert.Equal(t, parseVersion(out), want)
	}
}

func TestFault_ShowsWhatWasTriedSeenAndToDo(t *testing.T) {
	f := &Fault{Tried: "boot the VM", Seen: "silence", Do: "wait", Console: "one\ntwo"}
	assert.Equal(t, f.Error(), "boot the VM: silence\n  the last lines of the guest's console:\n    | one\n    | two\n  what to do: wait")
	assert.Assert(t, cmp.Contains(diskFault("x", "/", syscall.ENOSPC).Error(), "make room on the disk of /"))
	assert.Equal(t, lastLines("a\r\nb\x1bc\nd", 2), "bc\nd")
}

// A run that waits for another one to build the image can be stopped.
func TestLock_EndsWithItsContext(t *testing.T) {
	c := &Cache{dir: t.TempDir()}
	unlock, err := c.lock(t.Context(), t.Logf)
	assert.NilError(t, err)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(&Stopped{Code: 130})
	waits := ""
	_, err = c.lock(ctx, func(format string, args ...any) { waits = fmt.Sprintf(format, args...) })
	_, stopped := errors.AsType[*Stopped](err)
	assert.Assert(t, stopped, "%v", err)
	assert.Check(t, cmp.Contains(waits, "waiting for another run"))
	unlock()
	unlock, err = c.lock(t.Context(), t.Logf)
	assert.NilError(t, err)
	unlock()
}

func TestCopier_WaitsForEveryByte(t *testing.T) {
	conn, err := newConnection("x")
	assert.NilError(t, err)
	var out bytes.Buffer
	c := startCopy(conn, &out)
	_, err = conn.qemuEnd.Write([]byte("12345"))
	assert.NilError(t, err)
	assert.NilError(t, c.waitFor(t.Context(), 5, time.Second))
	assert.ErrorContains(t, c.waitFor(t.Context(), 6, 10*time.Millisecond), "only 5 of 6 bytes arrived within")
	assert.NilError(t, conn.qemuEnd.Close())
	assert.ErrorContains(t, c.waitFor(t.Context(), 6, time.Second), "only 5 of 6 bytes arrived")
}

// In the guest two tests for each CPU run at a time, on one emulated CPU one by one. The caller's own flag comes later, so it counts.
func TestJob_AGuestAsksFewAtATime(t *testing.T) {
	p := &guestProgram{args: []string{"/cdblab.test", "-test.parallel=5"}}
	args := func(conf Config) []string { return newJob(p, conf, nil, false).Args }
	assert.DeepEqual(t, args(Config{Accel: "tcg", CPUs: 1}), []string{"/cdblab.test", "-test.parallel=1", "-test.parallel=5"})
	assert.DeepEqual(t, args(Config{Accel: "tcg", CPUs: 2}), []string{"/cdblab.test", "-test.parallel=4", "-test.parallel=5"})
	assert.DeepEqual(t, args(Config{Accel: "kvm", CPUs: 1}), []string{"/cdblab.test", "-test.parallel=2", "-test.parallel=5"})
	p.terminal = true
	assert.DeepEqual(t, args(Config{Accel: "tcg", CPUs: 1}), p.args)

	// In a disk of the user a program of the tarball comes first.
	p = diskProgram(Config{}, []string{"lab.test", "-test.v", "-test.outputdir=/home/me/results"}, false)
	got := args(Config{Accel: "tcg", CPUs: 1})
	assert.DeepEqual(t, got[1:], []string{"ask", "--", "-test.parallel=1", "-test.v", "-test.outputdir=" + protocol.OutDir})
}

// A disk of the user has the user's settings of the questions, and nothing that names a file of this machine.
func TestIsOfThisMachine(t *testing.T) {
	for variable, want := range map[string]bool{
		"CDB_RUNC=/home/x/runc": true, "CDB_RELEASES=/home/x/releases": true, "CDB_PINNED=CDB_RUNC": true, "CDB_KEEP=1": false, "CDB_IMAGE=x": false,
	} {
		assert.Check(t, cmp.Equal(isOfThisMachine(variable), want), variable)
	}
}

// The image of the VM has no file that is not the release whose name it has.
func TestAddReleases_LeavesOutWhatIsNotTheRelease(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(tools.ReleasesEnv, dir)
	for _, r := range tools.Earlier {
		for _, tool := range r.Tools() {
			b := tool.OfRelease("v" + r.Version)
			release := filepath.Join(dir, b.ReleaseDir("v"+r.Version))
			assert.NilError(t, os.MkdirAll(release, 0o755))
			assert.NilError(t, os.WriteFile(filepath.Join(release, tool.Name), []byte("#!/bin/sh\n"), 0o755))
		}
	}
	tr := fileTree{}
	assert.NilError(t, tr.addReleases(t.Context(), "."))
	empty := fileTree{}
	empty.addDir(guestReleases)
	assert.DeepEqual(t, tr.names(), empty.names())
}

// A file of the source tree that is gone when the image is written is left out. A program that is gone is an error.
func TestWriteImage_ForgivesAFileThatVanished(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a.go", "b.go.swp", "c.go"} {
		assert.NilError(t, os.WriteFile(filepath.Join(dir, name), []byte(name), 0o644))
	}
	files := fileTree{}
	assert.NilError(t, files.addHostDir("/tree", dir, func(string, fs.DirEntry) bool { return false }))
	assert.NilError(t, os.Remove(filepath.Join(dir, "b.go.swp")))
	write := func() (fs.FS, error) {
		out, err := unnamedFile(dir, nil)
		assert.NilError(t, err)
		t.Cleanup(func() { _ = out.Close() })
		if err := files.writeImage(out, dir); err != nil {
			return nil, err
		}
		return erofs.Open(out)
	}
	image, err := write()
	assert.NilError(t, err)
	entries, err := fs.ReadDir(image, "tree")
	assert.NilError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	assert.DeepEqual(t, names, []string{"a.go", "c.go"})

	files.addHostFile("/bin/runc", filepath.Join(dir, "runc"), 0o755)
	_, err = write()
	assert.ErrorIs(t, err, fs.ErrNotExist)
}

// fakeKernel writes a file that begins as a kernel of this architecture. Its release is 6.1.0-fake.
func fakeKernel(t *testing.T) string {
	t.Helper()
	head := make([]byte, 0x1000)
	if runtime.GOARCH == "arm64" {
		copy(head[0x38:], "ARM\x64")
	} else {
		copy(head[0x202:], "HdrS")
		head[0x20f] = 1 // the version is at 0x300
		copy(head[0x300:], "6.1.0-fake (debian)")
	}
	file := filepath.Join(t.TempDir(), "vmlinuz-6.1.0-fake")
	assert.NilError(t, os.WriteFile(file, head, 0o644))
	return file
}

// fakeTools puts scripts in the place of the programs under test. The rootfs has to be a static executable, so busybox is that of this
// machine.
func fakeTools(t *testing.T, module string) {
	t.Helper()
	for _, tool := range tools.All {
		if tool.Name == "busybox" {
			if _, err := tool.Find(module); err != nil {
				t.Skipf("there is no static busybox: %v; make deps installs it", err)
			}
		} else if tool.Need == tools.Required {
			program := filepath.Join(t.TempDir(), tool.Name)
			assert.NilError(t, os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755))
			t.Setenv(tool.Env, program)
		}
	}
}

// An image stays for later runs. So one whose name is that of another program must not come into being.
func TestToolsImage_AProgramThatChangesMeanwhile(t *testing.T) {
	module, err := filepath.Abs("../..")
	assert.NilError(t, err)
	cache := &Cache{Module: module, dir: t.TempDir()}
	fakeTools(t, module)
	var logged []string
	change := func(format string, args ...any) { // between the key and the image
		logged = append(logged, fmt.Sprintf(format, args...))
		assert.NilError(t, os.WriteFile(os.Getenv("CDB_RUNC"), []byte("#!/bin/sh\nexit 1\n"), 0o755))
	}
	k := &kernel{release: "6.1.0-fake"}
	_, _, err = cache.toolsImage(t.Context(), k, change)
	assert.ErrorContains(t, err, "has changed meanwhile")
	assert.DeepEqual(t, logged, []string{"making the image with the tools and the kernel's modules"})
	images := func() (names []string) {
		for _, e := range entries(cache.dir) {
			if isMade(e.Name()) {
				names = append(names, e.Name())
			}
		}
		return names
	}
	assert.Equal(t, len(images()), 0, "%q", images())
	file, _, err := cache.toolsImage(t.Context(), k, t.Logf)
	assert.NilError(t, err)
	assert.DeepEqual(t, images(), []string{filepath.Base(file), filepath.Base(recordOf(file))})
}

// A boot may take longer than all that is reported before it. Without a message the display shows what came before.
func TestCommand_ReportsThatItBoots(t *testing.T) {
	fakeQEMU(t, `case "$*" in *--version*) echo QEMU emulator version 9.0.0;; *) echo no such machine >&2; exit 1;; esac`)
	module, err := filepath.Abs("../..")
	assert.NilError(t, err)
	cache, err := NewCache(t.TempDir())
	assert.NilError(t, err)
	cache.Module = module
	fakeTools(t, module)
	self, err := os.Executable()
	assert.NilError(t, err)
	t.Chdir(t.TempDir())
	var logged []string
	c := &Command{
		Config: Config{Cgroup: "v2", Accel: "tcg", Memory: defaultMemory, Kernel: fakeKernel(t)},
		Args:   []string{self}, Cache: cache, Stdout: io.Discard, Stderr: io.Discard,
		Log: func(format string, args ...any) { logged = append(logged, fmt.Sprintf(format, args...)) },
	}
	_, err = c.Run(t.Context())
	assert.ErrorContains(t, err, "no such machine")
	assert.Check(t, len(logged) > 0 && logged[len(logged)-1] == "booting Linux 6.1.0-fake in the VM", "%q", logged)
}

// A disk image that lies in the checkout does not get into the image with the source tree.
func TestTestProgram_LeavesOutLargeFiles(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for name, size := range map[string]int64{"go.mod": 1, "a.go": maxSourceFile, "today.qcow2": maxSourceFile + 1} {
		assert.NilError(t, os.WriteFile(name, nil, 0o644))
		assert.NilError(t, os.Truncate(name, size))
	}
	self, err := os.Executable()
	assert.NilError(t, err)
	var logged []string
	log := func(format string, args ...any) { logged = append(logged, fmt.Sprintf(format, args...)) }
	p, err := testProgram(t.Context(), []string{self}, log)
	assert.NilError(t, err)
	assert.Check(t, p.files.has(protocol.SourceTree+"/a.go"))
	assert.Check(t, !p.files.has(protocol.SourceTree+"/today.qcow2"))
	assert.DeepEqual(t, logged, []string{"the VM does not get today.qcow2, which has 64 MB"})
}

func TestCheckSettings_ShowsTheDefaults(t *testing.T) {
	seen, err := (&Config{Cgroup: "v2", Accel: "auto", Memory: defaultMemory}).CheckSettings()
	assert.NilError(t, err)
	assert.Equal(t, seen, "cgroup v2, 2048 MiB, accelerator auto")
}

func TestResult_TellsOfAShortageOfMemory(t *testing.T) {
	short := Result{Config: Config{Memory: 512}, Spare: 21}
	assert.Equal(t, short.Memory(), "512 MB (21 never used)")
	assert.Check(t, cmp.Contains(short.Advice(), "MEM=1024"))
	for _, enough := range []Result{{Config: Config{Memory: 1024}, Spare: 300}, {Config: Config{Memory: 1024}}} {
		assert.Equal(t, enough.Advice(), "")
	}
}
