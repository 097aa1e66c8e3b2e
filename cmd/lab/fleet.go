//go:build linux

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"cdblab/helpers/fleet"
	"cdblab/helpers/howto"
	"cdblab/helpers/results"
)

// fleetDir returns the directory of the page and the tables of a fleet.
func fleetDir() string {
	if howto.InTarball() {
		return "cdblab-fleet"
	}
	return ".lab/fleet"
}

// fleetMain groups the nodes of a fleet by their facts. The exit codes are those of lab compare.
func fleetMain(args []string) int {
	set := flag.NewFlagSet("lab fleet", flag.ExitOnError)
	out := set.String("out", fleetDir(), "write index.html, nodes.csv and differences.csv into this `directory`")
	common := set.Bool("common", false, "compare results of several versions of the lab, by the questions and facts that all have")
	expect := set.Int("expect", 0, "the `number` of nodes: a fleet that has sent fewer results, or more, could not be compared")
	set.Usage = func() {
		fmt.Fprint(set.Output(), `usage: lab fleet [FLAG...] RESULTS...

Says which nodes have the same facts, and how the others differ from them, the odd ones first. RESULTS are directories of results,
facts.json files, directories that have many of them, or streams: a file or - (stdin) with the lines that `+"`lab facts`"+` prints, also
between other lines of a log.
The exit code is 0 if all nodes have the same facts, 1 if they differ, and 2 if a result could not be compared.

`)
		set.PrintDefaults()
	}
	_ = set.Parse(args)
	if set.NArg() == 0 {
		set.Usage()
		return exitNotCompared
	}
	cache := &results.Cache{}
	nodes, problems := fleet.Read(cache, os.Stdin, set.Args()...)
	if n := fleet.Count(nodes); *expect > 0 && n != *expect {
		read := fmt.Sprintf("expected the results of %d nodes, and read those of %d", *expect, n)
		if n < len(nodes) {
			read += fmt.Sprintf(" (%d results: some nodes have several)", len(nodes))
		}
		problems = append(problems, fleet.Problem{Nodes: set.Args(), Text: read + "\n" +
			"  what to do: see which node has sent none, and what the run has printed there"})
	}
	f := fleet.New(cache, nodes, *common, problems...)
	if err := errors.Join(fleet.WriteText(os.Stdout, f), writeFleet(*out, f)); err != nil {
		logf("fleet: %v", err)
		return exitNotCompared
	}
	fmt.Printf("\npage: %s\ntables: %s %s\n", filepath.Join(*out, "index.html"), filepath.Join(*out, "nodes.csv"),
		filepath.Join(*out, "differences.csv"))
	switch {
	case len(f.Problems) > 0 || f.Nodes == 0:
		return exitNotCompared
	case !f.Equal():
		return exitDifferent
	}
	return exitSame
}

func writeFleet(dir string, f *fleet.Fleet) error {
	var errs []error
	for name, write := range map[string]func(io.Writer, *fleet.Fleet) error{
		"index.html": fleet.WriteHTML, "nodes.csv": fleet.WriteNodes, "differences.csv": fleet.WriteDifferences,
	} {
		errs = append(errs, createFile(filepath.Join(dir, name), func(w io.Writer) error { return write(w, f) }))
	}
	return errors.Join(errs...)
}

// factsMain prints the facts of a run as one line, for a log in which lab fleet finds it.
func factsMain(args []string) int {
	hostname, _ := os.Hostname()
	set := flag.NewFlagSet("lab facts", flag.ExitOnError)
	node := set.String("node", hostname, "the `name` of the node")
	set.Usage = func() {
		fmt.Fprintln(set.Output(), "usage: lab facts [-node NAME] [DIR]   prints the facts of a run as one line, for lab fleet; "+
			"the default is the last run")
		set.PrintDefaults()
	}
	_ = set.Parse(args)
	dir := filepath.Join(resultsDir(), results.Latest)
	if set.NArg() > 0 {
		dir = set.Arg(0)
	}
	if set.NArg() > 1 || *node == "" {
		set.Usage()
		return 2
	}
	facts, err := os.ReadFile(filepath.Join(dir, results.FactsFile))
	if err == nil {
		err = fleet.WriteLine(os.Stdout, *node, facts)
	}
	if err != nil {
		logf("facts of %s: %v\n  what to do: name a directory of results; lab report makes the file again from the stream", dir, err)
		return 1
	}
	return 0
}
