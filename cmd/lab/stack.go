//go:build linux

package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"cdblab/helpers/release"
	"cdblab/helpers/results"
	"cdblab/helpers/vm"
)

// resultsFileEnv names a file into which lab run writes the directory of its results. The link latest may lead to those of another run
// that ends at the same time. The questions do not read this variable, so it has no CDB_ before its name.
const resultsFileEnv = "LAB_RESULTS_FILE"

// A runner makes the runs that are compared, by the targets of the Makefile. It keeps their results in .lab/compare: the same
// run is not made twice.
type runner struct {
	questions string // regular expression that selects questions; "" for all
	where     string // vm or here
	fresh     bool   // make each run again
	make      string // the command make
	ready     bool   // the pinned programs are built
}

func (r *runner) flags(set *flag.FlagSet) {
	set.StringVar(&r.questions, "run", "", "ask and compare only the questions that match this regular `expression`")
	set.StringVar(&r.where, "where", "vm", "where runs are made: vm, or here, which is only for a disposable machine")
	set.BoolVar(&r.fresh, "fresh", false, "make each run again, also if its results are there")
	r.make = cmp.Or(os.Getenv("MAKE"), "make")
}

// run returns the results of the run that the variables describe, such as "RUNC=1.3.4 CGROUP=v1". The word "pinned", or nothing,
// stands for the programs that go.mod pins.
func (r *runner) run(ctx context.Context, variables string) (*results.Run, error) {
	words := strings.Fields(variables)
	where := r.where
	words = slices.DeleteFunc(words, func(w string) bool {
		value, ok := strings.CutPrefix(w, "WHERE=")
		if ok {
			where = value
		}
		return ok || w == "pinned"
	})
	target := map[string]string{"vm": "lab", "here": "lab-here"}[where]
	if target == "" {
		return nil, fmt.Errorf("WHERE is %q, expected vm or here", where)
	}
	spec, err := release.Parse(words)
	if err != nil {
		return nil, err
	}
	if err := r.prepare(ctx); err != nil {
		return nil, err
	}
	env, err := spec.Environ(ctx, withoutMake(os.Environ()))
	if err != nil {
		return nil, err
	}
	key, err := newRunKey(ctx, where, env)
	if err != nil {
		return nil, err
	}
	name := cmp.Or(strings.TrimSpace(variables), "pinned")
	if run := r.stored(key, name); run != nil {
		return run, nil
	}
	if r.questions != "" {
		words = append(words, "Q="+r.questions)
	}
	return r.make1(ctx, key, name, append([]string{target}, words...))
}

// stored returns the results of the same run if they are there: those of the selected questions, or of all.
func (r *runner) stored(key runKey, name string) *results.Run {
	if r.fresh {
		return nil
	}
	for _, questions := range slices.Compact([]string{r.questions, ""}) {
		if questions == "" && strings.Contains(r.questions, "/") {
			continue // the rest of a question, and its verdict, are not those of a run that has asked only some of its subtests
		}
		key.Questions = questions
		file := filepath.Join(key.dir(), results.StreamFile)
		run, err := results.Load(file)
		if err != nil || !isWhole(run) {
			continue
		}
		logf("%s: not run again, its results of %s are in %s", name, run.Begin.Local().Format(time.DateTime), key.dir())
		now := time.Now()
		_ = os.Chtimes(key.dir(), now, now) // for pruneCompared; another user's runs stay as they are
		return run
	}
	return nil
}

// make1 makes a run, and stores its results.
func (r *runner) make1(ctx context.Context, key runKey, name string, args []string) (*results.Run, error) {
	tmp, err := os.MkdirTemp("", "lab-compare-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	file := filepath.Join(tmp, "results")
	logf("%s: running make %s", name, strings.Join(args, " "))
	makeErr := r.runMake(ctx, resultsFileEnv+"="+file, args...)
	if err := context.Cause(ctx); err != nil {
		return nil, fmt.Errorf("make %s: %w", args[0], err)
	}
	written, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("make %s has left no results in %s (%w)\n  what to do: see what it printed above",
			strings.Join(args, " "), results.Dir, cmp.Or(makeErr, err))
	}
	dir := string(written)
	run, err := results.Load(dir)
	if err != nil {
		return nil, err
	}
	if !isWhole(run) {
		return nil, fmt.Errorf("make %s did not come to its end: %s\n  what to do: see %s",
			strings.Join(args, " "), whyNotWhole(run), dir)
	}
	if err := key.check(run.Stack); err != nil {
		return nil, fmt.Errorf("the results in %s are of other programs: %w\n  what to do: change no program while it is tested", dir, err)
	}
	key.Questions = r.questions
	if err := key.store(filepath.Join(dir, results.StreamFile)); err != nil {
		logf("%s: %v", name, err) // the results are there all the same
	}
	return run, nil
}

// isWhole reports whether a run has come to its end, and each of its questions. That questions failed does not matter. A run whose
// VM was stopped ends in order, but the questions that it had begun do not. A VM may also fail after the last question.
func isWhole(run *results.Run) bool {
	return len(run.Questions) > 0 && run.Verdict != results.Unfinished && len(unfinished(run)) == 0 && !hasMachineFailed(run)
}

// unfinished returns the names of the questions that have begun, or waited, and not ended.
func unfinished(run *results.Run) (tests []string) {
	for _, q := range run.Questions {
		if q.Verdict == results.Unfinished {
			tests = append(tests, q.Test)
		}
	}
	return tests
}

// whyNotWhole says in a sentence what isWhole misses.
func whyNotWhole(run *results.Run) string {
	switch tests := unfinished(run); {
	case hasMachineFailed(run):
		return machineFailed
	case len(run.Problems) > 0:
		return strings.Join(run.Problems, " ")
	case len(tests) > 0:
		return fmt.Sprintf("%d questions have not ended, for example %s", len(tests), tests[0])
	}
	return "no question was asked"
}

// prepare builds the pinned programs, and the earlier releases that questions use, once. They are part of the key of a run.
func (r *runner) prepare(ctx context.Context) error {
	if r.ready {
		return nil
	}
	vm.AllowForSlowness() // to find the kernel has a deadline
	if err := r.runMake(ctx, resultsFileEnv+"=", "--silent", "tools", "earlier"); err != nil {
		return fmt.Errorf("make tools earlier: %w", err)
	}
	r.ready = true
	return nil
}

// runMake runs a target of the Makefile, with a variable of the environment. What it prints goes to stderr: stdout has the comparison
// alone.
func (r *runner) runMake(ctx context.Context, variable string, args ...string) error {
	cmd := exec.CommandContext(ctx, r.make, append([]string{"--no-print-directory"}, args...)...)
	cmd.Env = append(withoutMake(os.Environ()), variable)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stderr, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Minute // the run cleans up before it ends
	return cmd.Run()
}

// withoutMake returns an environment without what the make that has called this program hands on to another make: A=, B=, RUNC='1 2'.
func withoutMake(environ []string) []string {
	names := append(release.Variables(), "MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "MAKE_TERMOUT", "MAKE_TERMERR",
		"A", "B", "Q", "WHERE", "JUNIT", "ARTIFACTS", "STEP", "CDB_STEP")
	return slices.DeleteFunc(slices.Clone(environ), func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		return slices.Contains(names, name)
	})
}
