//go:build linux

package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"cdblab/helpers/compare"
	"cdblab/helpers/howto"
	"cdblab/helpers/results"
	"cdblab/helpers/signals"
	"cdblab/helpers/syllabus"
)

// Exit codes of lab compare, which are those of diff.
const (
	exitSame        = 0
	exitDifferent   = 1
	exitNotCompared = 2
)

// compareMain compares two runs. The exit code is 1 if something differs, and 2 if they could not be compared.
func compareMain(args []string) int {
	set := flag.NewFlagSet("lab compare", flag.ExitOnError)
	r := runner{}
	r.flags(set)
	format := set.String("format", "text", "what is printed: text or markdown")
	page := set.String("html", "", "also write a page into this `file`")
	set.Usage = func() {
		fmt.Fprint(set.Output(), `usage: lab compare [FLAG...] A B

A and B are each a run of the lab: a directory of results, a stream of go test -json, a facts.json, or variables of make such as
'RUNC=1.3.4 CGROUP=v1'. A run with these variables is made, unless the results of the same run are there already.
The exit code is 0 if the runs are equal, 1 if something differs, and 2 if they could not be compared.

`)
		set.PrintDefaults()
	}
	_ = set.Parse(args)
	if set.NArg() != 2 {
		set.Usage()
		return exitNotCompared
	}
	write := map[string]func(io.Writer, *compare.Comparison) error{"text": compare.WriteText, "markdown": compare.WriteMarkdown}[*format]
	if write == nil {
		logf("-format is %q, expected text or markdown", *format)
		return exitNotCompared
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals.Stop()...)
	defer stop()
	c, err := r.compare(ctx, set.Arg(0), set.Arg(1))
	if err == nil {
		err = write(os.Stdout, c)
	}
	if err == nil && *page != "" {
		err = createFile(*page, func(w io.Writer) error { return compare.WriteHTML(w, c) })
		logf("page: %s", *page)
	}
	if err != nil {
		logf("compare: %v", err)
		return exitNotCompared
	}
	if !c.Equal() {
		return exitDifferent
	}
	return exitSame
}

// compare compares what the user named A and B.
func (r *runner) compare(ctx context.Context, a, b string) (*compare.Comparison, error) {
	var sides [2]compare.Side
	for i, name := range []string{a, b} {
		run, err := r.results(ctx, name)
		if err != nil {
			return nil, err
		}
		sides[i] = compare.Side{Name: cmp.Or(strings.TrimSpace(name), "pinned"), Run: run}
	}
	return compare.Runs(sides[0], sides[1])
}

// results returns the results that the user named. Their questions are those that -run selects, in the order of the syllabus.
func (r *runner) results(ctx context.Context, name string) (*results.Run, error) {
	load := results.Load
	if isVariables(name) && howto.InTarball() {
		return nil, fmt.Errorf("%q is no file and no directory of results; only in a checkout of the lab, "+
			"`make compare` makes a run for it", name)
	}
	if isVariables(name) {
		load = func(string) (*results.Run, error) { return r.run(ctx, name) }
	}
	run, err := load(name)
	if err != nil {
		return nil, err
	}
	question, _, _ := strings.Cut(r.questions, "/") // the rest selects subtests
	selected, err := regexp.Compile(question)
	if err != nil {
		return nil, fmt.Errorf("-run: %w", err)
	}
	run.Questions = slices.DeleteFunc(run.Questions, func(q *results.Question) bool {
		return q.Text == "" || !selected.MatchString(q.Test)
	})
	if questions, err := syllabus.Read(chapter()); err == nil {
		var tests []string
		for _, q := range questions {
			tests = append(tests, q.Test)
		}
		run.Sort(tests)
	}
	return run, nil
}

var variable = regexp.MustCompile(`^[A-Z_]+=`)

// isVariables reports whether the user named variables of make, and no file.
func isVariables(name string) bool {
	if _, err := os.Stat(name); err == nil {
		return false
	}
	name = strings.TrimSpace(name)
	return name == "" || name == "pinned" || variable.MatchString(name)
}

// createFile writes a file and the directory that it is in.
func createFile(name string, write func(io.Writer) error) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return writeFile(name, write)
}
