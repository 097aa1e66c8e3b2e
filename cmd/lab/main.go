//go:build linux

// Command lab does for the lab what go test does not.
package main

import (
	"fmt"
	"os"
)

// commands are the subcommands. Each returns the exit code.
var commands = []struct {
	name, about string
	run         func(args []string) int
}{
	{"exec", "run a test binary in a throw-away VM: go test -exec 'lab exec' …", execMain},
	{"shell", "a prompt in such a VM, with the tools and a bundle", shellMain},
	{"sweep", "remove what killed or kept runs left on this host", sweepMain},
	{"syllabus", "list the questions", syllabusMain},
	{"deps", "list the distribution's programs that are missing; make deps installs them", depsMain},
}

func main() {
	if len(os.Args) > 1 {
		for _, c := range commands {
			if c.name == os.Args[1] {
				os.Exit(c.run(os.Args[2:]))
			}
		}
	}
	fmt.Fprintln(os.Stderr, "usage: lab COMMAND [ARGUMENT...]")
	for _, c := range commands {
		fmt.Fprintf(os.Stderr, "  %-9s %s\n", c.name, c.about)
	}
	os.Exit(2)
}
