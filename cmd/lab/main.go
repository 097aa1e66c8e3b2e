//go:build linux

// Command lab does for the lab what go test does not.
//
//	lab sweep      remove what killed or kept runs left on this host
//	lab syllabus   list the questions
package main

import (
	"fmt"
	"os"

	"cdblab/helpers/host"
	"cdblab/helpers/syllabus"
)

func main() {
	commands := map[string]func() error{"sweep": sweep, "syllabus": list}
	if len(os.Args) != 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: lab sweep | syllabus")
		os.Exit(2)
	}
	if err := commands[os.Args[1]](); err != nil {
		fmt.Fprintf(os.Stderr, "lab %s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
}

// sweep removes every run that is not under way, also those that were kept.
func sweep() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("what the lab leaves belongs to root; you are uid %d. Run: sudo make sweep", os.Geteuid())
	}
	swept, err := host.Sweep(true)
	for _, s := range swept {
		fmt.Println("swept", s)
	}
	if err == nil && len(swept) == 0 {
		fmt.Println("nothing to sweep")
	}
	return err
}

func list() error {
	questions, err := syllabus.Read(os.DirFS("."))
	if err != nil {
		return fmt.Errorf("%w (run it in the lab's own directory)", err)
	}
	fmt.Print(syllabus.Text(questions))
	return nil
}
