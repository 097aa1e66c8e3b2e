//go:build linux

package main

import (
	"flag"
	"fmt"

	"cdblab/helpers/syllabus"
)

// syllabusMain prints the list of questions.
func syllabusMain(args []string) int {
	set := flag.NewFlagSet("lab syllabus", flag.ExitOnError)
	answers := set.Bool("a", false, "print the answers as well")
	_ = set.Parse(args)
	questions, err := syllabus.Read(chapter())
	if err != nil {
		logf("%v\n  run this command in the root directory of the module cdblab", err)
		return 1
	}
	if *answers {
		fmt.Print(syllabus.TextWithAnswers(questions))
	} else {
		fmt.Print(syllabus.Text(questions))
	}
	return 0
}
