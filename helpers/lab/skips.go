//go:build linux

package lab

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// MaySkip is a question, or a subtest of one, that some machines cannot answer. With CDB_REQUIRE=all, a skip that no entry has
// fails the run: so a CI notices when it answers less than before.
type MaySkip struct {
	Test   string // a regular expression that matches the whole name, as go test prints it: TestTask_X/subtest
	Says   string // a regular expression that matches the reason of the skip: for another reason it is a failure
	Reason string // what the machine lacks
}

// skips are the questions and subtests that were skipped in this run.
type skips struct {
	mu  sync.Mutex
	all []skip
}

type skip struct{ test, reason string }

func (s *skips) add(test, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, skip{test, strings.TrimSpace(reason)})
}

func (s *skips) sorted() []skip {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.SortedFunc(slices.Values(s.all), func(a, b skip) int { return strings.Compare(a.test, b.test) })
}

// print prints what was skipped, and why.
func (s *skips) print() {
	if all := s.sorted(); len(all) > 0 {
		fmt.Println("cdblab: skipped, with the reason:")
		for _, skip := range all {
			fmt.Printf("  %s\n    %s\n", skip.test, strings.ReplaceAll(skip.reason, "\n", "\n    "))
		}
	}
}

// verify returns an error for each skip that the table does not have, if CDB_REQUIRE=all demands that.
func (s *skips) verify(table []MaySkip) error {
	if os.Getenv(requireEnv) != "all" {
		return nil
	}
	var errs []error
	for _, skip := range s.sorted() {
		listed := slices.ContainsFunc(table, func(may MaySkip) bool {
			test, testErr := regexp.Compile("^(" + may.Test + ")$")
			says, saysErr := regexp.Compile("(?s)" + may.Says)
			if err := errors.Join(testErr, saysErr); err != nil {
				errs = append(errs, fmt.Errorf("the table of skips has no regular expression: %w", err))
				return false
			}
			return test.MatchString(skip.test) && says.MatchString(skip.reason)
		})
		if !listed {
			errs = append(errs, fmt.Errorf("%s was skipped, and %s=all demands an answer: %s\n"+
				"  Give the machine what it lacks, or add the question and the reason to the table in skips_test.go",
				skip.test, requireEnv, skip.reason))
		}
	}
	return errors.Join(errs...)
}
