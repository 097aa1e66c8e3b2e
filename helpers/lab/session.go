//go:build linux

package lab

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cdblab/helpers/host"
	"cdblab/helpers/proc"
	"cdblab/helpers/rootfs"
	"cdblab/helpers/syllabus"
	"cdblab/helpers/tools"
)

// Session is one run of the lab: what all its questions share. TestMain makes it, and questions are asked through it.
type Session struct {
	chapter   fs.FS
	syllabus  []syllabus.Question
	tools     map[string]tools.Program // by the name that the chapter types
	rootfs    *rootfs.FS
	run       *host.Run // nil until Run has begun
	keep      keepPolicy
	oneByOne  bool         // no two questions are asked at the same time
	questions atomic.Int32 // numbers the directories of the questions
	counts    counts
	clauses   clauses
	kept      keptDirs

	mu       sync.Mutex
	shared   map[string]any // see [Once]
	cleanups []func() error
}

// NewSession prepares a run of the questions in chapter, which holds the chapter's source files.
func NewSession(chapter fs.FS) *Session {
	return &Session{chapter: chapter, keep: keepPolicyFromEnv(), shared: map[string]any{}}
}

// Run asks the questions. First it refuses machines where they must not run, sweeps what killed runs have left, and prints what is under
// test. At the end it verifies that the host is as it was, and that questions were asked. It returns the exit code.
func (s *Session) Run(m *testing.M) int {
	if run := os.Getenv(janitorEnv); run != "" {
		return janitor(run)
	}
	flag.Parse()
	if isSet("test.list") {
		return m.Run() // a list of names needs no root and touches nothing
	}
	code, err := s.ask(m)
	if err != nil {
		fmt.Printf("\ncdblab: %s\n\n", strings.ReplaceAll(err.Error(), "\n", "\n  "))
		return max(code, 1)
	}
	return code
}

func (s *Session) ask(m *testing.M) (code int, err error) {
	if err := guard(); err != nil {
		return 1, err
	}
	if err := s.load(); err != nil {
		return 1, err
	}
	swept, err := host.Sweep(false)
	for _, sw := range swept {
		fmt.Println("cdblab: swept what a killed run had left:", sw)
	}
	if err != nil {
		return 1, fmt.Errorf("sweep what a killed run had left: %w", err)
	}
	before, err := host.TakeInventory()
	if err != nil {
		return 1, err
	}
	proc.Patience = commandTimeout()
	begin := time.Now()
	if s.run, err = host.NewRun(); err != nil {
		return 1, err
	}
	stopJanitor, err := startJanitor(s.run.Owner.Run)
	if err != nil {
		return 1, err
	}
	defer stopJanitor()
	if err := s.prepare(); err != nil {
		_, closeErr := s.run.Close()
		return 1, errors.Join(err, closeErr)
	}
	defer s.closeOnSignal()()
	s.printUnderTest()

	// The lab's own heap is small, and under emulation processor time is scarce.
	debug.SetGCPercent(400)
	code = m.Run()

	err = errors.Join(s.finish(before), s.counts.verify(s.syllabus))
	s.clauses.print()
	s.counts.print(time.Since(begin))
	return code, err
}

// load reads the syllabus and finds the programs under test.
func (s *Session) load() (err error) {
	if s.syllabus, err = syllabus.Read(s.chapter); err != nil {
		return err
	}
	if !isGiven("test.parallel") {
		// Questions often wait for a process to end or for the kernel to release something: ask more of them at the same time
		// than there are processors.
		_ = flag.Set("test.parallel", strconv.Itoa(2*runtime.GOMAXPROCS(0)))
	}
	s.oneByOne = countMatching(s.syllabus) == 1 || flag.Lookup("test.parallel").Value.String() == "1"
	if s.tools, err = tools.FindRequired("."); err != nil {
		return err
	}
	s.rootfs, err = rootfs.Busybox(s.tools["busybox"].Path)
	return err
}

// prepare makes what all questions of the run share: a directory that has each tool under the chapter's name for it.
// It marks a run whose state is to be kept first, before anything can go wrong.
func (s *Session) prepare() error {
	if s.keep != keepNever {
		if err := s.run.Keep(true); err != nil {
			return err
		}
	}
	if err := os.Mkdir(s.binDir(), 0o755); err != nil {
		return err
	}
	if err := s.rootfs.ShareLinks(s.linksDir()); err != nil {
		return err
	}
	for name, t := range s.tools {
		if err := os.Symlink(t.Path, filepath.Join(s.binDir(), name)); err != nil {
			return err
		}
	}
	return nil
}

func (s *Session) binDir() string { return filepath.Join(s.run.Dir(), "bin") }

func (s *Session) linksDir() string { return filepath.Join(s.run.Dir(), "links") }

// linkTools returns the shell commands that link the tools as prepare does, for a transcript that is run again.
func (s *Session) linkTools() string {
	var b strings.Builder
	for _, t := range tools.All {
		if p, ok := s.tools[t.Name]; ok {
			fmt.Fprintf(&b, "ln -sf %s %s\n", p.Path, filepath.Join(s.binDir(), p.Name))
		}
	}
	return b.String()
}

// closeOnSignal sweeps the run and ends the process on SIGINT, SIGTERM and SIGHUP. It returns a function that stops this.
func (s *Session) closeOnSignal() (stop func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	go func() {
		sig, ok := <-c
		if !ok {
			return
		}
		swept, err := s.run.Close()
		fmt.Printf("\ncdblab: %v: swept %s\n", sig, swept)
		if err != nil {
			fmt.Println("cdblab:", err)
		}
		os.Exit(128 + int(sig.(unix.Signal)))
	}()
	return func() {
		signal.Stop(c)
		close(c)
	}
}

// finish closes the run and verifies that the host is as it was.
func (s *Session) finish(before host.Inventory) error {
	if dirs := s.kept.list(); len(dirs) > 0 {
		fmt.Printf("cdblab: kept %s; to remove all that is kept: make sweep\n", strings.Join(dirs, " "))
		_, err := s.run.Close()
		return err
	}
	if err := s.run.Keep(false); err != nil {
		return err
	}
	if err := s.cleanUp(); err != nil {
		_, closeErr := s.run.Close()
		return errors.Join(fmt.Errorf("take down what the questions shared: %w", err), closeErr)
	}
	for _, dir := range []string{s.binDir(), s.linksDir()} {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	swept, err := s.run.Close()
	if err != nil {
		return fmt.Errorf("end the run: %w", err)
	}
	after, err := host.TakeInventory()
	if err != nil {
		return err
	}
	var errs []error
	if !swept.Empty() {
		errs = append(errs, fmt.Errorf("the run left something outside of its questions, which was swept: %s", swept))
	}
	for _, c := range host.OwnedBy(host.Diff(before, after), before, s.run.Owner) {
		errs = append(errs, fmt.Errorf("the run changed the host: %s", c))
	}
	return errors.Join(errs...)
}

// Owner returns the owner of what the questions of the run share.
func (s *Session) Owner() host.Owner { return s.run.Owner }

// Once returns what the questions of a session share under a name. The first question that asks for it makes it, and the others wait
// for that. What lies in files is made in [Session.Mkdir], its processes are started by [Session.Cmd], and
// [Session.Cleanup] registers how it is taken down.
func Once[T any](s *Session, name string, make func() (T, error)) (T, error) {
	s.mu.Lock()
	once, ok := s.shared[name].(func() (T, error))
	if !ok {
		once = sync.OnceValues(make)
		s.shared[name] = once
	}
	s.mu.Unlock()
	return once()
}

// Mkdir makes a directory that the questions of the run share, and returns its path. The caller removes it in a
// [Session.Cleanup].
func (s *Session) Mkdir(name string) (string, error) {
	dir := filepath.Join(s.run.Dir(), name)
	return dir, os.MkdirAll(dir, 0o755)
}

// Cleanup registers a function that takes down what questions share. The functions are called when the last question has
// ended, in reverse order. They are not called where state is kept for a look.
func (s *Session) Cleanup(f func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cleanups = append(s.cleanups, f)
}

func (s *Session) cleanUp() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for i := len(s.cleanups) - 1; i >= 0; i-- {
		errs = append(errs, s.cleanups[i]())
	}
	s.cleanups = nil
	return errors.Join(errs...)
}
