//go:build linux

// Command lab runs tests in a throw-away VM, and has further commands that go test does not have.
package main

import (
	"fmt"
	"os"
	"strings"

	"cdblab/helpers/dist"
	"cdblab/helpers/howto"
	"cdblab/helpers/tools"
)

// command is a subcommand. It returns the exit code.
type command struct {
	name, help string
	run        func(args []string) int
}

// commands are the subcommands in a checkout.
var commands = []command{
	{"run", "run go test, show the run while it goes on, and store its results: make lab, make lab-here", runMain},
	{"report", "make the results of a run again from its stream: lab report [DIR|STREAM]", reportMain},
	{"exec", "run a test binary in a throw-away VM: go test -exec 'lab exec' …", execMain},
	{"disk", "run the questions in a throw-away VM that boots a disk image: make lab DISK=node.qcow2", diskMain},
	{"shell", "run a shell in a throw-away VM that has the tools and the chapter's bundle", shellMain},
	{"sweep", "remove the leftovers of killed runs, and kept runs, from this machine", sweepMain},
	{"syllabus", "list the questions", syllabusMain},
	{"watch", "run a command again each time when a Go file of the module has changed", watchMain},
	{"compare", "say what differs between two runs", compareMain},
	{"matrix", "make a table of what differs between many runs", matrixMain},
	{"fleet", "say which nodes of a fleet differ, and how", fleetMain},
	{"facts", "print the facts of a run as one line, for lab fleet", factsMain},
	{"steady", "run a test binary many times, shuffled, and print which tests failed in which run", steadyMain},
	{"mutants", "make mutants of a pinned program, run the lab against each, and list those that no question notices", mutantsMain},
	{"sabotage", "check that each lie of a program under test is caught by the question whose promise it breaks", sabotageMain},
	{"confine", "run a command as root in namespaces and cgroups of its own; lab mutants and lab sabotage start it", confineMain},
	{"released", "check that the lab is red with released bugs, and green with their fixes: make released", releasedMain},
	{"busy", "keep a CPU or the disk busy; lab steady starts it", busyMain},
	{"tools", "build the pinned programs that are missing or stale, into .lab/bin; the same as make tools", toolsMain},
	{"releases", "build the earlier releases that questions use beside the programs under test; the same as make releases", releasesMain},
	{"release", "run a command that tests other releases: lab release RUNC=1.2.5 CONTAINERD=1.7.29 go test …", releaseMain},
	{"doctor", "check what a run needs, and say which command provides what is missing", doctorMain},
	{"dist", "make the tarball for a machine without Go and without a network: make dist", distMain},
	{"node", "make a bootable disk image of a node from Debian's packages, and print its path: make disk", nodeMain},
	{"deps", "list the missing packaged programs; make deps installs them", depsMain},
}

func main() {
	for _, level := range tools.Levels { // for each go that this program starts
		name, value, _ := strings.Cut(level, "=")
		os.Setenv(name, value)
	}
	program, commands := "lab", commands
	if tree, ok := dist.Find(); ok {
		program, commands = dist.Program, tarballCommands(tree)
		os.Setenv(howto.Env, tree.Program())
		logPrefix = program
	}
	if len(os.Args) > 1 {
		for _, c := range commands {
			if c.name == os.Args[1] {
				os.Exit(c.run(os.Args[2:]))
			}
		}
	}
	fmt.Fprintf(os.Stderr, "usage: %s COMMAND [ARGUMENT...]\n", program)
	for _, c := range commands {
		fmt.Fprintf(os.Stderr, "  %-9s %s\n", c.name, c.help)
	}
	os.Exit(2)
}
