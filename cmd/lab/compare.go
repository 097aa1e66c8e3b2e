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
	"strings"

	"cdblab/helpers/compare"
	"cdblab/helpers/howto"
	"cdblab/helpers/release"
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

// compareMain compares two runs. The exit code is 1 if something differs, and 2 if they could not be compared to their end.
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
The exit code is 0 if the runs are equal, 1 if something differs, and 2 if they could not be compared. It is 2 as well if nothing
differs, and a run did not come to its end.

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
	switch {
	case !c.Equal():
		return exitDifferent
	case !c.Whole():
		logf("compare: a run did not come to its end, so the rest may be different\n" +
			"  what to do: make it again, or select by -run what it has")
		return exitNotCompared
	}
	return exitSame
}

// compare compares what the user named A and B.
func (r *runner) compare(ctx context.Context, a, b string) (*compare.Comparison, error) {
	if isVariables(a) || isVariables(b) {
		for _, name := range release.Variables() {
			if value := os.Getenv(name); value != "" { // r.run removes it: make matrix has its lists there
				return nil, fmt.Errorf("%s=%s stands beside A and B, and a run has only what A and B say\n"+
					"  what to do: write it into both, A='… %[1]s=%[2]s' B='… %[1]s=%[2]s', or leave it out (unset %[1]s)", name, value)
			}
		}
	}
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
	selected, err := parseSelection(r.questions)
	if err != nil {
		return nil, fmt.Errorf("-run: %w", err)
	}
	if isVariables(name) {
		load = func(string) (*results.Run, error) { return r.run(ctx, name) }
	}
	run, err := load(name)
	if err != nil {
		return nil, err
	}
	all := len(run.Asked())
	selected.cut(run)
	if n := run.NotBegun(); n > 0 && run.Verdict != results.Unfinished {
		run.Verdict = results.Unfinished
		run.Problems = append(run.Problems, fmt.Sprintf("The run did not come to its end: %d questions were not begun.", n))
	}
	run.Questions = run.Asked()
	if all > 0 && len(run.Questions) == 0 {
		return nil, fmt.Errorf("none of the %d questions of %s matches %q\n  what to do: see their names: %s",
			all, cmp.Or(strings.TrimSpace(name), "pinned"), r.questions, howto.Syllabus())
	}
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
