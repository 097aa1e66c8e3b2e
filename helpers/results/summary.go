package results

import (
	"fmt"
	"io"
	"strings"
)

// Bounds of a summary: GitHub drops one of more than 1 MiB, and a runtime that is broken fails every question.
const (
	maxMessage  = 60        // lines of a message
	maxColumns  = 1000      // bytes of a line
	maxMessages = 600 << 10 // bytes of all messages
)

// WriteSummary writes a run as Markdown for the page of a CI job: what was tested, how many questions have which verdict, what
// failed, what was skipped, and which clauses of the specification are not met.
func WriteSummary(w io.Writer, run *Run) error {
	var b strings.Builder
	fmt.Fprintf(&b, "## cdblab: %s\n\n", run.Headline())
	for _, p := range run.Problems {
		fmt.Fprintf(&b, "> **The results are incomplete.** %s\n\n", markdown(p))
	}
	for _, r := range run.Remarks {
		fmt.Fprintf(&b, "> %s\n\n", markdown(r))
	}
	writeStack(&b, run.Stack)
	writeFailures(&b, run)
	writeSkips(&b, run)
	if notMet := run.NotMet(); len(notMet) > 0 {
		fmt.Fprintf(&b, "### Clauses of the runtime specification that are not met\n\n")
		for _, c := range notMet {
			fmt.Fprintf(&b, "* %s  \n  Seen: %s\n", markdown(c.Text), markdown(c.Seen))
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func writeStack(b *strings.Builder, s *Stack) {
	if s == nil {
		b.WriteString("No question was begun, so the programs under test are not known.\n\n")
		return
	}
	b.WriteString("| under test | version |\n|---|---|\n")
	fmt.Fprintf(b, "| kernel | %s %s, cgroup %s |\n", markdown(s.Kernel), markdown(s.Machine), markdown(s.Cgroup))
	for _, p := range s.Programs {
		version := markdown(p.Version)
		if p.Pinned {
			version += " (pinned)"
		}
		fmt.Fprintf(b, "| %s | %s |\n", markdown(p.Name), version)
	}
	b.WriteByte('\n')
}

// writeFailures writes the questions that failed, or have no verdict. If the run failed for a reason that is not in its questions, or
// if it ended before a question, it writes the last output.
func writeFailures(b *strings.Builder, run *Run) {
	found := false
	for _, q := range run.Asked() {
		if q.Verdict != Failed && q.Verdict != Unfinished {
			continue
		}
		if !found {
			b.WriteString("### Failures\n\n")
		}
		found = true
		fmt.Fprintf(b, "**%s** (%s, %s)\n\n", markdown(q.Text), code(q.Test), q.Verdict)
		switch messages := q.Messages(); {
		case len(messages) > 0 && b.Len() > maxMessages:
			fmt.Fprintf(b, "Its messages are in %s.\n\n", NotebookFile)
		case len(messages) > 0:
			fence(b, strings.Join(messages, "\n"))
		}
	}
	ofQuestions := found && run.Verdict == Failed && len(run.Problems) == 0 && run.Count(Unfinished) == 0 && !run.FailedAtEnd
	if run.Verdict == Answered || ofQuestions {
		return
	}
	if last := run.lastOutput(); len(last) > 0 {
		b.WriteString("### The last lines of the output\n\n")
		fence(b, strings.Join(last, "\n"))
	}
}

func writeSkips(b *strings.Builder, run *Run) {
	var skips []Skip
	for _, q := range run.Asked() {
		skips = append(skips, q.Skips()...)
	}
	if len(skips) == 0 {
		return
	}
	b.WriteString("### Skipped, with the reason\n\n")
	for _, s := range skips {
		fmt.Fprintf(b, "* %s  \n  %s\n", code(s.Test), markdown(s.Reason))
	}
	b.WriteByte('\n')
}

// fence writes text as it is. The fence is longer than any run of backticks in the text, so nothing in it ends the block.
func fence(b *strings.Builder, text string) {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if more := len(lines) - maxMessage; more > 0 {
		lines = append(lines[:maxMessage], fmt.Sprintf("… %d more lines: see %s", more, StreamFile))
	}
	for i, line := range lines {
		lines[i] = beginning(line)
	}
	marks := strings.Repeat("`", max(3, longestRun(text)+1))
	fmt.Fprintf(b, "%s\n%s\n%s\n\n", marks, strings.Join(lines, "\n"), marks)
}

// code returns a name as code.
func code(s string) string {
	marks := strings.Repeat("`", longestRun(s)+1)
	return marks + oneLine(s) + marks
}

// markdown returns text in which nothing is markup, on one line.
func markdown(s string) string {
	var b strings.Builder
	for _, c := range oneLine(s) {
		if strings.ContainsRune("\\`*_{}[]<>#|~!&@$", c) {
			b.WriteByte('\\')
		}
		b.WriteRune(c)
	}
	return b.String()
}

func oneLine(s string) string { return beginning(strings.Join(strings.Fields(s), " ")) }

// beginning returns as much of a line as a summary shows.
func beginning(line string) string {
	if len(line) <= maxColumns {
		return line
	}
	return strings.ToValidUTF8(line[:maxColumns], "") + " …"
}

// longestRun returns the length of the longest run of backticks.
func longestRun(s string) int {
	longest, n := 0, 0
	for _, c := range s {
		if n++; c != '`' {
			n = 0
		}
		longest = max(longest, n)
	}
	return longest
}
