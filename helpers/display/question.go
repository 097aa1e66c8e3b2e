package display

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"cdblab/helpers/howto"
	"cdblab/helpers/results"
)

// section is the width of the column of sections. The longest one is Lifecycle.
const section = 10

// widest is the width in which the line of a question with a long text fits. In a wider terminal the numbers would be far away
// from the text.
const widest = 112

// ended returns the lines of a question that has ended: section, question, verdict, time, number of facts and controls.
func (s style) ended(q *results.Question) []string {
	text := q.Text
	if text == "" {
		text = q.Test
	}
	if s.width == 0 {
		line := fmt.Sprintf("%-8s  %s%s", word(q), pad(q.Section(), section), text)
		if n := numbers(q); len(n) > 0 {
			line += "  (" + strings.Join(n, ", ") + ")"
		}
		return append([]string{line}, s.reason(q)...)
	}
	result := strings.Join(numbers(q), ", ")
	switch {
	case q.Verdict != results.Answered:
		result = strings.Join(append([]string{word(q)}, numbers(q)...), ", ")
	case s.width >= 100:
		result = columns(numbers(q))
	}
	const indent = 2 + section
	room := min(s.width, widest) - 1 - indent
	var lines []string
	if beside := room - 2 - len(result); beside >= 24 {
		lines = wrap(text, beside)
		lines[0] = pad(lines[0], beside+2) + s.verdict(q, result)
	} else {
		lines = wrap(text, room)
		for _, line := range wrap(result, room) {
			lines = append(lines, s.verdict(q, line))
		}
	}
	for i := range lines[1:] {
		lines[i+1] = strings.Repeat(" ", indent) + lines[i+1]
	}
	lines[0] = s.mark(q.Verdict) + " " + pad(q.Section(), section) + lines[0]
	return append(lines, s.reason(q)...)
}

// reason returns why a question was skipped, and how to mend that.
func (s style) reason(q *results.Question) []string {
	var out []string
	for _, l := range q.Logs {
		if q.Verdict == results.Skipped && l.Kind == "skip" {
			out = append(out, s.indented(l.Text, 2+section)...)
		}
	}
	return out
}

// word is the verdict in a word. What did not pass is written so that it is found in a long log.
func word(q *results.Question) string {
	switch q.Verdict {
	case results.Failed:
		return "FAILED"
	case results.Unfinished:
		return "NO VERDICT"
	}
	return string(q.Verdict)
}

// mark is a verdict as a sign.
func (s style) mark(v results.Verdict) string {
	switch v {
	case results.Answered:
		return s.green("✓")
	case results.Skipped:
		return s.yellow("–")
	}
	return s.red("✗")
}

// verdict gives a text the colour of a question's verdict.
func (s style) verdict(q *results.Question, text string) string {
	switch q.Verdict {
	case results.Answered:
		return s.faint(text)
	case results.Skipped:
		return s.yellow(text)
	}
	return s.red(text)
}

// numbers are the time, if the question has ended, and the numbers of facts and controls if the question has any.
func numbers(q *results.Question) []string {
	var out []string
	if q.Verdict != results.Unfinished {
		out = append(out, duration(q.Elapsed))
	}
	if n := len(q.Facts()); n > 0 {
		out = append(out, count(n, "fact"))
	}
	if n := q.Controls(); n > 0 {
		out = append(out, count(n, "control"))
	}
	return out
}

// columns returns the numbers of a question so that those of several questions stand below each other.
func columns(numbers []string) string {
	for len(numbers) < 3 {
		numbers = append(numbers, "")
	}
	return fmt.Sprintf("%6s  %9s  %-10s", numbers[0], numbers[1], numbers[2])
}

// message matches the first line of a message of a test, as go test prints it.
var message = regexp.MustCompile(`^    \S+\.go:\d+: `)

// notes returns what a question has printed: its notes, with the messages in their places. An arrow stands before each message.
func (s style) notes(q *results.Question) []string {
	var out []string
	for _, line := range shorten(q.Output) {
		parts := s.folded(strings.TrimRight(line, " "))
		if message.MatchString(line) {
			parts[0] = "  > " + parts[0][4:]
			for i := range parts {
				parts[i] = s.red(parts[i])
			}
		}
		out = append(out, parts...)
	}
	return append(out, "")
}

// maxStacks is how many lines of the stacks of a panic are shown. The first goroutine has panicked, and a run that was too slow has
// hundreds of others.
const maxStacks = 40

// shorten cuts the stacks of a panic.
func shorten(output []string) []string {
	i := slices.IndexFunc(output, func(line string) bool {
		return strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") || strings.HasPrefix(line, "SIGQUIT: ")
	})
	if i < 0 || len(output) <= i+maxStacks {
		return output
	}
	more := len(output) - i - maxStacks
	return append(slices.Clone(output[:i+maxStacks]), fmt.Sprintf("… %d more lines are in the results, in %s", more, results.StreamFile))
}

// failure returns all that is known of a question that failed, or that has no verdict.
func (s style) failure(q *results.Question) []string {
	what := "failed"
	if q.Verdict == results.Unfinished {
		what = "has no verdict, because the run ended before it"
		if last := q.Steps[len(q.Steps)-1]; last.Text != "" {
			what += ", in the step: " + oneLine(last.Text)
		}
	}
	out := s.ended(q)
	out = append(out, s.indented(fmt.Sprintf("%s %s. Ask only it: %s", q.Test, what, howto.RunOnly(q.Test)), 2)...)
	return append(out, s.notes(q)...)
}

// count returns a number with its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// duration returns how long something took, in few characters: 0.4s, 57.6s, 2m05s.
func duration(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	d = d.Round(time.Second)
	return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
}

// about is duration for an estimate: without tenths of a second.
func about(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.0fs", d.Seconds())
	}
	return duration(d)
}
