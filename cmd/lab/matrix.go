//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"

	"cdblab/helpers/compare"
	"cdblab/helpers/release"
	"cdblab/helpers/signals"
)

// matrixDir has the page and the CSV of a matrix.
const matrixDir = ".lab/matrix"

// matrixMain compares many runs: one for each combination of the values of its variables. The exit code is 2 if a run could not
// be made, or has no question in common with another one. The others are compared all the same.
func matrixMain(args []string) int {
	set := flag.NewFlagSet("lab matrix", flag.ExitOnError)
	r := runner{}
	r.flags(set)
	out := set.String("out", matrixDir, "write index.html and matrix.csv into this `directory`")
	set.Usage = func() {
		fmt.Fprint(set.Output(), `usage: lab matrix [FLAG...] VARIABLE='VALUE...'... [RESULTS...]

For example: lab matrix RUNC='1.2.5 1.3.4' CGROUP='v1 v2' makes four runs, unless their results are there already. RESULTS are
directories, streams or facts.json of further runs. A matrix that was stopped goes on where it was: what is there is not run again.

`)
		set.PrintDefaults()
	}
	_ = set.Parse(args)
	stacks, err := combinations(set.Args())
	if err != nil {
		logf("matrix: %v", err)
		return exitNotCompared
	}
	if len(stacks) < 2 {
		logf("matrix: there is one run or none, expected two or more\n  what to do: name more values, such as RUNC='1.2.5 1.3.4'")
		return exitNotCompared
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals.Stop()...)
	defer stop()
	m, err := r.matrix(ctx, stacks, func(m *compare.Matrix) error { return writeMatrix(*out, m) })
	if err != nil {
		logf("matrix: %v", err)
		return exitNotCompared
	}
	if err := m.Comparable(); err != nil {
		logf("matrix: %v\n  what to do: name runs that ask the same questions", err)
		return exitNotCompared
	}
	fmt.Println(m.Summary())
	for _, missing := range m.Missing() {
		fmt.Printf("! %s\n", missing)
	}
	for _, warning := range m.Warnings() {
		fmt.Printf("! %s\n", warning)
	}
	fmt.Printf("page: %s\ntable: %s\n", filepath.Join(*out, "index.html"), filepath.Join(*out, "matrix.csv"))
	if len(m.Missing()) > 0 {
		return exitNotCompared
	}
	return exitSame
}

// matrix makes the runs, one after the other. It writes the matrix after each, so that there is something to read early.
func (r *runner) matrix(ctx context.Context, stacks []string, write func(*compare.Matrix) error) (*compare.Matrix, error) {
	var columns []compare.Column
	for i, stack := range stacks {
		logf("%d of %d: %s", i+1, len(stacks), stack)
		run, err := r.results(ctx, stack)
		if cause := context.Cause(ctx); cause != nil {
			return nil, fmt.Errorf("stopped after %d of %d runs (%w)\n  what to do: run the same command again, it goes on with run %d",
				i, len(stacks), cause, i+1)
		}
		if err != nil {
			logf("%s: %v", stack, err)
		}
		columns = append(columns, compare.Column{Name: stack, Run: run, Err: err})
		if err := write(compare.NewMatrix(columns)); err != nil {
			return nil, err
		}
	}
	return compare.NewMatrix(columns), nil
}

func writeMatrix(dir string, m *compare.Matrix) error {
	return errors.Join(
		createFile(filepath.Join(dir, "index.html"), func(w io.Writer) error { return compare.WriteMatrixHTML(w, m) }),
		createFile(filepath.Join(dir, "matrix.csv"), func(w io.Writer) error { return compare.WriteCSV(w, m) }))
}

// combinations returns the stacks of a matrix: RUNC='1 2' CGROUP='v1 v2' has four. Arguments without a variable are results.
func combinations(args []string) ([]string, error) {
	var files []string
	stacks := [][]string{nil}
	for _, arg := range args {
		name, values, ok := strings.Cut(arg, "=")
		if !ok || !isVariables(arg) {
			files = append(files, arg)
			continue
		}
		if !slices.Contains(append(release.Variables(), "WHERE"), name) {
			return nil, fmt.Errorf("%s is no variable of a stack, expected one of %s", name, strings.Join(release.Variables(), ", "))
		}
		var longer [][]string
		for _, stack := range stacks {
			for _, value := range strings.Fields(values) {
				word := name + "=" + value
				if value == "pinned" {
					word = "" // the release that go.mod pins, next to others
				}
				longer = append(longer, append(slices.Clone(stack), word))
			}
		}
		stacks = longer
	}
	var out []string
	for _, stack := range stacks {
		if stack = slices.DeleteFunc(stack, func(w string) bool { return w == "" }); len(stack) > 0 || len(files) < len(args) {
			name := strings.Join(stack, " ")
			if name == "" {
				name = "pinned"
			}
			out = append(out, name)
		}
	}
	return append(out, files...), nil
}
