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

	"cdblab/helpers/mutants"
	"cdblab/helpers/signals"
)

// mutantsDir has the campaigns, the copies of the modules, and the profiles.
const mutantsDir = ".lab/mutants"

// mutantsMain makes mutants of a pinned program, and runs the lab against each.
func mutantsMain(args []string) int {
	c := mutants.Campaign{Dir: mutantsDir, Go: cmp.Or(os.Getenv("GO"), "go"), Logf: logf}
	set := flag.NewFlagSet("lab mutants", flag.ExitOnError)
	target := set.String("target", "runc", "the program of which mutants are made: runc, containerd, shim or ctr")
	set.Uint64Var(&c.Seed, "seed", 1, "which mutants are chosen")
	set.IntVar(&c.N, "n", 10, "number of mutants")
	set.IntVar(&c.Jobs, "jobs", 1, "mutants at the same time")
	set.StringVar(&c.Questions, "run", "", "a regular expression: the questions that have to notice; \"\" for all")
	set.DurationVar(&c.Deadline, "deadline", 0,
		"of the run against a mutant; 0 for three times the honest build's, and two minutes, times -jobs")
	set.BoolVar(&c.Fresh, "fresh", false, "also run mutants that have a result")
	set.BoolVar(&c.Slow, "slow", false, "mutants with a delay in place of a fault: no question may fail")
	set.BoolVar(&c.All, "all-lines", false, "also mutants of lines that no question executes")
	set.StringVar(&c.Test2JSON, "test2json", "", "the `program` that go tool -n test2json prints")
	asRoot := set.String("as-root", "", "a `program` that runs a command as root")
	_ = set.Parse(args)
	if set.NArg() > 0 || c.N < 1 || c.Jobs < 1 || c.Test2JSON == "" {
		set.Usage()
		return 2
	}
	if err := checkSettings(); err != nil {
		logf("%v", err)
		return 1
	}
	if err := prepareMutants(&c, *target, *asRoot); err != nil {
		logf("%v", err)
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals.Stop()...)
	defer stop()
	table, err := c.Run(ctx)
	if len(table.Rows) > 0 {
		if err := table.WriteText(os.Stdout); err != nil {
			logf("%v", err)
		}
		fmt.Printf("the table is in %s\n", c.TableFile())
	}
	if err != nil {
		logf("%v", err)
		return 1
	}
	if s := table.Score(); c.Slow && s.Killed+s.Hung > 0 {
		logf("a question fails because a program is slow: the outputs are in %s/logs", filepath.Dir(c.TableFile()))
		return 1
	}
	return 0
}

// prepareMutants fills in what the flags do not name.
func prepareMutants(c *mutants.Campaign, target, asRoot string) (err error) {
	if _, err := regexp.Compile(c.Questions); err != nil {
		return fmt.Errorf("make's Q has to be a regular expression: %w", err)
	}
	if c.Target, err = mutants.FindTarget(target); err != nil {
		return err
	}
	if c.Module, err = os.Getwd(); err != nil {
		return err
	}
	if c.Dir, err = filepath.Abs(mutantsDir); err != nil {
		return err
	}
	// A survivor may be killed where a question is not skipped: on v1, with criu, with another kernel.
	key, err := newRunKey(context.Background(), "here", os.Environ())
	if err != nil {
		return err
	}
	c.Digest = key.digest()
	c.Confine, err = confineArgs(asRoot)
	return err
}
