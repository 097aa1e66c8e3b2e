//go:build linux

package lab

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cdblab/helpers/host"
	"cdblab/helpers/howto"
	"cdblab/helpers/proc"
	"cdblab/helpers/rootfs"
	"cdblab/helpers/signals"
	"cdblab/helpers/syllabus"
	"cdblab/helpers/tools"
)

// Run asks the questions and returns the exit code. First it refuses machines on which they must not run, sweeps the
// leftovers of killed runs, and prints what is under test. At the end it verifies that the host is as it was, and that
// questions were asked.
func (s *Session) Run(m *testing.M) int {
	if os.Args[0] == janitorName {
		return janitor()
	}
	flag.Parse()
	if isSet("test.list") {
		return m.Run() // a list of names needs no root and changes nothing
	}
	if err := signals.PassOnNone(); err != nil {
		fmt.Println("cdblab:", err)
		return 1
	}
	// The rootfs and the directories of the run must be readable for a container's user who is not root.
	unix.Umask(0o022)
	code, err := s.ask(m)
	if err != nil {
		fmt.Printf("\ncdblab: %s\n\n", strings.ReplaceAll(err.Error(), "\n", "\n  "))
		return max(code, 1)
	}
	return code
}

func (s *Session) ask(m *testing.M) (code int, err error) {
	_, err = CheckSettings()
	if err := errors.Join(err, checkSudo()); err != nil {
		return 1, err
	}
	s.keep, _ = parseKeep(os.Getenv(keepEnv))
	if os.Getenv(stepEnv) == "1" {
		if s.stepping, err = openStepping(); err != nil {
			return 1, err
		}
		defer s.stepping.terminal.Close()
	}
	if err := guard(); err != nil {
		return 1, err
	}
	if err := s.load(); err != nil {
		return 1, err
	}
	measureSlowness(s.tools["runc"].Path) // the deadlines of a sweep depend on it
	proc.Patience = commandTimeout()
	swept, err := host.Sweep(false)
	for _, leftovers := range swept {
		fmt.Println("cdblab: swept the leftovers of a killed run:", leftovers)
	}
	if err != nil {
		return 1, fmt.Errorf("sweep the leftovers of killed runs: %w", err)
	}
	before, err := host.TakeInventory()
	if err != nil {
		return 1, err
	}
	begin := time.Now()
	if s.run, err = host.NewRun(); err != nil {
		return 1, err
	}
	stopJanitor, err := startJanitor(s.run.Owner)
	if err != nil {
		_, closeErr := s.run.Close()
		return 1, errors.Join(err, closeErr)
	}
	defer stopJanitor()
	if err := s.prepare(); err != nil {
		keepErr := s.run.Keep(false) // no question was asked
		_, closeErr := s.run.Close()
		return 1, errors.Join(err, keepErr, closeErr)
	}
	defer s.closeOnSignal()()
	s.printUnderTest()

	// The lab's own heap is small, and under emulation processor time is scarce.
	debug.SetGCPercent(400)
	code = m.Run()
	touchLastRun()
	if s.signalled.Load() {
		select {} // closeOnSignal ends the process: the questions failed because it sweeps
	}

	err = errors.Join(s.finish(before), s.verify())
	s.clauses.print()
	s.skips.print()
	s.counts.print(time.Since(begin))
	return code, err
}

// verify returns an error if the questions were not answered as the user of the run expects.
func (s *Session) verify() error {
	if s.stepping.hasEnded() {
		return errors.New("the reader ended the run, so its result says nothing about the programs under test")
	}
	return errors.Join(s.counts.verify(s.syllabus), s.skips.verify(s.maySkip))
}

// load reads the syllabus and finds the programs under test.
func (s *Session) load() (err error) {
	if s.syllabus, err = syllabus.Read(s.chapter); err != nil {
		return err
	}
	if s.stepping != nil {
		// One question at a time has the terminal, and no deadline of go test ends a run that waits for its reader.
		_ = flag.Set("test.parallel", "1")
		_ = flag.Set("test.timeout", "0")
	} else if !isGiven("test.parallel") {
		// Questions often wait until a process ends or until the kernel releases something. So more of them are asked at the same
		// time than there are processors. On two, 4 questions at a time keep 1.3 of them busy, and 8 keep 1.6. Each may have a containerd
		// of its own, so the memory sets a limit.
		_ = flag.Set("test.parallel", strconv.Itoa(min(4*runtime.GOMAXPROCS(0), 16)))
	}
	s.oneByOne = countMatching(s.syllabus) == 1 || flag.Lookup("test.parallel").Value.String() == "1"
	if s.tools, err = tools.FindRequired("."); err != nil {
		return err
	}
	s.rootfs, err = rootfs.Busybox(s.tools["busybox"].Path)
	return err
}

// prepare makes the directories that all questions of the run share. A run whose state is to be kept gets its mark first,
// before anything can go wrong.
func (s *Session) prepare() error {
	if s.keep != keepNever {
		if err := s.run.Keep(true); err != nil {
			return err
		}
	}
	if err := os.Mkdir(s.binDir(), 0o755); err != nil {
		return err
	}
	// For commands of ordinary users as well: as /tmp.
	if err := errors.Join(os.Mkdir(s.tmpDir(), 0o755), os.Chmod(s.tmpDir(), os.ModeSticky|0o777)); err != nil {
		return err
	}
	for name, program := range s.tools {
		if err := os.Symlink(program.Path, filepath.Join(s.binDir(), name)); err != nil {
			return err
		}
	}
	return nil
}

// closeOnSignal sweeps the run and ends the process on SIGINT, SIGTERM and SIGHUP, until stop is called. Of a run of which state is
// kept, it sweeps nothing.
func (s *Session) closeOnSignal() (stop func()) {
	received := make(chan os.Signal, 1)
	signal.Notify(received, signals.Stop()...)
	go func() {
		sig, ok := <-received
		if !ok {
			return
		}
		s.signalled.Store(true)
		keeps := s.keepsState()
		var keepErr error
		if !keeps {
			keepErr = s.run.Keep(false)
		}
		swept, err := s.run.Close()
		if keeps {
			fmt.Printf("\ncdblab: %v: kept %s; to remove it: %s\n", sig, s.run.Dir(), howto.Sweep())
		} else {
			fmt.Printf("\ncdblab: %v: swept %s\n", sig, swept)
		}
		if err := errors.Join(keepErr, err); err != nil {
			fmt.Println("cdblab:", err)
		}
		os.Exit(128 + int(sig.(unix.Signal)))
	}()
	return func() {
		signal.Stop(received)
		close(received)
	}
}

// keepsState reports whether the state of all questions, or of one that has ended, is kept.
func (s *Session) keepsState() bool { return s.keep == keepAlways || len(s.kept.list()) > 0 }

// finish closes the run and verifies that the host is as it was.
func (s *Session) finish(before host.Inventory) error {
	if dirs := s.kept.list(); len(dirs) > 0 {
		fmt.Printf("cdblab: kept %s; to remove all that is kept: %s\n", strings.Join(dirs, " "), howto.Sweep())
		_, err := s.run.Close()
		return err
	}
	if err := s.run.Keep(false); err != nil {
		return err
	}
	if err := s.runCleanups(); err != nil {
		_, closeErr := s.run.Close()
		return errors.Join(fmt.Errorf("take down what the questions shared: %w", err), closeErr)
	}
	if err := os.RemoveAll(s.binDir()); err != nil {
		return err
	}
	_, _ = host.Remove(s.tmpDir()) // it removes nothing if a mount is left there: the sweep finds that
	swept, changes, err := s.run.CloseAndCompare(before)
	if err != nil {
		return fmt.Errorf("end the run: %w", err)
	}
	var errs []error
	if !swept.Empty() {
		errs = append(errs, fmt.Errorf("the run left something outside of its questions, which was swept: %s", swept))
	}
	for _, c := range host.OwnedBy(changes, s.run.Owner) {
		errs = append(errs, fmt.Errorf("the run changed the host: %s", c))
	}
	for _, c := range host.Unnamed(changes) {
		fmt.Printf("cdblab: during the run appeared %s, a default directory of runc, crun or containerd, without a name of the lab in it: "+
			"another program has made it, or one under test in spite of its configuration\n", c.Name)
	}
	return errors.Join(errs...)
}
