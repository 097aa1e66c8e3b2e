//go:build linux

package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"cdblab/helpers/sabotage"
	"cdblab/helpers/signals"
)

// sabotageMain asks the questions of programs that lie. The exit code is 1 if a lie is not caught by the question whose promise it
// breaks.
func sabotageMain(args []string) int {
	s := sabotage.Saboteur{Go: cmp.Or(os.Getenv("GO"), "go"), Logf: logf}
	s.Jobs = 1
	set := flag.NewFlagSet("lab sabotage", flag.ExitOnError)
	table := set.String("table", "testdata/sabotage.toml", "the table of the lies")
	names := set.String("lies", "", "only these lies: `names`, separated by spaces")
	questions := set.String("run", "", "a regular expression: only the lies that a question of this name has to catch")
	set.DurationVar(&s.Deadline, "deadline", 10*time.Minute, "of the run of one question, after which it is cut off")
	set.BoolVar(&s.Others, "others", true, "ask all questions of a lie that its own question has not caught")
	set.StringVar(&s.Binary, "binary", ".lab/lab.test", "the test binary of the questions")
	set.StringVar(&s.Test2JSON, "test2json", "", "the `program` that go tool -n test2json prints")
	asRoot := set.String("as-root", "", "a `program` that runs a command as root")
	_ = set.Parse(args)
	if set.NArg() > 0 || s.Test2JSON == "" {
		set.Usage()
		return 2
	}
	if err := checkSettings(); err != nil {
		logf("%v", err)
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals.Stop()...)
	defer stop()
	lies, err := readLies(*table, strings.Fields(*names), *questions)
	if err == nil {
		err = prepareSabotage(&s, *asRoot)
	}
	var rows []sabotage.Row
	if err == nil {
		rows, err = s.Check(ctx, lies, func(row sabotage.Row) {
			logf("%s (%s): %s. %s", row.Lie.Name, row.Lie.Program, row.Verdict, row.Why)
		})
	}
	if err != nil {
		logf("sabotage: %v", err)
		return 1
	}
	_ = sabotage.Write(os.Stdout, rows)
	fmt.Println(sabotage.Score(rows))
	fmt.Printf("the output of each run is in %s\n", filepath.Join(sabotageDir, "logs"))
	if ctx.Err() != nil || len(rows) < len(lies) {
		logf("stopped after %d of %d lies", len(rows), len(lies))
		return 1
	}
	if slices.ContainsFunc(rows, sabotage.Row.Failed) {
		return 1
	}
	return 0
}

// sabotageDir has the programs, the copies of the modules, and the output of each run.
const sabotageDir = ".lab/sabotage"

func readLies(table string, names []string, questions string) ([]sabotage.Lie, error) {
	question, err := regexp.Compile(questions)
	if err != nil {
		return nil, fmt.Errorf("make's Q has to be a regular expression: %w", err)
	}
	f, err := os.Open(table)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lies, err := sabotage.Read(f)
	if err != nil {
		return nil, err
	}
	return sabotage.Select(lies, names, question)
}

// prepareSabotage fills in what the flags do not name.
func prepareSabotage(s *sabotage.Saboteur, asRoot string) (err error) {
	if s.Module, err = os.Getwd(); err != nil {
		return err
	}
	s.Dir = filepath.Join(s.Module, sabotageDir)
	if s.Binary, err = filepath.Abs(s.Binary); err != nil {
		return err
	}
	if asRoot != "" {
		s.AsRoot = []string{asRoot}
	}
	s.Confine, err = confineArgs(asRoot)
	return err
}
