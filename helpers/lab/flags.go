//go:build linux

package lab

import (
	"flag"
	"regexp"
	"slices"
	"strings"

	"cdblab/helpers/syllabus"
)

// isSet reports whether a flag of go test has another value than its zero value.
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

// countMatching counts the questions that -run and -skip select. It uses the part of the patterns that selects tests, not the
// part that selects subtests.
func countMatching(all []syllabus.Question) int {
	n := 0
	for _, q := range all {
		if matches("test.run", q.Test, true) && !matches("test.skip", q.Test, false) {
			n++
		}
	}
	return n
}

// matches reports whether the pattern of a flag matches the name of a test, or ifUnset where the flag is not set.
func matches(flagName, test string, ifUnset bool) bool {
	if !isSet(flagName) {
		return ifUnset
	}
	pattern, _, _ := strings.Cut(flag.Lookup(flagName).Value.String(), "/")
	re, err := regexp.Compile(pattern)
	return err == nil && re.MatchString(test)
}
