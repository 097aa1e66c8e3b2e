//go:build linux

package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"cdblab/helpers/howto"
	"cdblab/helpers/notebook"
	"cdblab/helpers/results"
	"cdblab/helpers/syllabus"
)

// outputs are the files that are made of a run.
var outputs = []struct {
	name  string
	write func(io.Writer, *results.Run) error
}{
	{results.FactsFile, results.WriteFacts},
	{results.NotebookFile, notebook.Write},
	{results.SummaryFile, results.WriteSummary},
	{results.JUnitFile, results.WriteJUnit},
}

// reportMain makes the outputs of a run again from its stream: also of a stream that a CI has stored.
func reportMain(args []string) int {
	set := flag.NewFlagSet("lab report", flag.ExitOnError)
	to := set.String("o", "", "the directory for the outputs; by default that of the results, and for a stream a new one in "+resultsDir())
	set.Usage = func() {
		fmt.Fprintln(set.Output(), "usage: lab report [-o DIR] [DIR|STREAM]   the default is the last run")
		set.PrintDefaults()
	}
	_ = set.Parse(args)
	from := filepath.Join(resultsDir(), results.Latest)
	if set.NArg() > 0 {
		from = set.Arg(0)
	}
	if set.NArg() > 1 {
		set.Usage()
		return 2
	}
	dir, run, err := report(from, *to)
	if err != nil {
		logf("%v", err)
		return 1
	}
	for _, p := range slices.Concat(run.Problems, run.Remarks) {
		logf("%s", p)
	}
	fmt.Println(run.Headline())
	fmt.Printf("results: %s\n", dir)
	return 0
}

// report reads a run and writes its outputs. It returns their directory.
func report(from, to string) (dir string, run *results.Run, err error) {
	stream := from
	if info, err := os.Stat(from); err == nil && info.IsDir() {
		stream = filepath.Join(from, results.StreamFile)
		if to == "" {
			to = from
		}
		if _, err := os.Stat(stream); err != nil {
			return "", nil, fmt.Errorf("there is no %s, from which the outputs are made\n"+
				"  what to do: name a directory or a stream that `%s` has written", stream, howto.Run())
		}
	}
	if run, err = results.Load(stream); err != nil {
		return "", nil, err
	}
	if run.Begin.IsZero() {
		return "", nil, fmt.Errorf("%s is no stream of `go test -json` from which outputs can be made", stream)
	}
	if to == "" {
		if to, err = results.NewDir(resultsDir(), run.Begin); err != nil {
			return "", nil, err
		}
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return "", nil, err
	}
	return to, run, errors.Join(copyStream(stream, filepath.Join(to, results.StreamFile)), writeOutputs(to, filepath.Dir(stream), run),
		giveToOwner(resultsDir(), to))
}

// copyStream copies the stream to the directory of its outputs, if it is not there already.
func copyStream(from, to string) error {
	a, err := os.Stat(from)
	if err != nil {
		return err
	}
	if b, err := os.Stat(to); err == nil && os.SameFile(a, b) {
		return nil
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	return results.ReplaceFile(to, func(w io.Writer) error {
		_, err := io.Copy(w, in)
		return err
	})
}

// writeOutputs writes the outputs of a run, with the questions in the order of the chapter. A file that cannot be written does
// not keep the others from being written.
func writeOutputs(dir, ofStream string, run *results.Run) error {
	run.Sort(testsInOrder())
	errs := []error{results.CopyTranscripts(dir, ofStream, run)} // first, because it may find that something is missing
	for _, o := range outputs {
		errs = append(errs, results.ReplaceFile(filepath.Join(dir, o.name), func(w io.Writer) error { return o.write(w, run) }))
	}
	return errors.Join(errs...)
}

// testsInOrder returns the names of the questions' tests, in the order of the chapter. Without the source of the questions there
// is no order but that of the names.
func testsInOrder() []string {
	questions, err := syllabus.Read(chapter())
	if err != nil {
		return nil
	}
	var out []string
	for _, q := range questions {
		out = append(out, q.Test)
	}
	return out
}

// writeFile writes a file that the user names by a function. The disk may turn out to be full only when the file is closed.
func writeFile(path string, write func(io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	b := bufio.NewWriter(f)
	if err := errors.Join(write(b), b.Flush(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
