//go:build linux

package vm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"cdblab/helpers/vm/wire"
)

// Variables, so that a test does not have to be as patient.
var (
	bootPatience  = 2 * time.Minute  // emulated, with the host's CPUs busy elsewhere
	quietPatience = time.Minute      // pid 1 says a word every two seconds
	drainPatience = 5 * time.Minute  // what is in the queues when the command has ended
	timeoutMargin = 90 * time.Second // past the test binary's own -test.timeout, which brings the goroutine dump
)

// A Runner makes one run. Its zero value needs at least Say, Stdout and Stderr.
type Runner struct {
	Config
	Cache  *Cache
	Say    func(format string, args ...any) // progress, for a person
	Stdout io.Writer
	Stderr io.Writer // may be the same file as Stdout, and the order of lines is then kept
	Orders <-chan wire.Order
	Input  io.Reader // for a terminal
	Up     func()    // called when the guest is there, if set

	// What was found, for the closing line.
	Kernel *Kernel
	Using  string // kvm or tcg
}

// Test runs a test binary, argv[0], in the working directory's counterpart, and returns its exit code. An error means
// that nothing is known about the tests.
func (r *Runner) Test(ctx context.Context, argv []string) (int, error) {
	dir, err := os.Getwd()
	if err != nil {
		return 0, err
	}
	job, work, err := testJob(argv, dir)
	if err != nil {
		return 0, err
	}
	if limit := timeout(argv); limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit+timeoutMargin+bootPatience, fmt.Errorf("the tests did not end %v after their own -timeout of %v", timeoutMargin, limit))
		defer cancel()
	}
	return r.run(ctx, job, work)
}

func (r *Runner) run(ctx context.Context, job *wire.Job, work tree) (int, error) {
	if err := r.check(); err != nil {
		return 0, err
	}
	q, err := findQEMU()
	if err != nil {
		return 0, err
	}
	init, err := r.Cache.init()
	if err != nil {
		return 0, err
	}
	k, err := r.Cache.kernel(ctx, r.Config.Kernel, r.Say)
	if err != nil {
		return 0, err
	}
	r.Kernel = k
	if r.Using, err = r.Cache.accelerator(q, &r.Config, k, init, r.Say); err != nil {
		return 0, err
	}
	r.cpus(r.Using)
	image, env, err := r.Cache.image(ctx, k, r.Say)
	if err != nil {
		return 0, err
	}
	finishJob(job, &r.Config, env)
	initrd, err := r.Cache.initrd(k, init)
	if err != nil {
		return 0, err
	}
	defer initrd.Close()
	root, err := os.Open(image)
	if err != nil {
		return 0, err
	}
	defer root.Close()
	disk, err := r.Cache.workDisk(work)
	if err != nil {
		return 0, err
	}
	defer disk.Close()
	job.Merge = sameFile(r.Stdout, r.Stderr)

	ports := []string{wire.Control, wire.Stdout, wire.Stderr, wire.Files}
	m, err := q.start(&r.Config, r.Using, k, initrd, root, disk, "", ports...)
	if err != nil {
		return 0, err
	}
	defer m.kill()
	return r.watch(ctx, m, job)
}

// watch follows the guest from its first word to its last.
func (r *Runner) watch(ctx context.Context, m *machine, job *wire.Job) (int, error) {
	files, err := os.CreateTemp(r.Cache.dir, ".back-*")
	if err != nil {
		return 0, diskFault("make room for the guest's files", r.Cache.dir, err)
	}
	defer files.Close()
	_ = os.Remove(files.Name())
	var (
		stdout = newStream(m.channels[wire.Stdout], r.Stdout)
		stderr = newStream(m.channels[wire.Stderr], r.Stderr)
		back   = newStream(m.channels[wire.Files], files)
		orders = json.NewEncoder(m.channels[wire.Control])
		said   = words(m.channels[wire.Control])
		quiet  = time.NewTimer(bootPatience)
		up     = false
	)
	tried := "boot the VM"
	for {
		select {
		case w, ok := <-said:
			quiet.Reset(quietPatience)
			switch {
			case !ok:
				<-m.exited
				return 0, m.fault(tried, "the guest was gone before it said how the command ended: "+m.state(), "run it again; if it happens again, watch the console with CDB_VM_CONSOLE=1")
			case w.Up && !up:
				up, tried = true, "run "+job.Args[0]+" in the VM"
				if err := orders.Encode(job); err != nil {
					return 0, m.fault("send the job to the guest", err.Error(), "run it again")
				}
				if r.Up != nil {
					r.Up()
				}
				if r.Input != nil {
					go func() { _, _ = io.Copy(m.channels[wire.Stdout], r.Input) }()
				}
			case w.Note != "":
				r.Say("%s", w.Note)
			case w.Fault != "":
				return 0, m.fault(tried, "the guest says: "+w.Fault, "")
			case w.Exit != nil:
				for _, s := range []struct {
					what string
					*stream
					n int64
				}{{"standard output", stdout, w.Exit.Stdout}, {"standard error", stderr, w.Exit.Stderr}, {"the files", back, w.Exit.Files}} {
					if err := s.wait(s.n, drainPatience); err != nil {
						return 0, m.fault("bring back "+s.what, err.Error(), "see that the disk is not full, and run it again")
					}
				}
				if w.Exit.Files > 0 {
					if err := r.unpack(files, w.Exit.Files, job.Back); err != nil {
						return 0, err
					}
				}
				if w.Exit.Signal != 0 {
					r.Say("the command was killed by signal %d", w.Exit.Signal)
				}
				return w.Exit.Code, nil
			}
		case o := <-r.Orders:
			if up {
				_ = orders.Encode(o)
			}
		case <-quiet.C:
			return 0, m.fault(tried, fmt.Sprintf("the guest was silent for %v", map[bool]time.Duration{false: bootPatience, true: quietPatience}[up]), "run it again; if it happens again, watch the console with CDB_VM_CONSOLE=1, or take ACCEL=tcg")
		case <-ctx.Done():
			var s *Stopped
			if errors.As(context.Cause(ctx), &s) {
				return 0, s
			}
			return 0, m.fault(tried, context.Cause(ctx).Error(), "")
		}
	}
}

func (r *Runner) unpack(files *os.File, n int64, wanted []string) error {
	_, err := files.Seek(0, io.SeekStart)
	if err == nil {
		err = unpackResults(io.LimitReader(files, n), wanted)
	}
	if err != nil {
		return &Fault{Tried: "write the files that the command left", Seen: err.Error(), Do: "see that the directory is yours and the disk not full"}
	}
	return nil
}

// Stopped is the cause of a run that somebody stopped.
type Stopped struct{ Code int }

func (s *Stopped) Error() string { return "stopped; the VM is gone" }

func sameFile(a, b io.Writer) bool {
	if a == b {
		return true
	}
	fa, ok := a.(*os.File)
	fb, ok2 := b.(*os.File)
	if !ok || !ok2 {
		return false
	}
	ia, err := fa.Stat()
	ib, err2 := fb.Stat()
	return err == nil && err2 == nil && os.SameFile(ia, ib)
}

// init builds the guest's pid 1, where there is none of just its sources. Even a go build that finds nothing to do
// costs an eighth of a second.
func (c *Cache) init() (string, error) {
	key := sha256.New()
	fmt.Fprintln(key, runtime.Version(), runtime.GOARCH)
	for _, pattern := range []string{"/cmd/lab-init/*.go", "/helpers/vm/wire/*.go", "/go.sum"} {
		files, _ := filepath.Glob(c.Module + pattern)
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				return "", err
			}
			fmt.Fprintf(key, "%s %d\n%s", filepath.Base(f), len(b), b)
		}
	}
	out := c.path("init-" + hex.EncodeToString(key.Sum(nil))[:16])
	if _, err := os.Stat(out); err == nil {
		return out, nil
	}
	tmp := out + ".new-" + strconv.Itoa(os.Getpid())
	defer os.Remove(tmp)
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", tmp, "./cmd/lab-init")
	build.Dir = c.Module
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOOS=linux")
	if said, err := build.CombinedOutput(); err != nil {
		return "", &Fault{Tried: "build the guest's pid 1: go build ./cmd/lab-init", Seen: strings.TrimSpace(string(said) + "\n" + err.Error()), Do: "see that go is on PATH, that the module builds, and that the disk is not full"}
	}
	return out, os.Rename(tmp, out)
}

func (c *Cache) initrd(k *Kernel, init string) (*os.File, error) {
	b, err := k.initrd(init)
	if err != nil {
		return nil, err
	}
	f, err := anonymous(c.dir, b)
	if err != nil {
		return nil, diskFault("make the initrd", c.dir, err)
	}
	return f, nil
}

// workDisk makes the disk with the command and its tree.
func (c *Cache) workDisk(t tree) (*os.File, error) {
	f, err := anonymous(c.dir, nil)
	if err == nil {
		if err = t.write(f, c.dir); err == nil {
			err = finish(f)
		}
	}
	if err != nil {
		return nil, diskFault("make the disk with the tests", c.dir, err)
	}
	return f, nil
}
