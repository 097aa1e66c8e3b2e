//go:build linux

package main

import (
	"fmt"
	"os"

	"cdblab/helpers/syllabus"
)

// syllabusMain prints the list of questions.
func syllabusMain([]string) int {
	questions, err := syllabus.Read(os.DirFS("."))
	if err != nil {
		logf("%v\n  run this command in the root directory of the module cdblab", err)
		return 1
	}
	fmt.Print(syllabus.Text(questions))
	return 0
}
