//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"cdblab/helpers/display"
	"cdblab/helpers/release"
	"cdblab/helpers/results"
	"cdblab/helpers/signals"
	"cdblab/helpers/vm"
)

// runMain runs `go test` with -json, shows the run while it goes on, and leaves its results in a directory of their own.
func runMain(args []string) int {
	set := flag.NewFlagSet("lab run", flag.ExitOnError)
	verbose := set.Bool("v", false, "show the notes of all questions in full")
	junit := set.String("junit", "", "write the JUnit report to this file as well")
	set.Usage = func() {
		fmt.Fprintln(set.Output(), "usage: lab run [-v] [-junit FILE] go test -tags vmlab [FLAG...] .")
		set.PrintDefaults()
	}
	_ = set.Parse(args)
	if !slices.Contains(set.Args(), "test") {
		set.Usage()
		return 2
	}
	var ofVM vm.Config
	ofVM.Flags(flag.NewFlagSet("", flag.ContinueOnError)) // those of the environment; go test starts lab exec minutes later
	_, err := ofVM.CheckSettings()
	if err = errors.Join(checkSettings(), err); err == nil {
		err = resolve()
	}
	if err != nil {
		logf("%v", err)
		return 1
	}
	r, err := newLabRun(results.Dir, func(dir string) ([]string, error) { return withResults(set.Args(), dir) })
	if err != nil {
		logf("%v", err)
		return 1
	}
	return r.do("compiling the tests (minutes at the first time)", *verbose, *junit)
}

// resolve builds the releases that are to be tested.
func resolve() error {
	ctx, stop := signal.NotifyContext(context.Background(), signals.Stop()...)
	defer stop()
	return release.Resolve(ctx)
}

// labRun is a run of a command that prints the stream of go test -json, which is read and stored.
type labRun struct {
	argv    []string
	all     string // the directory of all results
	dir     string // of the results
	workDir string // of the command; "" for that of this program
	stream  *os.File
	display display.Display
	code    int          // exit code of go test
	stopped atomic.Int32 // the number of the signal that has stopped the run, or 0

	mu     sync.Mutex // guards what the lines of both pipes change
	reader *results.Reader
	begun  bool // the test binary has printed something
}

// newLabRun prepares a run, with a directory for its results in the directory all. The command of the run depends on this
// directory.
func newLabRun(all string, command func(dir string) ([]string, error)) (*labRun, error) {
	dir, err := results.NewDir(all, time.Now())
	if err != nil {
		return nil, fmt.Errorf("%w\n  what to do: make %s writable for you (a run as root may have created it)", err, all)
	}
	stream, err := os.Create(filepath.Join(dir, results.StreamFile))
	if err != nil {
		return nil, err
	}
	r := &labRun{all: all, dir: dir, stream: stream, reader: results.NewReader()}
	r.argv, err = command(dir)
	return r, err
}

// do runs the command, shows the run while it goes on, and stores its results. It returns the exit code. The text says what is done
// before the first question.
func (r *labRun) do(prepare string, verbose bool, junit string) int {
	r.display = display.New(os.Stdout, display.Options{Verbose: verbose, Expected: results.Times(r.all, r.kind())})
	r.display.Prepare(prepare)
	run := r.read()
	code := verdict(run, r.code)
	if s := r.stopped.Load(); s != 0 {
		code = 128 + int(s)
	}
	if err := r.store(run, junit); err != nil {
		run.Problems = append(run.Problems, fmt.Sprintf("The results could not be written in full: %v", err))
		code = max(code, 1)
	}
	r.display.Done(run, r.dir)
	return code
}

// withResults returns the command with the flags by which go test tells what a run does, and stores the transcripts. If the
// user's own flags say where these are stored, they stay there.
func withResults(argv []string, dir string) ([]string, error) {
	out := flagOf(argv, "outputdir")
	flags := []string{"-json"}
	if out == "" {
		var err error
		if out, err = filepath.Abs(dir); err != nil {
			return nil, err
		}
		flags = append(flags, "-artifacts", "-outputdir", out)
	}
	// A test that runs as root must not make this directory: its user could not remove it.
	if err := os.MkdirAll(filepath.Join(out, "_artifacts"), 0o755); err != nil {
		return nil, err
	}
	// With -v of its own, a test writes no attr events.
	argv = slices.DeleteFunc(slices.Clone(argv), func(a string) bool { return a == "-v" || a == "-v=true" })
	return slices.Insert(argv, slices.Index(argv, "test")+1, flags...), nil
}

// flagOf returns the value of a flag of go test, or "".
func flagOf(argv []string, name string) string {
	for i, a := range argv {
		a, isFlag := strings.CutPrefix(strings.Replace(a, "--", "-", 1), "-")
		if !isFlag {
			continue
		}
		if a == name && i+1 < len(argv) {
			return argv[i+1]
		}
		if value, ok := strings.CutPrefix(a, name+"="); ok {
			return value
		}
	}
	return ""
}

// kind tells apart runs whose questions take different times.
func (r *labRun) kind() string {
	kind := []string{"exec=" + flagOf(r.argv, "exec")}
	if disk := flagOf(r.argv, "disk"); disk != "" {
		kind = append(kind, "disk="+disk)
	}
	for _, name := range []string{"CDB_KERNEL", "CDB_CGROUP", "CDB_CPUS", "CDB_ACCEL"} {
		if value := os.Getenv(name); value != "" {
			kind = append(kind, name+"="+value)
		}
	}
	return strings.Join(kind, " ")
}

// read runs go test, and reads and stores its stream until it ends.
func (r *labRun) read() *results.Run {
	err := r.run()
	if s := syscall.Signal(r.stopped.Load()); s != 0 {
		line := results.Stopped(s.String())
		_, writeErr := r.stream.Write(append([]byte("\n"), line...)) // the last line may be cut
		err = errors.Join(err, writeErr)
		r.line(line)
	}
	err = errors.Join(err, r.stream.Close())
	run := r.reader.Close()
	if err != nil {
		run.Problems = append(run.Problems, err.Error())
		r.code = max(r.code, 1)
	}
	return run
}

func (r *labRun) run() error {
	cmd := exec.Command(r.argv[0], r.argv[1:]...)
	cmd.Stdin, cmd.Dir = os.Stdin, r.workDir
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	received := make(chan os.Signal, 2)
	signal.Notify(received, signals.Stop()...)
	defer signal.Stop(received)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", r.argv[0], err)
	}
	go r.forward(received, cmd.Process)
	var readers sync.WaitGroup
	tee := &tee{in: stdout, to: r.stream}
	readers.Go(func() { err = results.EachLine(tee, r.line) })
	readers.Go(func() { _ = results.EachLine(stderr, r.stderrLine) })
	readers.Wait()
	var exit *exec.ExitError
	if waitErr := cmd.Wait(); waitErr != nil && !errors.As(waitErr, &exit) {
		err = errors.Join(err, waitErr)
	}
	if r.code = cmd.ProcessState.ExitCode(); r.code < 0 {
		r.code = 1 // a signal has killed it
	}
	if tee.err != nil {
		err = errors.Join(err, fmt.Errorf("store the stream: %w", tee.err))
	}
	return err
}

// line shows a line of the stream.
func (r *labRun) line(line []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.show(r.reader.Line(line))
}

// stderrLine shows a line that go has printed beside the stream, such as what it downloads.
func (r *labRun) stderrLine(line []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change := r.reader.Print(strings.TrimRight(string(line), "\r\n"))
	if r.begun {
		r.show(change)
	} else {
		r.display.Prepare(change.Line)
	}
}

// show shows a change. What the VM says before the test binary prints anything tells how the run is prepared.
func (r *labRun) show(c results.Change) {
	what, ofVM := strings.CutPrefix(c.Line, "lab: ")
	if c.Kind == results.Printed && ofVM && !r.begun {
		r.display.Prepare(what)
		return
	}
	r.begun = r.begun || c.Kind != results.Nothing
	r.display.Update(r.reader.Run(), c)
}

// store writes the results, and where a CI wants to have them.
func (r *labRun) store(run *results.Run, junit string) error {
	errs := []error{writeOutputs(r.dir, r.dir, run)}
	if junit != "" {
		errs = append(errs, os.MkdirAll(filepath.Dir(junit), 0o755),
			writeFile(junit, func(w io.Writer) error { return results.WriteJUnit(w, run) }))
	}
	if summary := os.Getenv("GITHUB_STEP_SUMMARY"); summary != "" {
		errs = append(errs, appendSummary(summary, run))
	}
	if len(run.Asked()) > 0 && r.stopped.Load() == 0 {
		errs = append(errs, results.SaveTimes(r.all, r.kind(), run))
	}
	errs = append(errs,
		os.RemoveAll(filepath.Join(r.dir, "_artifacts")), // the transcripts are stored under the names of their tests now
		results.Link(r.all, r.dir), giveToOwner(r.all, r.dir))
	if file := os.Getenv(resultsFileEnv); file != "" {
		errs = append(errs, os.WriteFile(file, []byte(r.dir), 0o644))
	}
	return errors.Join(errs...)
}

func appendSummary(file string, run *results.Run) error {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(results.WriteSummary(f, run), f.Close())
}

// verdict returns the exit code of a run: that of go test, except where the stream knows better. go test has exit code 1 for
// every failure, also for that of the VM. And a run whose stream is incomplete has not passed.
func verdict(run *results.Run, code int) int {
	if hasMachineFailed(run) {
		return vm.FaultCode
	}
	complete := run.Verdict == results.Answered && run.Count(results.Answered) > 0 && run.Count(results.Unfinished)+run.NotBegun() == 0
	if code == 0 && !complete {
		run.Problems = append(run.Problems, "go test has exit code 0, but its stream does not show that the run passed: "+run.Headline())
		return 1
	}
	if len(run.Problems) > 0 {
		return max(code, 1) // its reports are red, too
	}
	return code
}

// hasMachineFailed reports whether lab exec has printed that the VM failed.
func hasMachineFailed(run *results.Run) bool {
	return slices.ContainsFunc(run.Lines, func(line string) bool { return strings.HasPrefix(line, "lab: "+machineFailed) })
}

// tee copies what is read to a file. If the file cannot be written, the reading goes on.
type tee struct {
	in  io.Reader
	to  io.Writer
	err error
}

func (t *tee) Read(b []byte) (int, error) {
	n, err := t.in.Read(b)
	if t.err == nil {
		_, t.err = t.to.Write(b[:n])
	}
	return n, err
}
