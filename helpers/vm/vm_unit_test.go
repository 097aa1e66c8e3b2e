//go:build linux

package vm

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/vm/wire"
)

func TestResults_AreWhatTheFlagsName(t *testing.T) {
	back, mkdir := results([]string{
		"-test.v", "-test.outputdir=/out", "-test.coverprofile=/tmp/b001/_cover_.out", "-test.cpuprofile=cpu.out",
		"-test.gocoverdir=/tmp/cov", "-test.artifacts=true", "-test.testlogfile=/tmp/b001/testlog.txt", "-mine=x",
	}, "/src/pkg")
	assert.DeepEqual(t, back, []string{"/tmp/b001/_cover_.out", "/out/cpu.out", "/tmp/cov", "/out/_artifacts"})
	assert.DeepEqual(t, mkdir, []string{"/out", "/tmp/b001", "/out", "/tmp/cov", "/tmp/b001"})

	back, _ = results([]string{"-test.cpuprofile=cpu.out"}, "/src/pkg")
	assert.DeepEqual(t, back, []string{"/src/pkg/cpu.out"})
}

func TestJob_NamesTheToolsWhereTheGuestHasThem(t *testing.T) {
	t.Setenv("CDB_RUNC", "/home/me/runc")
	t.Setenv("CDB_SEED", "7")
	t.Setenv("SECRET", "x")
	j := &wire.Job{Dir: "/src"}
	finishJob(j, &Config{Cgroup: "v1"}, []string{"CDB_RUNC=/usr/local/bin/runc"})
	env := strings.Join(j.Env, "\n") + "\n"
	assert.Equal(t, strings.Count(env, "CDB_RUNC="), 1, env)
	for _, want := range []string{"CDB_RUNC=/usr/local/bin/runc\n", "CDB_SEED=7\n", "CDB_CGROUP=v1\n", "CDB_DISPOSABLE=yes\n", "PWD=/src\n"} {
		assert.Check(t, cmp.Contains(env, want))
	}
	assert.Check(t, !strings.Contains(env, "SECRET"))
}

func TestTimeout_IsTheTestBinarysOwn(t *testing.T) {
	assert.Equal(t, timeout([]string{"x", "-test.timeout=1m30s"}), 90*time.Second)
	assert.Equal(t, timeout([]string{"x"}), time.Duration(0))
}

// What a guest hands back lands where it was asked for, whatever the guest says.
func TestUnpackResults_StaysWhereItMay(t *testing.T) {
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

	assert.NilError(t, unpackResults(send(&tar.Header{Name: dir + "/out/_artifacts/a/b", Typeflag: tar.TypeReg}, "yes"), wanted))
	b, err := os.ReadFile(dir + "/out/_artifacts/a/b")
	assert.NilError(t, err)
	assert.Equal(t, string(b), "yes")

	for _, name := range []string{"/etc/cdblab", dir + "/out/other", dir + "/out/_artifacts/../../x", dir + "/out/_artifactsX", "../x"} {
		assert.ErrorContains(t, unpackResults(send(&tar.Header{Name: name, Typeflag: tar.TypeReg}, "no"), wanted), "which nobody asked for")
	}
	// A link that leads out: one that lies there already, and one that the guest sends.
	assert.NilError(t, os.Symlink("/", dir+"/out/_artifacts/root"))
	assert.ErrorContains(t, unpackResults(send(&tar.Header{Name: dir + "/out/_artifacts/root/x", Typeflag: tar.TypeReg}, "no"), wanted), "escapes")
	assert.NilError(t, unpackResults(send(&tar.Header{Name: dir + "/out/_artifacts/link", Typeflag: tar.TypeSymlink, Linkname: "/"}, ""), wanted))
	_, err = os.Lstat(dir + "/out/_artifacts/link")
	assert.Assert(t, errors.Is(err, os.ErrNotExist))
}

func TestTally(t *testing.T) {
	r := &Runner{Stdout: new(bytes.Buffer), Stderr: new(bytes.Buffer)}
	count := Tally(r)
	text := "=== RUN   TestA\n--- PASS: TestA (0.00s)\n    --- PASS: TestA/sub (0.00s)\n\x16--- FAIL: TestB (0.1s)\n--- SKIP: TestC (0.00s)\nno --- PASS: x\n"
	for i := range text { // however it is cut
		_, err := r.Stdout.Write([]byte(text[i : i+1]))
		assert.NilError(t, err)
	}
	assert.Equal(t, count(1), "3 asked, 1 answered, 1 failed, 1 skipped")
}

func TestReleaseOf(t *testing.T) {
	head := make([]byte, 0x1000)
	_, ok := releaseOf(head, "/boot/vmlinuz-6.1")
	assert.Assert(t, !ok, "zeros are no kernel")
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

func TestFault_SaysWhatWasTriedSeenAndToDo(t *testing.T) {
	f := &Fault{Tried: "boot the VM", Seen: "silence", Do: "wait", Console: "one\ntwo"}
	assert.Equal(t, f.Error(), "boot the VM: silence\n  the last lines of the guest's console:\n    | one\n    | two\n  what to do: wait")
	assert.Assert(t, cmp.Contains(diskFault("x", "/", syscall.ENOSPC).Error(), "make room on the disk of /"))
	assert.Equal(t, tail("a\r\nb\x1bc\nd", 2), "bc\nd")
}

func TestImage_IsWhole(t *testing.T) {
	file := filepath.Join(t.TempDir(), "image")
	tr := tree{}
	tr.data("/a/b/c", "content")
	tr.link("/l", "a/b/c")
	tr.file("/big", os.Args[0], 0o755)
	assert.NilError(t, tr.save(file))
	assert.Assert(t, whole(file))
	info, err := os.Stat(file)
	assert.NilError(t, err)
	assert.Equal(t, info.Size()%512, int64(0), "a disk has whole sectors")
	assert.NilError(t, os.Truncate(file, info.Size()-1))
	assert.Assert(t, !whole(file))
	left, _ := filepath.Glob(filepath.Dir(file) + "/*")
	assert.Equal(t, strings.Join(left, " "), file, "nothing else stays")
}

func TestStream_WaitsForEveryByte(t *testing.T) {
	ch, err := newChannel("x")
	assert.NilError(t, err)
	var out bytes.Buffer
	s := newStream(ch, &out)
	_, err = ch.theirs.Write([]byte("12345"))
	assert.NilError(t, err)
	assert.NilError(t, s.wait(5, time.Second))
	assert.ErrorContains(t, s.wait(6, 10*time.Millisecond), "only 5 of 6 bytes arrived within")
	assert.NilError(t, ch.theirs.Close())
	assert.ErrorContains(t, s.wait(6, time.Second), "only 5 of 6 bytes arrived")
}
