//go:build linux

package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/release"
	"cdblab/helpers/released"
	"cdblab/helpers/results"
	"cdblab/helpers/signals"
	"cdblab/helpers/tools"
	"cdblab/helpers/trial"
	"cdblab/helpers/vm"
)

const (
	releasedTable = "testdata/released-bugs.toml"
	// releasedDir has the stream of each run. A run that is there is not made again.
	releasedDir = ".lab/released"
)

// releasedMain checks the lab against bugs that were released. The exit code is 1 if a bug that should be noticed is not, or if a
// fixed version is red.
func releasedMain(args []string) int {
	set := flag.NewFlagSet("lab released", flag.ExitOnError)
	r := releasedRuns{}
	set.StringVar(&r.where, "where", "here", "where the runs are made: here, or vm")
	set.BoolVar(&r.fresh, "fresh", false, "make each run again, also if its results are there")
	set.StringVar(&r.test2json, "test2json", "", "the `program` that go tool -n test2json prints")
	words := set.String("bugs", "", "only these bugs: `ids`, references, or versions such as RUNC=1.1.11; separated by spaces")
	set.Usage = func() {
		fmt.Fprintln(set.Output(), "usage: lab released -test2json PROGRAM [FLAG...] COMMAND [ARGUMENT...]\n"+
			"the command is the test binary, or lab exec with one")
		set.PrintDefaults()
	}
	_ = set.Parse(args)
	if r.command = set.Args(); len(r.command) == 0 || r.test2json == "" {
		set.Usage()
		return 2
	}
	if err := checkSettings(); err != nil {
		logf("%v", err)
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals.Stop()...)
	defer stop()
	rows, wanted, err := r.check(ctx, strings.Fields(*words))
	if err != nil {
		logf("released: %v", err)
		return 1
	}
	if len(rows) > 1 {
		_ = released.Write(os.Stdout, rows)
	}
	fmt.Println(released.Score(rows))
	fmt.Printf("the stream of each run is in %s\n", releasedDir)
	if ctx.Err() != nil || len(rows) < wanted {
		logf("stopped after %d of %d bugs; the same command goes on there", len(rows), wanted)
		return 1
	}
	if slices.ContainsFunc(rows, released.Row.Failed) {
		return 1
	}
	return 0
}

// releasedRuns makes the runs, and keeps their streams.
type releasedRuns struct {
	where     string
	fresh     bool
	test2json string
	command   []string
	key       runKey // what each run depends on, except the source and the version under test

	sources map[string]string // by the id of the bug: the digest of what its answers depend on, when the runs began
	binary  string            // digest of the questions, then
}

// check returns the rows, and how many there are if it is not stopped.
func (r *releasedRuns) check(ctx context.Context, words []string) (rows []released.Row, wanted int, err error) {
	table, err := os.Open(releasedTable)
	if err != nil {
		return nil, 0, err
	}
	defer table.Close()
	bugs, err := released.Read(table)
	if err != nil {
		return nil, 0, err
	}
	if bugs, err = released.Select(bugs, words); err != nil {
		return nil, 0, err
	}
	v2, err := r.hasV2()
	if err != nil {
		return nil, 0, err
	}
	if r.key, err = newRunKey(ctx, r.where, os.Environ()); err != nil {
		return nil, 0, err
	}
	r.key.Source = "" // sourceOf has that of the questions
	if err := r.begin(bugs); err != nil {
		return nil, 0, err
	}
	n := 0
	rows = released.Check(ctx, bugs, v2, r.run, func(row released.Row) {
		n++
		logf("%d of %d: %s %s: %s. %s", n, len(bugs), row.Bug.ID, row.Bug.Variable(row.Bug.Broken), row.Verdict, row.Why)
	})
	if ctx.Err() != nil && len(rows) > 0 {
		rows = rows[:len(rows)-1] // the last one was stopped
	}
	return rows, len(bugs), nil
}

// begin records what the questions are. Their files may change while the runs go on, which takes an hour.
func (r *releasedRuns) begin(bugs []released.Bug) (err error) {
	r.sources = map[string]string{}
	for _, b := range bugs {
		if r.sources[b.ID], err = sourceOf(r.where, b.Tests()); err != nil {
			return err
		}
	}
	r.binary, err = binaryDigest(r.command)
	return err
}

// hasV2 reports whether the runs have cgroup v2 with all controllers.
func (r *releasedRuns) hasV2() (bool, error) {
	if r.where == "vm" {
		return cmp.Or(os.Getenv("CDB_CGROUP"), "v2") == "v2", nil
	}
	hierarchies, err := cgroup.Hierarchies()
	return cgroup.ModeOf(hierarchies) == cgroup.ModeV2, err
}

// run asks the questions of a bug with one version of its module. It does not ask again what it has asked: the same questions,
// of the same source, with the same version, on the same kernel with the same settings.
func (r *releasedRuns) run(ctx context.Context, b released.Bug, version string) (*results.Run, error) {
	key := sha256.Sum256(fmt.Append(nil, r.command, r.key, b.Questions, r.sources[b.ID])) // fmt sorts the keys of maps
	file := filepath.Join(releasedDir, b.ID, fmt.Sprintf("%s-%s-%x.json", b.Module, version, key[:4]))
	if run, err := results.Load(file); err == nil && isWhole(run) && !r.fresh {
		return run, nil
	}
	spec, err := release.Parse([]string{b.Variable(version)})
	if err != nil {
		return nil, err
	}
	environ, err := spec.Environ(ctx, os.Environ())
	if err != nil {
		return nil, err
	}
	if binary, err := binaryDigest(r.command); err != nil || binary != r.binary {
		return nil, cmp.Or(err, errBuiltAgain)
	}
	logf("%s: asking %s with %s", b.ID, strings.Join(b.Questions, ", "), b.Variable(version))
	stream, err := r.ask(ctx, environ, b.Pattern())
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(file, stream, 0o644); err != nil {
		return nil, err
	}
	run, err := results.Load(file)
	if err == nil && !isWhole(run) {
		err = fmt.Errorf("the run did not come to its end: %s: see %s", cmp.Or(trial.LastWord(run.Lines), whyNotWhole(run)), file)
	}
	return run, err
}

// ask runs the questions that the pattern selects, and returns the stream. That questions fail is no error.
func (r *releasedRuns) ask(ctx context.Context, environ []string, pattern string) ([]byte, error) {
	var output bytes.Buffer
	argv := slices.Concat(r.command, []string{"-test.v=test2json", "-test.run", pattern})
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env, cmd.Stdout, cmd.Stderr = environ, &output, &output
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // the lab cleans up before it ends
	cmd.WaitDelay = time.Minute
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || ctx.Err() != nil) {
		return nil, fmt.Errorf("run %s: %w", argv[0], cmp.Or(context.Cause(ctx), err))
	}
	if exit != nil && exit.ExitCode() == vm.FaultCode {
		// What it says last is that the machine failed, and before that why.
		reason, _, _ := strings.Cut(output.String(), "lab: "+machineFailed)
		reason = reason[max(0, strings.LastIndex("\n"+reason, "\nlab: ")):]
		return nil, fmt.Errorf("the VM failed, so nothing is known about the bug: %s", strings.TrimSpace(reason))
	}
	convert := exec.CommandContext(ctx, r.test2json, "-t")
	convert.Stdin = &output
	stream, err := convert.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", convert, err)
	}
	// test2json has no event for the exit code.
	last := "pass"
	if exit != nil {
		last = "fail"
	}
	return fmt.Appendf(stream, "{\"Action\":%q}\n", last), nil
}

var testFunction = regexp.MustCompile(`(?m)^func (Test\w+)\(`)

// sourceOf returns a digest of what the answers of these questions depend on. The files of other questions are no part of it.
func sourceOf(where string, questions []string) (string, error) {
	return sourceDigest(where, func(path string, data []byte) bool {
		if filepath.Dir(path) != "." || !strings.HasSuffix(path, "_test.go") {
			return false
		}
		tests := testFunction.FindAllSubmatch(data, -1)
		return len(tests) > 0 && !slices.ContainsFunc(tests, func(m [][]byte) bool { return slices.Contains(questions, string(m[1])) })
	})
}

// errBuiltAgain says that a series would go on with other questions than those that it has begun with.
var errBuiltAgain = errors.New("the questions were built again while the runs went on, from another source\n" +
	"  what to do: run the same command again")

// binaryDigest returns the digest of the test binary that a command runs, or "" if the command names none.
func binaryDigest(argv []string) (string, error) {
	i := slices.IndexFunc(argv, func(arg string) bool { return strings.HasSuffix(arg, ".test") })
	if i < 0 {
		return "", nil
	}
	return tools.Digest(argv[i])
}
