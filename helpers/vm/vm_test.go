//go:build linux && vmtest

package vm

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/poll"
)

// The programs that the tests below run, built once.
var built struct {
	lab   string // cmd/lab
	guest string // the tests of ./guesttest
}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "vmtest-")
	if err != nil {
		panic(err)
	}
	built.lab, built.guest = dir+"/lab", dir+"/guesttest.test"
	for _, args := range [][]string{
		{"build", "-o", built.lab, "cdblab/cmd/lab"},
		{"test", "-c", "-tags", "vmtest", "-o", built.guest, "cdblab/helpers/vm/guesttest"},
	} {
		if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "go %v: %v\n%s", args, err, out)
			os.Exit(1)
		}
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// result is what a run in the VM came to.
type result struct {
	code           int
	err            error
	stdout, stderr string
	said           string // to the person who watches
}

// guest runs the guest's tests in this process.
func guest(t *testing.T, c func(*Runner), args ...string) result {
	t.Helper()
	return runner(t, c).test(append([]string{built.guest, "-test.v", "-test.paniconexit0"}, args...)...)
}

type testRunner struct {
	*Runner
	out, errs, said bytes.Buffer
	mu              sync.Mutex
	t               *testing.T
}

func runner(t *testing.T, c func(*Runner)) *testRunner {
	t.Helper()
	cache, err := OpenCache()
	assert.NilError(t, err)
	r := &testRunner{Runner: new(Runner), t: t}
	r.Flags(flag.NewFlagSet("", flag.PanicOnError))
	r.Cache, r.Stdout, r.Stderr = cache, &r.out, &r.errs
	r.Say = func(format string, args ...any) {
		r.mu.Lock()
		defer r.mu.Unlock()
		fmt.Fprintf(&r.said, format+"\n", args...)
	}
	if c != nil {
		c(r.Runner)
	}
	return r
}

func (r *testRunner) test(argv ...string) result {
	r.t.Helper()
	// The package's directory, as go test would have it.
	back, err := os.Getwd()
	assert.NilError(r.t, err)
	if filepath.Base(back) != "guesttest" {
		r.t.Chdir("guesttest")
	}
	code, err := r.Test(r.t.Context(), argv)
	if err != nil {
		r.t.Logf("the machine's failure: %v", err)
	}
	return result{code, err, r.out.String(), r.errs.String(), r.said.String()}
}

// isFault is a failure of the machine, with all of what it saw and a way on.
func isFault(res result, seen string) cmp.Comparison {
	return func() cmp.Result {
		var f *Fault
		switch {
		case !errors.As(res.err, &f):
			return cmp.ResultFailure(fmt.Sprintf("exit code %d, error %v; want a Fault\n%s%s", res.code, res.err, res.stdout, res.stderr))
		case !strings.Contains(f.Error(), seen):
			return cmp.ResultFailure(fmt.Sprintf("the fault does not say %q:\n%v", seen, f))
		case f.Tried == "" || f.Seen == "":
			return cmp.ResultFailure(fmt.Sprintf("the fault does not say what was tried and seen: %#v", f))
		}
		return cmp.ResultSuccess
	}
}

func TestVerdict_IsTheCommandsOwn(t *testing.T) {
	for how, want := range map[string]int{"fail": 1, "exit": 7, "panic": 2, "killed": 137, "leave": 0, "frozen": 0} {
		t.Run(how, func(t *testing.T) {
			res := guest(t, nil, "-test.run=TestMisbehave", "-misbehave="+how)
			assert.NilError(t, res.err)
			assert.Equal(t, res.code, want, "%s%s", res.stdout, res.stderr)
			switch how {
			case "panic":
				assert.Check(t, cmp.Contains(res.stderr, "panic: as told"))
				assert.Check(t, cmp.Contains(res.stderr, "goroutine "))
			case "fail":
				assert.Check(t, cmp.Contains(res.stdout, "--- FAIL: TestMisbehave"))
			case "killed":
				assert.Check(t, cmp.Contains(res.said, "killed by signal 9"))
			}
		})
	}
}

// No word from the guest that says how it ended, no success.
func TestVerdict_IsNotGuessed(t *testing.T) {
	for how, seen := range map[string]string{
		"crash":  "the guest's kernel panicked - not syncing: sysrq triggered crash",
		"off":    "before it said how the command ended",
		"memory": "the guest ran out of memory",
	} {
		t.Run(how, func(t *testing.T) {
			res := guest(t, func(r *Runner) { r.Memory = 256 }, "-test.run=TestMisbehave", "-misbehave="+how)
			assert.Assert(t, isFault(res, seen))
		})
	}
}

func TestVerdict_GuestThatHangsOrIsKilled(t *testing.T) {
	t.Run("killed", func(t *testing.T) {
		r := runner(t, nil)
		r.Up = func() { assert.Check(t, syscall.Kill(qemuOf(t, os.Getpid()), syscall.SIGKILL)) }
		assert.Assert(t, isFault(r.test(built.guest, "-test.run=TestMisbehave", "-misbehave=hang"), "signal: killed"))
	})
	t.Run("silent", func(t *testing.T) {
		was := quietPatience
		quietPatience = 4 * time.Second
		t.Cleanup(func() { quietPatience = was })
		r := runner(t, nil)
		r.Up = func() { assert.Check(t, syscall.Kill(qemuOf(t, os.Getpid()), syscall.SIGSTOP)) }
		assert.Assert(t, isFault(r.test(built.guest, "-test.run=TestMisbehave", "-misbehave=hang"), "the guest was silent for 4s"))
	})
	t.Run("boot hangs", func(t *testing.T) {
		fakeQEMU(t, `case "$*" in *--version*) echo QEMU emulator version 9.0.0;; *) exec sleep 1000;; esac`)
		was := bootPatience
		bootPatience = time.Second
		t.Cleanup(func() { bootPatience = was })
		assert.Assert(t, isFault(guest(t, tcg), "the guest was silent for 1s"))
	})
	t.Run("ends at once", func(t *testing.T) {
		fakeQEMU(t, `case "$*" in *--version*) echo QEMU emulator version 9.0.0;; *) echo no such machine >&2; exit 0;; esac`)
		assert.Assert(t, isFault(guest(t, tcg), "no such machine"))
	})
}

func tcg(r *Runner) { r.Accel = "tcg" }

func TestBadInput(t *testing.T) {
	text := filepath.Join(t.TempDir(), "vmlinuz-text")
	assert.NilError(t, os.WriteFile(text, []byte("no kernel"), 0o644))
	cut := filepath.Join(t.TempDir(), "vmlinuz-cut")
	k, err := runner(t, nil).Cache.kernel(t.Context(), "", func(string, ...any) {})
	assert.NilError(t, err)
	b, err := os.ReadFile(k.Image)
	assert.NilError(t, err)
	assert.NilError(t, os.WriteFile(cut, b[:len(b)/2], 0o644))

	for name, c := range map[string]struct {
		set  func(*Runner)
		seen string
	}{
		"kernel that is not there":  {func(r *Runner) { r.Config.Kernel = "/nonexistent" }, "there is no such file"},
		"kernel that is a text":     {func(r *Runner) { r.Config.Kernel = text }, "it is no kernel image"},
		"kernel that is a folder":   {func(r *Runner) { r.Config.Kernel = "/" }, "it can't be read"},
		"kernel that is not packed": {func(r *Runner) { r.Config.Kernel = "2.4" }, "the package archive has none"},
		"kernel that is cut short":  {func(r *Runner) { r.Config.Kernel = cut }, ""},
		"cgroup mode":               {func(r *Runner) { r.Cgroup = "v3" }, `CGROUP is "v3"`},
		"accelerator":               {func(r *Runner) { r.Accel = "hvf" }, `ACCEL is "hvf"`},
		"memory":                    {func(r *Runner) { r.Memory = 1 }, "MEM is no number"},
		"CPUs":                      {func(r *Runner) { r.CPUs = -1 }, "CPUS is no number"},
	} {
		t.Run(name, func(t *testing.T) {
			was := bootPatience
			bootPatience = 15 * time.Second
			t.Cleanup(func() { bootPatience = was })
			assert.Assert(t, isFault(guest(t, c.set), c.seen))
		})
	}
	t.Run("QEMU that is missing", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		assert.Assert(t, isFault(guest(t, tcg), "it is not on PATH"))
	})
	t.Run("QEMU that is too old", func(t *testing.T) {
		fakeQEMU(t, "echo QEMU emulator version 2.5.0")
		assert.Assert(t, isFault(guest(t, tcg), "2.5.0"))
	})
	t.Run("tool that is not there", func(t *testing.T) {
		t.Setenv("CDB_RUNC", "/nonexistent/runc")
		assert.Assert(t, isFault(guest(t, tcg), "CDB_RUNC=/nonexistent/runc"))
	})
	t.Run("disk that is full", func(t *testing.T) {
		small := t.TempDir()
		if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=1m"); err != nil {
			t.Skipf("only root can make a small file system: %v", err)
		}
		t.Cleanup(func() { assert.Check(t, syscall.Unmount(small, syscall.MNT_DETACH)) })
		r := runner(t, tcg)
		full := &Cache{Module: r.Cache.Module, dir: small}
		assert.NilError(t, os.Symlink(r.Cache.path("kernel"), small+"/kernel"))
		// Two megabytes of pid 1 don't fit either, and are not what this is about.
		init, err := r.Cache.init()
		assert.NilError(t, err)
		assert.NilError(t, os.Symlink(init, filepath.Join(small, filepath.Base(init))))
		r.Cache = full
		assert.Assert(t, isFault(r.test(built.guest), "make room on the disk"))
		left, _ := filepath.Glob(small + "/*.erofs")
		assert.Equal(t, len(left), 0, "no half an image stays")
	})
}

func TestImage_CutShortIsMadeAgain(t *testing.T) {
	r := runner(t, nil)
	k, err := r.Cache.kernel(t.Context(), "", r.Say)
	assert.NilError(t, err)
	image, _, err := r.Cache.image(t.Context(), k, r.Say)
	assert.NilError(t, err)
	info, err := os.Stat(image)
	assert.NilError(t, err)
	assert.NilError(t, os.Truncate(image, info.Size()/2))
	res := guest(t, nil, "-test.run=TestResults")
	assert.NilError(t, res.err)
	assert.Equal(t, res.code, 0)
	assert.Assert(t, cmp.Contains(res.said, "was cut short; making it again"))
}

func TestOutput_NothingIsLost(t *testing.T) {
	t.Run("100,000 lines", func(t *testing.T) {
		res := guest(t, nil, "-test.run=TestMisbehave", "-misbehave=lines")
		assert.NilError(t, res.err)
		next := 0
		for line := range strings.Lines(res.stdout) {
			if line == fmt.Sprintf("line %d\n", next) {
				next++
			}
		}
		assert.Equal(t, next, 100_000)
	})
	t.Run("64 MB", func(t *testing.T) {
		res := guest(t, nil, "-test.run=TestMisbehave", "-misbehave=bytes")
		assert.NilError(t, res.err)
		assert.Equal(t, strings.Count(res.stdout, "0123456789abcde\n"), 64<<16)
	})
	t.Run("one file for both keeps their order", func(t *testing.T) {
		res := guest(t, func(r *Runner) { r.Stderr = r.Stdout }, "-test.run=TestMisbehave", "-misbehave=both")
		assert.Assert(t, cmp.Contains(res.stdout, "one\ntwo\nthree\n"))
	})
}

func TestMachine(t *testing.T) {
	for _, kernel := range []string{"", "6.12"} {
		for _, cgroup := range []string{"v2", "v1", "hybrid"} {
			t.Run(kernel+" "+cgroup, func(t *testing.T) {
				res := guest(t, func(r *Runner) { r.Config.Kernel, r.Cgroup = kernel, cgroup }, "-test.run=TestMachine")
				assert.NilError(t, res.err)
				assert.Equal(t, res.code, 0, "%s%s", res.stdout, res.stderr)
				missing := kernel == "6.12" && cgroup != "v2"
				assert.Equal(t, strings.Contains(res.said, "can't mount the cgroup v1 controllers"), missing, res.said)
			})
		}
	}
}

func TestTwoAtOnce(t *testing.T) {
	t.Chdir("guesttest")
	// With nothing made yet, so that they meet.
	images, err := filepath.Glob(runner(t, nil).Cache.path("root-*.erofs"))
	assert.NilError(t, err)
	for _, i := range images {
		assert.NilError(t, os.Remove(i))
	}
	var wg sync.WaitGroup
	for range 2 {
		r := runner(t, nil)
		wg.Go(func() {
			res := r.test(built.guest, "-test.run=TestMachine_RunsRunc")
			assert.Check(t, res.err)
			assert.Check(t, cmp.Equal(res.code, 0))
		})
	}
	wg.Wait()
}

func TestResults(t *testing.T) {
	// As a user of go test would see it.
	out := t.TempDir()
	c := exec.Command("go", "test", "-exec", built.lab+" exec", "-tags", "vmtest", "-count=1", "-v", "-run", "TestResults|TestMisbehave",
		"-shuffle=on", "-artifacts", "-outputdir", out, "-coverprofile", "cover.out", "-coverpkg", "cdblab/helpers/vm/guesttest", "-cpuprofile", "cpu.out", ".")
	c.Dir = "guesttest"
	said, err := c.CombinedOutput()
	assert.NilError(t, err, "%s", said)
	for _, f := range []string{"cover.out", "cpu.out"} {
		_, err := os.Stat(filepath.Join(out, f))
		assert.Check(t, err)
	}
	var note []byte
	_ = filepath.WalkDir(filepath.Join(out, "_artifacts"), func(p string, _ os.DirEntry, _ error) error {
		if filepath.Base(p) == "note" {
			note, _ = os.ReadFile(p)
		}
		return nil
	})
	assert.Equal(t, string(note), "from the guest", "%s", said)
	assert.Assert(t, cmp.Contains(string(said), "lab: 2 asked, 1 answered, 0 failed, 1 skipped; Linux "))
}

func TestTimeout_BringsTheGoroutineDump(t *testing.T) {
	res := guest(t, nil, "-test.run=TestMisbehave", "-misbehave=hang", "-test.timeout=2s")
	assert.NilError(t, res.err)
	assert.Equal(t, res.code, 2)
	assert.Assert(t, cmp.Contains(res.stderr, "panic: test timed out after 2s"))
	assert.Assert(t, cmp.Contains(res.stderr, "guesttest.TestMisbehave"))
}

// However the wrapper is stopped, no QEMU stays.
func TestSignals(t *testing.T) {
	for _, c := range []struct {
		signal syscall.Signal
		code   int
		says   string
	}{
		{syscall.SIGINT, 130, "the VM is gone"},
		{syscall.SIGTERM, 143, "the VM is gone"},
		{syscall.SIGHUP, 129, "the VM is gone"},
		{syscall.SIGQUIT, 2, "SIGQUIT: quit"}, // the command's own answer: its goroutines
		{syscall.SIGKILL, -1, ""},
	} {
		t.Run(c.signal.String(), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			lab := exec.CommandContext(ctx, built.lab, "exec", built.guest, "-test.v", "-test.run=TestMisbehave", "-misbehave=hang")
			lab.Dir = "guesttest"
			var said bytes.Buffer
			r, w := io.Pipe()
			lab.Stdout, lab.Stderr = w, &said
			assert.NilError(t, lab.Start())
			t.Cleanup(func() { _ = lab.Process.Kill() })
			up := make(chan bool)
			go func() {
				var seen bytes.Buffer
				buf := make([]byte, 4096)
				for closed := false; ; {
					n, err := r.Read(buf)
					seen.Write(buf[:n])
					if !closed && strings.Contains(seen.String(), "=== RUN   TestMisbehave") {
						close(up)
						closed = true
					}
					if err != nil {
						return
					}
				}
			}()
			select {
			case <-up:
			case <-ctx.Done():
				t.Fatalf("no test ran: %s", said.String())
			}
			qemu := qemuOf(t, lab.Process.Pid)
			assert.NilError(t, lab.Process.Signal(c.signal))
			_ = lab.Wait()
			assert.Equal(t, lab.ProcessState.ExitCode(), c.code, "%s", said.String())
			assert.Assert(t, cmp.Contains(said.String(), c.says))
			poll.WaitOn(t, func(poll.LogT) poll.Result {
				if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", qemu)); err == nil && strings.HasPrefix(string(b), "qemu") {
					return poll.Continue("QEMU, pid %d, is still there", qemu)
				}
				return poll.Success()
			}, poll.WithTimeout(5*time.Second))
		})
	}
}

// qemuOf is the pid of the QEMU that is a child of pid.
func qemuOf(t *testing.T, pid int) int {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	assert.NilError(t, err)
	for _, task := range tasks {
		b, _ := os.ReadFile(task)
		for _, child := range strings.Fields(string(b)) {
			if comm, _ := os.ReadFile("/proc/" + child + "/comm"); strings.HasPrefix(string(comm), "qemu") {
				n, _ := strconv.Atoi(child)
				return n
			}
		}
	}
	t.Fatalf("process %d has no QEMU", pid)
	return 0
}

// fakeQEMU puts a script in QEMU's place.
func fakeQEMU(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	for _, p := range platforms {
		assert.NilError(t, os.WriteFile(filepath.Join(dir, p.program), []byte("#!/bin/sh\n"+script+"\n"), 0o755))
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}
