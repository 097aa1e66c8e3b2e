package trial

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"cdblab/helpers/results"
)

// A Finding is what the questions say that are expected to notice a fault.
type Finding string

// The findings.
const (
	Noticed   Finding = "noticed"   // one of them failed, with the message
	Otherwise Finding = "otherwise" // one of them failed, with other messages only
	Green     Finding = "green"     // all of them passed
	NotShown  Finding = "not shown" // one of them was skipped, and none failed
	Missing   Finding = "missing"   // the run has not asked one of them
)

// Expect reports whether the questions of some tests have noticed a fault: one of them has to fail with a message that matches. It
// returns the message, or why no question has failed with it. A question that was skipped does not hide what another one says.
func Expect(run *results.Run, tests []string, message *regexp.Regexp) (Finding, string) {
	var others []string
	skipped := ""
	for _, name := range tests {
		q := run.Question(name)
		switch {
		case q == nil:
			return Missing, "no question has the name " + name
		case q.Verdict == results.Skipped:
			skipped = cmp.Or(skipped, SkipReason(q))
			continue
		case q.Verdict == results.Answered:
			continue
		}
		messages := q.Messages()
		if i := slices.IndexFunc(messages, message.MatchString); i >= 0 {
			return Noticed, messages[i]
		}
		others = append(others, messages...)
	}
	if len(others) > 0 {
		return Otherwise, fmt.Sprintf("expected a failure that matches %q, and these are others: %s", message, strings.Join(others, "\n"))
	}
	if skipped != "" {
		return NotShown, skipped
	}
	return Green, ""
}

// SkipReason returns why a question was skipped.
func SkipReason(q *results.Question) string {
	for _, s := range q.Skips() {
		if s.Reason != "" {
			return s.Reason
		}
	}
	return "skipped"
}

// FirstFailed returns the question that failed first. If none did, it returns the first one that did not end.
func FirstFailed(run *results.Run) *results.Question {
	var first *results.Question
	for _, q := range run.Questions {
		end := q.Begin.Add(q.Elapsed)
		if q.Verdict == results.Failed && (first == nil || end.Before(first.Begin.Add(first.Elapsed))) {
			first = q
		}
	}
	if first != nil {
		return first
	}
	for _, q := range run.Questions {
		if last := q.Steps[len(q.Steps)-1]; q.Verdict == results.Unfinished && last.Number > 0 {
			return q
		}
	}
	return nil
}

// Failure returns the message of a question that failed. A message that begins like an assertion's is preferred to what the
// question has only logged.
func Failure(q *results.Question) string {
	messages := q.Messages()
	for _, m := range messages {
		if strings.Contains(m, "assertion failed") || strings.Contains(m, "timeout hit") {
			return m
		}
	}
	for _, l := range q.Logs {
		if l.Kind == "error" {
			return l.At + ": " + l.Text
		}
	}
	if len(messages) > 0 {
		return messages[len(messages)-1]
	}
	return "it printed no message"
}

// Short returns a message as one line for a table on a terminal.
func Short(message string) string {
	const width = 120
	line := []rune(strings.Join(strings.Fields(message), " "))
	if len(line) > width {
		return string(line[:width-1]) + "…"
	}
	return string(line)
}
