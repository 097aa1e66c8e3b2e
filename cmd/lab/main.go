// Command lab does what go test does not: it runs test binaries in a throw-away VM, and gives a shell in one.
package main

import (
	"fmt"
	"os"
)

// commands are the subcommands. Each returns the exit code.
var commands = map[string]struct {
	run   func(args []string) int
	about string
}{
	"exec":  {execMain, "run a test binary in the VM: go test -exec 'lab exec' …"},
	"shell": {shellMain, "a shell in the VM, with the tools and a bundle"},
}

func main() {
	if len(os.Args) > 1 {
		if c, ok := commands[os.Args[1]]; ok {
			os.Exit(c.run(os.Args[2:]))
		}
	}
	fmt.Fprintln(os.Stderr, "usage: lab COMMAND [ARGUMENT...]")
	for _, name := range []string{"exec", "shell"} {
		fmt.Fprintf(os.Stderr, "  %-9s %s\n", name, commands[name].about)
	}
	os.Exit(2)
}
