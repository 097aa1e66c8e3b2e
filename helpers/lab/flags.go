//go:build linux

package lab

import (
	"flag"
	"regexp"
	"slices"
	"strings"

	"cdblab/helpers/syllabus"
)

// isSet reports whether a flag of go test has a value other than its zero value.
func isSet(name string) bool {
	f := flag.Lookup(name)
	return f != nil && !slices.Contains([]string{"", "false"}, f.Value.String())
}

// isGiven reports whether a flag is on the command line.
func isGiven(name string) bool {
	found := false
	flag.Visit(func(f *flag.Flag) { found = found || f.Name == name })
	return found
}

// countMatching counts the questions that -run and -skip select. It looks at the part of the patterns that names tests,
// not at the part that names subtests.
func countMatching(all []syllabus.Question) int {
	n := 0
	for _, q := range all {
		if matches("test.run", q.Test, true) && !matches("test.skip", q.Test, false) {
			n++
		}
	}
	return n
}

func matches(name, test string, unset bool) bool {
	if !isSet(name) {
		return unset
	}
	pattern, _, _ := strings.Cut(flag.Lookup(name).Value.String(), "/")
	re, err := regexp.Compile(pattern)
	return err == nil && re.MatchString(test)
}
