//go:build linux

package main

import (
	"bufio"
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
	where := set.String("where", "here", "where the command asks the questions: here, or in the vm")
	fresh := set.Bool("fresh", false, "begin with run 1, also where a series of the same binary and programs was stopped")
	set.Usage = func() {
		fmt.Fprintln(set.Output(), "usage: lab steady [-n N] COMMAND [ARGUMENT...]   runs a test binary, or lab exec with one, N times")
		set.PrintDefaults()
	}
	_ = set.Parse(args)
	if set.NArg() == 0 || *n < 1 {
		set.Usage()
		return 2
	}
	if err := checkSettings(); err != nil {
		logf("%v", err)
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals.Stop()...)
	defer stop()
	s, err := openSeries(ctx, *where, set.Args(), *n, *fresh)
	if err != nil {
		logf("%v", err)
		return 1
	}
	defer s.unlock()
	if len(s.Runs) > 0 {
		logf("going on after the %d runs that are in %s; with FRESH=1 make begins with run 1", len(s.Runs), steadyDir)
	}
	for i := len(s.Runs) + 1; i <= *n && ctx.Err() == nil; i++ {
		r := steadyRun{Number: i, Busy: i%2 == 0}
		err := s.checkBinary()
		if err == nil {
			err = r.run(ctx, set.Args())
		}
		if err != nil {
			logf("run %d: %v", i, err)
			return 1
		}
		if ctx.Err() != nil {
			break // it was stopped, which says nothing about the tests
		}
		if *test2json != "" && r.Code == 0 {
			if err := s.compareFacts(ctx, *test2json, &r); err != nil {
				logf("run %d: compare its facts: %v", i, err)
				return 1
			}
		}
		logf("%s", r)
		if err := s.add(r); err != nil {
			logf("%v", err)
			return 1
		}
	}
	failed := printSteady(s.Runs)
	if ctx.Err() != nil {
		logf("stopped after %d of %d runs; the same command goes on with run %d", len(s.Runs), *n, len(s.Runs)+1)
		return 1
	}
	if failed > 0 {
		return 1
	}
	return 0
}

// steadyRun is one run of the test binary.
type steadyRun struct {
	Number int
	Busy   bool // beside processes that keep the CPUs and the disk busy
	Took   time.Duration
	Code   int      // exit code
	Seed   string   // of the shuffle
	Failed []string // names of the failed tests and subtests
	Last   string   // the line that counts the questions
	Facts  string   // how its facts differ from those of the first run that passed; "" if they were not compared
	Differ bool
}

func (r *steadyRun) logFile() string { return r.file("log") }

func (r *steadyRun) file(ext string) string {
	return filepath.Join(steadyDir, fmt.Sprintf("run-%03d.%s", r.Number, ext))
}

func (r steadyRun) String() string {
	result := "passed"
	if r.Code != 0 {
		result = fmt.Sprintf("FAILED with exit code %d: %s", r.Code, strings.Join(r.Failed, ", "))
	}
	if r.Facts != "" {
		result += ". " + r.Facts
	}
	machine := ""
	if r.Busy {
		machine = " on a busy machine"
	}
	return fmt.Sprintf("run %d%s, seed %s, %.0f s: %s", r.Number, machine, r.Seed, r.Took.Seconds(), result)
}

func (r *steadyRun) run(ctx context.Context, argv []string) error {
	if r.Busy {
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
	r.Took = time.Since(begin)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return fmt.Errorf("start %s: %w", argv[0], err)
	}
	r.Code = cmd.ProcessState.ExitCode()
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
			r.Failed = append(r.Failed, name)
		}
		if seed, ok := strings.CutPrefix(line, "-test.shuffle "); ok {
			r.Seed = seed
		}
		if strings.HasPrefix(line, "cdblab: ") && strings.Contains(line, " questions asked: ") {
			r.Last = line
		}
	}
	if r.Code == 0 && r.Last == "" {
		r.Code, r.Failed = 1, append(r.Failed, "no line that counts the questions")
	}
	return lines.Err()
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
		if r.Busy {
			machine = "busy"
		}
		facts := "-"
		switch {
		case r.Differ:
			facts = "see " + filepath.Base(r.file("txt"))
		case r.Facts != "":
			facts = "the same"
		}
		if r.Code != 0 || r.Differ {
			failed++
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%.0f s\t%d\t%s\t%s\n",
			r.Number, machine, r.Seed, r.Took.Seconds(), r.Code, facts, strings.Join(r.Failed, " "))
	}
	w.Flush()
	fmt.Printf("%d runs, %d failed or observed other facts; the output of each is in %s\n", len(runs), failed, steadyDir)
	return failed
}
