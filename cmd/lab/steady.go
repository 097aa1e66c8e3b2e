//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"cdblab/helpers/compare"
	"cdblab/helpers/results"
	"cdblab/helpers/signals"
)

// steadyDir has the output of each run.
const steadyDir = ".lab/steady"

// steadyMain runs a test binary many times, shuffled, every second time beside processes that keep the CPUs and the disk
// busy. It prints which tests failed in which run, and whether the run observed the same facts as the first that passed. The
// exit code is 1 if any run failed, or observed others.
func steadyMain(args []string) int {
	set := flag.NewFlagSet("lab steady", flag.ExitOnError)
	n := set.Int("n", 10, "number of runs")
	test2json := set.String("test2json", "", "the `program` that go tool -n test2json prints; without it, facts are not compared")
	set.Usage = func() {
		fmt.Fprintln(set.Output(), "usage: lab steady [-n N] COMMAND [ARGUMENT...]   runs a test binary, or lab exec with one, N times")
		set.PrintDefaults()
	}
	_ = set.Parse(args)
	if set.NArg() == 0 || *n < 1 {
		set.Usage()
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals.Stop()...)
	defer stop()
	if err := os.MkdirAll(steadyDir, 0o755); err != nil {
		logf("%v\n  make the directory writable for you, or run this in another checkout", err)
		return 1
	}
	var runs []steadyRun
	var first *results.Run // that passed
	for i := 1; i <= *n && ctx.Err() == nil; i++ {
		r := steadyRun{number: i, busy: i%2 == 0}
		if err := r.run(ctx, set.Args()); err != nil {
			logf("run %d: %v", i, err)
			return 1
		}
		if ctx.Err() != nil {
			break // it was stopped, which says nothing about the tests
		}
		if *test2json != "" && r.code == 0 {
			if err := r.compareFacts(ctx, *test2json, &first); err != nil {
				logf("run %d: compare its facts: %v", i, err)
				return 1
			}
		}
		logf("%s", r)
		runs = append(runs, r)
	}
	failed := printSteady(runs)
	if ctx.Err() != nil {
		logf("stopped after %d of %d runs", len(runs), *n)
		return 1
	}
	if failed > 0 {
		return 1
	}
	return 0
}

// steadyRun is one run of the test binary.
type steadyRun struct {
	number int
	busy   bool // beside processes that keep the CPUs and the disk busy
	took   time.Duration
	code   int      // exit code
	seed   string   // of the shuffle
	failed []string // names of the failed tests and subtests
	last   string   // the line that counts the questions
	facts  string   // how its facts differ from those of the first run; "" if they were not compared
	differ bool
}

func (r *steadyRun) logFile() string { return r.file("log") }

func (r *steadyRun) file(ext string) string {
	return filepath.Join(steadyDir, fmt.Sprintf("run-%03d.%s", r.number, ext))
}

func (r steadyRun) String() string {
	result := "passed"
	if r.code != 0 {
		result = fmt.Sprintf("FAILED with exit code %d: %s", r.code, strings.Join(r.failed, ", "))
	}
	if r.facts != "" {
		result += ". " + r.facts
	}
	machine := ""
	if r.busy {
		machine = " on a busy machine"
	}
	return fmt.Sprintf("run %d%s, seed %s, %.0f s: %s", r.number, machine, r.seed, r.took.Seconds(), result)
}

func (r *steadyRun) run(ctx context.Context, argv []string) error {
	if r.busy {
		stop, err := keepBusy(ctx)
		if err != nil {
			return err
		}
		defer stop()
	}
	log, err := os.Create(r.logFile())
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, argv[0], append(argv[1:], "-test.v=test2json", "-test.shuffle=on")...)
	cmd.Stdout, cmd.Stderr = log, log
	// The lab cleans up when it is asked to end. Its janitor cleans up after a SIGKILL.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Minute
	begin := time.Now()
	err = cmd.Run()
	r.took = time.Since(begin)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return fmt.Errorf("start %s: %w", argv[0], err)
	}
	r.code = cmd.ProcessState.ExitCode()
	return r.read()
}

// read reads seed, failures and the count of questions from the log.
func (r *steadyRun) read() error {
	f, err := os.Open(r.logFile())
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		line := strings.Trim(lines.Text(), "\x16 \t") // -test.v=test2json begins its own lines with a control character
		if name, ok := strings.CutPrefix(line, "--- FAIL: "); ok {
			name, _, _ = strings.Cut(name, " ")
			r.failed = append(r.failed, name)
		}
		if seed, ok := strings.CutPrefix(line, "-test.shuffle "); ok {
			r.seed = seed
		}
		if strings.HasPrefix(line, "cdblab: ") && strings.Contains(line, " questions asked: ") {
			r.last = line
		}
	}
	if r.code == 0 && r.last == "" {
		r.code, r.failed = 1, append(r.failed, "no line that counts the questions")
	}
	return lines.Err()
}

// compareFacts compares what the run observed with what the first run observed. The difference is in the run's text file.
func (r *steadyRun) compareFacts(ctx context.Context, test2json string, first **results.Run) error {
	log, err := os.Open(r.logFile())
	if err != nil {
		return err
	}
	defer log.Close()
	convert := exec.CommandContext(ctx, test2json, "-t")
	convert.Stdin = log
	stream, err := convert.Output()
	if err != nil {
		return fmt.Errorf("%s: %w", convert, err)
	}
	run, err := results.Read(bytes.NewReader(stream))
	if err != nil {
		return err
	}
	if *first == nil {
		*first, r.facts = run, "the first"
		return nil
	}
	c, err := compare.Runs(compare.Side{Name: "the first run", Run: *first}, compare.Side{Name: fmt.Sprintf("run %d", r.number), Run: run})
	if err != nil {
		return err
	}
	r.facts, r.differ = c.Summary(), !c.Equal()
	if !r.differ {
		return nil
	}
	var text bytes.Buffer
	return errors.Join(compare.WriteText(&text, c), os.WriteFile(r.file("txt"), text.Bytes(), 0o644))
}

// keepBusy starts a process for each CPU that computes, and one that writes to the disk. They end with this process, or when
// stop is called.
func keepBusy(ctx context.Context) (stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	var started []*exec.Cmd
	stop = func() {
		cancel()
		for _, cmd := range started {
			_ = cmd.Wait() // it was killed
		}
	}
	for i := range runtime.NumCPU() + 1 {
		what := "cpu"
		if i == 0 {
			what = "disk"
		}
		cmd := exec.CommandContext(ctx, "/proc/self/exe", "busy", what)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			stop()
			return nil, fmt.Errorf("keep the machine busy: %w", err)
		}
		started = append(started, cmd)
	}
	return stop, nil
}

// busyMain keeps one CPU or the disk busy until it is killed. lab steady starts it.
func busyMain(args []string) int {
	if len(args) != 1 {
		return 2
	}
	if args[0] == "cpu" {
		for i := uint64(0); ; i++ {
			if i == ^uint64(0) {
				return 0 // never; it keeps the compiler from dropping the loop
			}
		}
	}
	f, err := os.CreateTemp(steadyDir, "busy-*")
	if err != nil {
		logf("keep the disk busy: %v", err)
		return 1
	}
	defer f.Close()
	_ = os.Remove(f.Name()) // nothing is left when the process is killed
	block := make([]byte, 1<<20)
	for offset := int64(0); ; offset = (offset + int64(len(block))) % (64 << 20) {
		if _, err := f.WriteAt(block, offset); err != nil {
			logf("keep the disk busy: %v", err)
			return 1
		}
		if err := f.Sync(); err != nil {
			logf("keep the disk busy: %v", err)
			return 1
		}
	}
}

// printSteady prints a table of the runs and returns how many failed.
func printSteady(runs []steadyRun) (failed int) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "run\tmachine\tseed\ttime\texit code\tfacts\tfailed tests")
	for _, r := range runs {
		machine := "as it is"
		if r.busy {
			machine = "busy"
		}
		facts := "-"
		switch {
		case r.differ:
			facts = "see " + filepath.Base(r.file("txt"))
		case r.facts != "":
			facts = "the same"
		}
		if r.code != 0 || r.differ {
			failed++
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%.0f s\t%d\t%s\t%s\n",
			r.number, machine, r.seed, r.took.Seconds(), r.code, facts, strings.Join(r.failed, " "))
	}
	w.Flush()
	fmt.Printf("%d runs, %d failed or observed other facts; the output of each is in %s\n", len(runs), failed, steadyDir)
	return failed
}
