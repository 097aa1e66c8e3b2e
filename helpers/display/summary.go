package display

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"cdblab/helpers/results"
	"cdblab/helpers/syllabus"
)

// of returns what is shown when a question has ended. Of a question that failed this is everything.
func (s style) of(q *results.Question, verbose bool) []string {
	switch {
	case q.Verdict == results.Failed:
		return s.failure(q)
	case q.Text == "":
		return nil // a test that asks no question
	case verbose:
		return append(s.ended(q), s.notes(q)...)
	}
	return s.ended(q)
}

// summary returns the end of a display: the five questions of the chapter; what was skipped; what failed, in full; the numbers.
func (s style) summary(run *results.Run, skipped []string, where string) []string {
	var out []string
	heading := func(format string, args ...any) {
		out = append(out, "", s.bold(fmt.Sprintf(format, args...)), "")
	}
	if chapter := chapter(run); 0 < len(chapter) && len(chapter) < len(run.Questions) {
		heading("The questions of the chapter")
		for _, q := range chapter {
			out = append(out, s.ended(q)...)
		}
	}
	if len(skipped) > 0 {
		title := "What was skipped, and why"
		if slices.ContainsFunc(skipped, func(line string) bool { return partOfQuestion.MatchString(line) }) {
			title += " (a name with / is a part of a question)" // the numbers at the end count both
		}
		heading("%s", title)
		for _, line := range skipped {
			out = append(out, s.folded(line)...)
		}
	}
	if bad := failed(run); len(bad) > 0 {
		heading("What failed")
		for _, q := range bad {
			out = append(out, s.failure(q)...)
		}
	}
	if len(run.LastWords) > 0 && run.Count(results.Unfinished) > 0 {
		// They were shown before what failed, perhaps hundreds of lines ago. Many CI systems keep only the end of a log.
		heading("Why the run ended before all questions did")
		out = append(out, run.LastWords...)
	}
	out = append(out, "")
	for _, problem := range slices.Concat(run.Problems, run.Remarks) {
		out = append(out, s.indented(problem, 0)...)
	}
	out = append(out, s.total(run)...)
	out = append(out, s.closing(run))
	if where != "" {
		out = append(out, "results: "+where)
	}
	return out
}

// failed returns what failed in a run: also a test that ended before it asked its question, and a question without a verdict.
func failed(run *results.Run) []*results.Question {
	var out []*results.Question
	for _, q := range run.Questions {
		if q.Verdict == results.Failed || q.Verdict == results.Unfinished && q.Text != "" {
			out = append(out, q)
		}
	}
	return out
}

// chapter returns the questions of the run that the chapter itself asks, in its order.
func chapter(run *results.Run) []*results.Question {
	var out []*results.Question
	for _, test := range syllabus.Chapter {
		if q := run.Question(test); q != nil && q.Text != "" {
			out = append(out, q)
		}
	}
	return out
}

// total returns the numbers of the run, and what is wrong with it besides its questions. Of a stream that ends before the run, the
// problems of the run have told that already.
func (s style) total(run *results.Run) []string {
	questions, waiting, facts, controls := 0, 0, 0, 0
	for _, q := range run.Questions {
		switch {
		case q.Text != "":
			questions++
		case q.Verdict == results.Unfinished:
			waiting++
		}
		facts += len(q.Facts())
		controls += q.Controls()
	}
	out := s.indented(fmt.Sprintf("%s in %s: %s, %s.", count(questions, "question"), duration(run.End.Sub(run.Begin)),
		count(facts, "fact"), count(controls, "control")), 0)
	if n := run.Count(results.Unfinished); n > 0 && run.Verdict != results.Unfinished {
		out = append(out, s.indented(fmt.Sprintf("%s without a verdict: the run ended first. They count as failed.", count(n, "question")), 0)...)
	}
	if waiting > 0 && run.Verdict != results.Unfinished {
		out = append(out, s.indented(fmt.Sprintf("%s had no turn: the run ended first.", count(waiting, "question")), 0)...)
	}
	if run.Verdict == results.Failed && len(failed(run)) == 0 {
		out = append(out, s.indented("The run failed, but no question did. The lines above say why.", 0)...)
	}
	return out
}

// closing returns the line that programs look for.
func (s style) closing(run *results.Run) string {
	line := fmt.Sprintf("%d passed, %d failed", run.Count(results.Answered), len(failed(run)))
	if n := run.Count(results.Skipped); n > 0 {
		line += fmt.Sprintf(", %d skipped", n)
	}
	if n := run.SkippedParts(); n > 0 {
		line += ", " + count(n, "part") + " skipped"
	}
	if run.Verdict == results.Answered && len(run.Problems) == 0 { // with a problem the exit code is not 0
		return s.green(line)
	}
	return s.red(line)
}

// partOfQuestion matches the line of a skip that names a subtest.
var partOfQuestion = regexp.MustCompile(`^\s*Test\w+/`)

// version matches the version in the line that a program prints of itself.
var version = regexp.MustCompile(`\b[vV]?\d+\.\d+[^\s,)]*`)

// stack returns what is under test.
func (s style) stack(stack *results.Stack) []string {
	var parts []string
	last := ""
	for _, p := range stack.Programs {
		v := strings.TrimSuffix(version.FindString(p.Version), "+unknown")
		if v == last && p.Pinned {
			continue // containerd, ctr and the shim are of one release
		}
		last = v
		part := p.Name + " " + v
		if !p.Pinned && p.Name != "busybox" {
			part += " (" + p.Path + ")"
		}
		parts = append(parts, part)
	}
	parts = append(parts, "kernel "+stack.Kernel+" "+stack.Machine, "cgroup "+stack.Cgroup)
	return append(s.indented("under test: "+strings.Join(parts, ", "), 0), "")
}
