//go:build linux

package main

import (
	"fmt"
	"os"

	"cdblab/helpers/syllabus"
)

// syllabusMain lists the questions.
func syllabusMain([]string) int {
	questions, err := syllabus.Read(os.DirFS("."))
	if err != nil {
		say("%v\n  run it in the lab's own directory", err)
		return 1
	}
	fmt.Print(syllabus.Text(questions))
	return 0
}
