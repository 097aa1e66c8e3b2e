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

// The programs that the tests below run. TestMain builds them once.
var built struct {
	lab   string // cmd/lab
	guest string // the tests of ./guesttest
	host  string // the tests of ../host, of which some run in a VM only
}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "vmtest-")
	if err != nil {
		panic(err)
	}
	built.lab, built.guest, built.host = dir+"/lab", dir+"/guesttest.test", dir+"/host.test"
	AllowForSlowness()
	for _, args := range [][]string{
		{"build", "-o", built.lab, "cdblab/cmd/lab"},
		{"test", "-c", "-tags", "vmtest", "-o", built.guest, "cdblab/helpers/vm/guesttest"},
		{"test", "-c", "-tags", "vmtest", "-o", built.host, "cdblab/helpers/host"},
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

// outcome is the outcome of a run in the VM.
type outcome struct {
	code           int // if err is nil
	err            error
	stdout, stderr string
	log            string
}

// guest runs the tests of ./guesttest in the VM. configure may be nil.
func guest(t *testing.T, configure func(*Command), args ...string) outcome {
	t.Helper()
	return newCommand(t, configure).run(append([]string{built.guest, "-test.v", "-test.paniconexit0"}, args...)...)
}

// testCommand is a command that keeps its output and its log.
type testCommand struct {
	*Command
	stdout, stderr, log bytes.Buffer
	mu                  sync.Mutex
	t                   *testing.T
}

func newCommand(t *testing.T, configure func(*Command)) *testCommand {
	t.Helper()
	cache, err := OpenCache()
	assert.NilError(t, err)
	c := &testCommand{Command: new(Command), t: t}
	c.Flags(flag.NewFlagSet("", flag.PanicOnError))
	c.Cache, c.Stdout, c.Stderr = cache, &c.stdout, &c.stderr
	c.Log = func(format string, args ...any) {
		c.mu.Lock()
		defer c.mu.Unlock()
		fmt.Fprintf(&c.log, format+"\n", args...)
	}
	if configure != nil {
		configure(c.Command)
	}
	return c
}

func (c *testCommand) run(argv ...string) outcome {
	c.t.Helper()
	// The package's own directory, as with go test.
	wd, err := os.Getwd()
	assert.NilError(c.t, err)
	if filepath.Base(wd) != "guesttest" {
		c.t.Chdir("guesttest")
	}
	c.Args = argv
	code := 0
	result, err := c.Run(c.t.Context())
	if err != nil {
		c.t.Logf("Run returned the error: %v", err)
	} else {
		code = result.ExitCode
	}
	return outcome{code, err, c.stdout.String(), c.stderr.String(), c.log.String()}
}

// isFault succeeds if the run ended with a Fault that contains seen and names what was tried and seen.
func isFault(res outcome, seen string) cmp.Comparison {
	return func() cmp.Result {
		var f *Fault
		switch {
		case !errors.As(res.err, &f):
			return cmp.ResultFailure(fmt.Sprintf("exit code %d, error %v; want a Fault\n%s%s", res.code, res.err, res.stdout, res.stderr))
		case !strings.Contains(f.Error(), seen):
			return cmp.ResultFailure(fmt.Sprintf("the fault does not contain %q:\n%v", seen, f))
		case f.Tried == "" || f.Seen == "":
			return cmp.ResultFailure(fmt.Sprintf("the fault does not name what was tried and seen: %#v", f))
		}
		return cmp.ResultSuccess
	}
}

// The controllers of the v2 hierarchy's root are the whole machine's, so these tests of helpers/host run in the VM.
func TestControllers(t *testing.T) {
	res := newCommand(t, func(c *Command) { c.Cgroup = "v2" }).run(built.host, "-test.v", "-test.run=TestControllers")
	assert.NilError(t, res.err)
	assert.Equal(t, res.code, 0, "%s%s", res.stdout, res.stderr)
	assert.Check(t, strings.Count(res.stdout, "\n--- PASS: TestControllers") >= 3 && !strings.Contains(res.stdout, "--- SKIP"), "%s", res.stdout)
}

func TestVerdict_IsTheCommandsOwn(t *testing.T) {
	for how, want := range map[string]int{"fail": 1, "exit": 7, "panic": 2, "killed": 137, "leave": 0, "frozen": 0} {
		t.Run(how, func(t *testing.T) {
			res := guest(t, nil, "-test.run=TestMisbehave", "-misbehave="+how)
			assert.NilError(t, res.err)
			assert.Equal(t, res.code, want, "%s%s", res.stdout, res.stderr)
			switch how {
			case "panic":
				assert.Check(t, cmp.Contains(res.stderr, "panic: as requested"))
				assert.Check(t, cmp.Contains(res.stderr, "goroutine "))
			case "fail":
				assert.Check(t, cmp.Contains(res.stdout, "--- FAIL: TestMisbehave"))
			case "killed":
				assert.Check(t, cmp.Contains(res.log, "killed by signal 9"))
			}
		})
	}
}

// If the guest does not report how the command ended, the run has failed.
func TestVerdict_IsNotGuessed(t *testing.T) {
	for how, seen := range map[string]string{
		"crash":  "the guest's kernel panicked - not syncing: sysrq triggered crash",
		"off":    "before it reported how the command ended",
		"memory": "the guest ran out of memory",
	} {
		t.Run(how, func(t *testing.T) {
			res := guest(t, func(c *Command) { c.Memory = 256 }, "-test.run=TestMisbehave", "-misbehave="+how)
			assert.Assert(t, isFault(res, seen))
		})
	}
}

func TestVerdict_GuestThatHangsOrIsKilled(t *testing.T) {
	t.Run("killed", func(t *testing.T) {
		c := newCommand(t, nil)
		c.OnReady = func() { assert.Check(t, syscall.Kill(qemuOf(t, os.Getpid()), syscall.SIGKILL)) }
		assert.Assert(t, isFault(c.run(built.guest, "-test.run=TestMisbehave", "-misbehave=hang"), "signal: killed"))
	})
	t.Run("silent", func(t *testing.T) {
		was := silenceTimeout
		silenceTimeout = 4 * time.Second
		t.Cleanup(func() { silenceTimeout = was })
		c := newCommand(t, nil)
		c.OnReady = func() { assert.Check(t, syscall.Kill(qemuOf(t, os.Getpid()), syscall.SIGSTOP)) }
		assert.Assert(t, isFault(c.run(built.guest, "-test.run=TestMisbehave", "-misbehave=hang"), "the guest was silent for"))
	})
	t.Run("boot hangs", func(t *testing.T) {
		fakeQEMU(t, `case "$*" in *--version*) echo QEMU emulator version 9.0.0;; *) exec sleep 1000;; esac`)
		was := bootTimeout
		bootTimeout = time.Second
		t.Cleanup(func() { bootTimeout = was })
		assert.Assert(t, isFault(guest(t, tcg), "the guest was silent for 1s"))
	})
	t.Run("ends at once", func(t *testing.T) {
		fakeQEMU(t, `case "$*" in *--version*) echo QEMU emulator version 9.0.0;; *) echo no such machine >&2; exit 0;; esac`)
		assert.Assert(t, isFault(guest(t, tcg), "no such machine"))
	})
}

func tcg(c *Command) { c.Accel = "tcg" }

func TestBadInput(t *testing.T) {
	text := filepath.Join(t.TempDir(), "vmlinuz-text")
	assert.NilError(t, os.WriteFile(text, []byte("no kernel"), 0o644))
	cut := filepath.Join(t.TempDir(), "vmlinuz-cut")
	k, err := newCommand(t, nil).Cache.findKernel(t.Context(), "", func(string, ...any) {})
	assert.NilError(t, err)
	b, err := os.ReadFile(k.image)
	assert.NilError(t, err)
	assert.NilError(t, os.WriteFile(cut, b[:len(b)/2], 0o644))

	for name, c := range map[string]struct {
		set  func(*Command)
		seen string
	}{
		"kernel that is not there":   {func(c *Command) { c.Kernel = "/nonexistent" }, "there is no such file"},
		"kernel that is a text file": {func(c *Command) { c.Kernel = text }, "it is not a kernel image"},
		"kernel that is a folder":    {func(c *Command) { c.Kernel = "/" }, "it is no regular file"},
		"kernel that is not packed":  {func(c *Command) { c.Kernel = "2.4" }, "the package archive has none"},
		"kernel that is cut short":   {func(c *Command) { c.Kernel = cut }, ""},
		"cgroup mode":                {func(c *Command) { c.Cgroup = "v3" }, `CGROUP is "v3"`},
		"accelerator":                {func(c *Command) { c.Accel = "hvf" }, `ACCEL is "hvf"`},
		"memory":                     {func(c *Command) { c.Memory = 1 }, "MEM is 1, not a number"},
		"CPUs":                       {func(c *Command) { c.CPUs = -1 }, "CPUS is -1, not a number"},
	} {
		t.Run(name, func(t *testing.T) {
			was := bootTimeout
			bootTimeout = 15 * time.Second
			t.Cleanup(func() { bootTimeout = was })
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
		c := newCommand(t, tcg)
		full := &Cache{Module: c.Cache.Module, dir: small}
		assert.NilError(t, os.Symlink(c.Cache.path("kernel"), small+"/kernel"))
		// The two megabytes of pid 1 do not fit either, but this test is about the image.
		init, err := c.Cache.buildInit(t.Context(), t.Logf)
		assert.NilError(t, err)
		assert.NilError(t, os.Symlink(init, filepath.Join(small, filepath.Base(init))))
		assert.NilError(t, os.Symlink(recordOf(init), filepath.Join(small, filepath.Base(recordOf(init)))))
		c.Cache = full
		assert.Assert(t, isFault(c.run(built.guest), "make room on the disk"))
		left, _ := filepath.Glob(small + "/*.erofs")
		assert.Equal(t, len(left), 0, "no incomplete image is left")
	})
}

func TestImage_CutShortIsMadeAgain(t *testing.T) {
	c := newCommand(t, nil)
	k, err := c.Cache.findKernel(t.Context(), "", c.Log)
	assert.NilError(t, err)
	image, _, err := c.Cache.toolsImage(t.Context(), k, c.Log)
	assert.NilError(t, err)
	info, err := os.Stat(image)
	assert.NilError(t, err)
	assert.NilError(t, os.Truncate(image, info.Size()/2))
	res := guest(t, nil, "-test.run=TestResults")
	assert.NilError(t, res.err)
	assert.Equal(t, res.code, 0)
	assert.Assert(t, cmp.Contains(res.log, "is damaged: it has "))
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
	t.Run("slow reader", func(t *testing.T) {
		c := newCommand(t, nil)
		c.Stdout = &slowAtTheEnd{Writer: &c.stdout, quick: 600 << 10}
		res := c.run(built.guest, "-test.run=TestMisbehave", "-misbehave=lines")
		assert.NilError(t, res.err)
		assert.Equal(t, strings.Count(res.stdout, "line "), 100_000)
	})
	t.Run("slow reader of a shell", func(t *testing.T) {
		c := newCommand(t, nil)
		c.Stdin = strings.NewReader("seq 100000; echo the la''st line; exit 7\n")
		c.Stdout = &slowAtTheEnd{Writer: &c.stdout, quick: 350 << 10}
		res := c.run()
		assert.NilError(t, res.err)
		assert.Equal(t, res.code, 7)
		assert.Assert(t, cmp.Contains(res.stdout, "\r\n100000\r\nthe last line\r\n"))
	})
	t.Run("one file for both keeps their order", func(t *testing.T) {
		res := guest(t, func(c *Command) { c.Stderr = c.Stdout }, "-test.run=TestMisbehave", "-misbehave=both")
		assert.Assert(t, cmp.Contains(res.stdout, "one\ntwo\nthree\n"))
	})
}

func TestMachine(t *testing.T) {
	for _, kernel := range []string{"", "6.12"} {
		for _, cgroup := range []string{"v2", "v1", "hybrid"} {
			t.Run(kernel+" "+cgroup, func(t *testing.T) {
				res := guest(t, func(c *Command) { c.Kernel, c.Cgroup = kernel, cgroup }, "-test.run=TestMachine")
				assert.NilError(t, res.err)
				assert.Equal(t, res.code, 0, "%s%s", res.stdout, res.stderr)
				missing := kernel == "6.12" && cgroup != "v2"
				assert.Equal(t, strings.Contains(res.log, "can't mount the cgroup v1 controllers"), missing, res.log)
			})
		}
	}
}

func TestTwoAtOnce(t *testing.T) {
	t.Chdir("guesttest")
	// Without an image, so that both runs want to make it.
	images, err := filepath.Glob(newCommand(t, nil).Cache.path("root-*.erofs"))
	assert.NilError(t, err)
	for _, i := range images {
		assert.NilError(t, os.Remove(i))
	}
	var wg sync.WaitGroup
	for range 2 {
		c := newCommand(t, nil)
		wg.Go(func() {
			res := c.run(built.guest, "-test.run=TestMachine_RunsRunc")
			assert.Check(t, res.err)
			assert.Check(t, cmp.Equal(res.code, 0))
		})
	}
	wg.Wait()
}

func TestResults(t *testing.T) {
	// The same as a user of go test sees it.
	out := t.TempDir()
	c := exec.Command("go", "test", "-exec", built.lab+" exec", "-tags", "vmtest", "-count=1", "-v", "-run", "TestResults|TestMisbehave",
		"-shuffle=on", "-artifacts", "-outputdir", out, "-coverprofile", "cover.out", "-coverpkg", "cdblab/helpers/vm/guesttest", "-cpuprofile", "cpu.out", ".")
	c.Dir = "guesttest"
	output, err := c.CombinedOutput()
	assert.NilError(t, err, "%s", output)
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
	assert.Equal(t, string(note), "from the guest", "%s", output)
	assert.Assert(t, cmp.Contains(string(output), "lab: 2 asked, 1 answered, 0 failed, 1 skipped; Linux "))
}

func TestTimeout_BringsTheGoroutineDump(t *testing.T) {
	res := guest(t, nil, "-test.run=TestMisbehave", "-misbehave=hang", "-test.timeout=2s")
	assert.NilError(t, res.err)
	assert.Equal(t, res.code, 2)
	assert.Assert(t, cmp.Contains(res.stderr, "panic: test timed out after 2s"))
	assert.Assert(t, cmp.Contains(res.stderr, "guesttest.TestMisbehave"))
}

// However the wrapper is stopped, QEMU ends with it.
func TestSignals(t *testing.T) {
	for _, c := range []struct {
		signal syscall.Signal
		code   int
		want   string // in its output
	}{
		{syscall.SIGINT, 130, "the VM is gone"},
		{syscall.SIGTERM, 143, "the VM is gone"},
		{syscall.SIGHUP, 129, "the VM is gone"},
		{syscall.SIGQUIT, 2, "SIGQUIT: quit"}, // the command's own answer: the stacks of its goroutines
		{syscall.SIGKILL, -1, ""},
	} {
		t.Run(c.signal.String(), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			lab := exec.CommandContext(ctx, built.lab, "exec", built.guest, "-test.v", "-test.run=TestMisbehave", "-misbehave=hang")
			lab.Dir = "guesttest"
			var output bytes.Buffer
			r, w := io.Pipe()
			lab.Stdout, lab.Stderr = w, &output
			assert.NilError(t, lab.Start())
			t.Cleanup(func() { _ = lab.Process.Kill() })
			started := make(chan struct{}) // closed when the test in the guest has started
			go func() {
				var seen bytes.Buffer
				buf := make([]byte, 4096)
				for closed := false; ; {
					n, err := r.Read(buf)
					seen.Write(buf[:n])
					if !closed && strings.Contains(seen.String(), "=== RUN   TestMisbehave") {
						close(started)
						closed = true
					}
					if err != nil {
						return
					}
				}
			}()
			select {
			case <-started:
			case <-ctx.Done():
				t.Fatalf("no test started within 3 minutes: %s", output.String())
			}
			qemu := qemuOf(t, lab.Process.Pid)
			assert.NilError(t, lab.Process.Signal(c.signal))
			_ = lab.Wait()
			assert.Equal(t, lab.ProcessState.ExitCode(), c.code, "%s", output.String())
			assert.Assert(t, cmp.Contains(output.String(), c.want))
			poll.WaitOn(t, func(poll.LogT) poll.Result {
				if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", qemu)); err == nil && strings.HasPrefix(string(b), "qemu") {
					return poll.Continue("QEMU, pid %d, still runs", qemu)
				}
				return poll.Success()
			}, poll.WithTimeout(5*time.Second))
		})
	}
}

// slowAtTheEnd is a reader of output that becomes slow after a number of bytes: the end of the output waits in the guest
// for longer than pid 1 waits for a process that keeps the pipe open.
type slowAtTheEnd struct {
	io.Writer
	quick int
}

func (s *slowAtTheEnd) Write(b []byte) (int, error) {
	if s.quick -= len(b); s.quick < 0 {
		time.Sleep(3 * time.Second)
	}
	return s.Writer.Write(b)
}

// qemuOf returns the pid of the QEMU that is a child of pid.
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
	t.Fatalf("process %d has no child that is QEMU", pid)
	return 0
}
