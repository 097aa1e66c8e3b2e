package display

import (
	"fmt"
	"regexp"
	"strings"
	"time"

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
		line := fmt.Sprintf("%-8s  %s%s  (%s)", word(q), pad(q.Section(), section), text, strings.Join(numbers(q), ", "))
		return append([]string{line}, s.reason(q)...)
	}
	result := strings.Join(numbers(q), ", ")
	if s.width >= 100 {
		result = columns(numbers(q))
	}
	if q.Verdict != results.Answered {
		result = word(q) + ", " + result
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
	lines[0] = s.mark(q) + " " + pad(q.Section(), section) + lines[0]
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

// mark is the verdict as a sign.
func (s style) mark(q *results.Question) string {
	switch q.Verdict {
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

// numbers are the time, and the numbers of facts and controls if the question has any.
func numbers(q *results.Question) []string {
	out := []string{duration(q.Elapsed)}
	if n := len(q.Facts()); n > 0 {
		out = append(out, count(n, "fact"))
	}
	if n := q.Controls(); n > 0 {
		out = append(out, count(n, "control"))
	}
	return out
}

// columns returns numbers of questions so that they stand below each other.
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
	for _, line := range q.Output {
		line = strings.TrimRight(line, " ")
		text := strings.TrimLeft(line, " ")
		switch {
		case message.MatchString(line):
			for i, part := range s.indented(text, 4) {
				if i == 0 {
					part = "  > " + part[4:]
				}
				out = append(out, s.red(part))
			}
		case strings.HasPrefix(text, "$ "):
			out = append(out, line) // the terminal folds it, and a reader can copy it in one piece
		default:
			out = append(out, s.indented(text, len(line)-len(text))...)
		}
	}
	return append(out, "")
}

// failure returns all that is known of a question that failed, or that has no verdict.
func (s style) failure(q *results.Question) []string {
	out := s.ended(q)
	name := strings.TrimPrefix(q.Test, "Test")
	out = append(out, s.indented(q.Test+" failed. Ask only it: Q="+name, 2)...)
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
