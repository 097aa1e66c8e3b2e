//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"cdblab/helpers/dist"
	"cdblab/helpers/doctor"
	"cdblab/helpers/results"
	"cdblab/helpers/signals"
)

// tarballCommands are the subcommands of the program in the tarball of make dist. They need no checkout.
func tarballCommands(tree dist.Tree) []command {
	return []command{
		{"run", "ask the questions of this machine's runc, containerd, ctr and shim", func(args []string) int { return tarballRun(tree, args) }},
		{"syllabus", "list the questions; with -a, and their answers", syllabusMain},
		{"doctor", "check what a run needs", func([]string) int { return tarballDoctor(tree) }},
		{"compare", "say what differs between the results of two runs", compareMain},
		{"fleet", "say which nodes of a fleet differ, and how", fleetMain},
		{"facts", "print the facts of a run as one line, for cdblab fleet", factsMain},
		{"report", "make the results of a run again from its stream", reportMain},
		{"sweep", "remove the leftovers of killed runs, and kept runs, from this machine", sweepMain},
		{"exec", "run the questions in a throw-away VM; run -disk starts it", execMain},
		{"ask", "run the questions, with the flags of a test binary; in a VM, run -disk starts it",
			func(args []string) int { return askMain(tree, args) }},
		{"version", "print what this program was built from", func([]string) int { fmt.Println(tree.Version()); return 0 }},
	}
}

// resultsDir returns the directory of the results of all runs.
func resultsDir() string {
	if _, ok := dist.Find(); ok {
		return "cdblab-results"
	}
	return results.Dir
}

// chapter returns the source of the questions.
func chapter() fs.FS {
	if tree, ok := dist.Find(); ok {
		return os.DirFS(tree.Chapter())
	}
	return os.DirFS(".")
}

// tarballRun asks the questions with the test binary of the tarball.
func tarballRun(tree dist.Tree, args []string) int {
	var f diskFlags
	set := flag.NewFlagSet("cdblab run", flag.ExitOnError)
	f.add(set)
	pinned := set.Bool("pinned", false, "ask about the programs in "+dist.BinDir+"/, and not about those of the machine")
	disk := set.String("disk", os.Getenv("CDB_DISK"), "ask in a throw-away VM that boots this disk `image`; needs QEMU, and no root")
	out := set.String("o", resultsDir(), "the `directory` of the results of all runs")
	set.Usage = func() {
		fmt.Fprintln(set.Output(), "usage: cdblab run [FLAG...]   asks the questions, as root, on this machine, which must be disposable")
		set.PrintDefaults()
	}
	_ = set.Parse(args)
	if set.NArg() > 0 {
		set.Usage()
		return 2
	}
	if err := tree.Verify(); err != nil {
		logf("%v", err)
		return 1
	}
	if *disk != "" {
		f.conf.Disk, f.conf.Tarball, f.conf.Pinned = *disk, string(tree), *pinned
		return f.run(tree.Test2JSON(), tree.Program(), *out)
	}
	if os.Getenv("CDB_STEP") == "1" { // the reader at the terminal talks to the questions themselves
		return askMain(tree, []string{fmt.Sprintf("-pinned=%v", *pinned), "--", "-test.v", "-test.timeout=0", "-test.run=" + f.questions})
	}
	choose(tree, *pinned)
	r, err := newLabRun(*out, func(dir string) ([]string, error) {
		dir, err := filepath.Abs(dir)
		argv := []string{tree.Test2JSON(), "-t", "-p", "cdblab", tree.TestBinary(), "-test.v=test2json", "-test.paniconexit0",
			"-test.timeout=" + f.timeout.String(), "-test.run=" + f.questions, "-test.artifacts", "-test.outputdir=" + dir}
		return argv, errors.Join(err, os.MkdirAll(filepath.Join(dir, "_artifacts"), 0o755))
	})
	if err != nil {
		logf("%v", err)
		return 1
	}
	r.workDir = tree.WorkDir()
	return r.do("starting the questions", f.verbose, f.junit)
}

// choose chooses the programs that the questions are asked about, and says which.
func choose(tree dist.Tree, pinned bool) {
	ctx, stop := signal.NotifyContext(context.Background(), signals.Stop()...)
	defer stop()
	choices := tree.Choose(ctx, pinned)
	fmt.Print(dist.Describe(tree.Version(), choices))
	for _, variable := range tree.Environ(choices) {
		name, value, _ := strings.Cut(variable, "=")
		os.Setenv(name, value)
	}
}

// tarballDoctor checks what a run of the tarball needs. The exit code is 1 if it would fail.
func tarballDoctor(tree dist.Tree) int {
	ctx, stop := signal.NotifyContext(context.Background(), signals.Stop()...)
	defer stop()
	group := doctor.Here()
	group.Title = "On this machine (sudo ./cdblab run)"
	group.Checks = append([]doctor.Check{
		{Name: "tarball", Run: func(context.Context) (string, error) { return tree.Version(), tree.Verify() }, Else: doctor.Missing},
	}, group.Checks...)
	fmt.Print(dist.Describe("", tree.Choose(ctx, false)))
	if count := doctor.Print(os.Stdout, group.Title, group.Run(ctx)); count[doctor.Missing] > 0 {
		fmt.Printf("a run would fail: %d missing\n", count[doctor.Missing])
		return 1
	}
	fmt.Println("a run would work")
	return 0
}
