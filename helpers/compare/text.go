package compare

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"cdblab/helpers/results"
	"cdblab/helpers/trial"
)

// WriteText writes a comparison for a terminal or a log.
func WriteText(w io.Writer, c *Comparison) error {
	out := &strings.Builder{}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "\tA\tB\n\t%s\t%s\n", oneLine(c.A.Name), oneLine(c.B.Name))
	for _, r := range c.Stacks() {
		if !r.Same {
			fmt.Fprintf(table, "%s\t%s\t%s\n", r.Name, r.A, r.B)
		}
	}
	table.Flush()
	if same := c.same(); same != "" {
		fmt.Fprintf(out, "the same in both: %s\n", same)
	}
	for _, warning := range c.Warnings() {
		fmt.Fprintf(out, "! %s\n", warning)
	}
	for _, q := range c.Questions {
		fmt.Fprintf(out, "\n%s\n%s\n  %s\n", q.Title(), q.Test, c.Behind(q))
		var step Step
		for _, d := range q.Differences {
			if d.Step != step && d.Step.Text != "" {
				fmt.Fprintf(out, "  %s%s\n", d.Step.label(), d.Step.Text)
			}
			step = d.Step
			fmt.Fprintf(out, "    %s %s\n", d.mark(), d.Label())
			a, b := Excerpt(d.A, d.B)
			if d.Change != Appeared {
				fmt.Fprintf(out, "        A  %s\n", indent(a))
			}
			if d.Change != Vanished {
				fmt.Fprintf(out, "        B  %s\n", indent(b))
			}
		}
		for _, u := range q.Unobserved {
			fmt.Fprintf(out, "    %s\n", u)
		}
	}
	fmt.Fprintf(out, "\n%s\n", c.Summary())
	_, err := io.WriteString(w, out.String())
	return err
}

// Title returns what a reader knows the question by.
func (q Question) Title() string { return cmp.Or(q.Text, q.Test) }

func (s Step) label() string {
	if s.Control {
		return "control: "
	}
	return ""
}

// String returns the step as a heading.
func (s Step) String() string {
	if s.Text == "" {
		return ""
	}
	return s.label() + s.Text
}

// mark is the sign of a change at the beginning of a line.
func (d Difference) mark() string {
	return map[Change]string{Changed: "~", Appeared: "+", Vanished: "-"}[d.Change]
}

// Label says what differs.
func (d Difference) Label() string {
	switch {
	case d.Kind == Fact:
		return d.Name
	case d.Kind == Clause:
		return "the specification says: " + d.Name
	case d.Name != "":
		return string(d.Kind) + " of " + d.Name
	}
	return string(d.Kind)
}

// Warnings say what makes a comparison less than complete.
func (c *Comparison) Warnings() []string {
	var out []string
	if c.chaptersDiffer() {
		out = append(out, "The questions themselves are not the same in A and B: another version of the lab asked them. A difference may be the lab's.")
	}
	out = append(out, problemsOf("A", c.A.Run)...)
	out = append(out, problemsOf("B", c.B.Run)...)
	if n := len(c.OnlyA); n > 0 {
		out = append(out, fmt.Sprintf("%s in A only: %s.", asked(n), list(c.OnlyA)))
	}
	if n := len(c.OnlyB); n > 0 {
		out = append(out, fmt.Sprintf("%s in B only: %s.", asked(n), list(c.OnlyB)))
	}
	for _, q := range c.A.Run.Questions {
		if other := c.B.Run.Question(q.Test); other != nil && q.Verdict == results.Failed && other.Verdict == results.Failed {
			out = append(out, fmt.Sprintf("%s failed in both runs: what it did not observe is not compared.", q.Test))
		}
	}
	return out
}

// problemsOf says what is wrong with a run as a whole, each sentence with the name of the run.
func problemsOf(name string, run *results.Run) []string {
	var out []string
	for _, p := range run.Problems {
		out = append(out, name+": "+p)
	}
	var unfinished []string
	for _, q := range run.Questions {
		if q.Verdict == results.Unfinished {
			unfinished = append(unfinished, q.Test)
		}
	}
	if n := len(unfinished); n > 0 {
		out = append(out, fmt.Sprintf("%s: %s did not end, so facts may be missing: %s.", name, count(n, "question"), list(unfinished)))
	}
	if run.FailedAtEnd {
		warning := name + ": the run failed for a reason that is not in its questions"
		if last := trial.LastWord(run.Lines); last != "" {
			warning += ": " + last
		}
		out = append(out, warning)
	}
	return out
}

// chaptersDiffer reports whether the two runs asked questions of different source. A lab that did not record it says nothing.
func (c *Comparison) chaptersDiffer() bool {
	a, b := c.A.Run.Stack, c.B.Run.Stack
	return a != nil && b != nil && a.Chapter != "" && b.Chapter != "" && a.Chapter != b.Chapter
}

func asked(n int) string {
	if n == 1 {
		return "1 question is asked"
	}
	return fmt.Sprintf("%d questions are asked", n)
}

// list returns the first names of a list.
func list(names []string) string {
	const shown = 5
	if len(names) > shown {
		return strings.Join(names[:shown], ", ") + ", …"
	}
	return strings.Join(names, ", ")
}

// Summary counts the differences in a sentence.
func (c *Comparison) Summary() string {
	total := fmt.Sprintf("%s and %s are in both runs", count(c.Both, "question"), count(c.Facts, "fact"))
	if len(c.Questions) == 0 && !c.Equal() {
		return "No difference in the questions that both ask: " + total + "."
	}
	if len(c.Questions) == 0 && !c.Whole() {
		return "No difference before one of the runs ended early: " + total + "."
	}
	if len(c.Questions) == 0 {
		return "No difference: " + total + "."
	}
	var parts []string
	for _, kind := range []Kind{Verdict, Fact, Clause, Answer} {
		for _, change := range []Change{Changed, Appeared, Vanished} {
			if n := c.Count(kind, change); n > 0 {
				parts = append(parts, fmt.Sprintf("%s %s", count(n, string(kind)), change))
			}
		}
	}
	return fmt.Sprintf("%s: %s. %s.", differ(len(c.Questions)), strings.Join(parts, ", "), total)
}

func differ(n int) string {
	if n == 1 {
		return "1 question differs"
	}
	return fmt.Sprintf("%d questions differ", n)
}

func count(n int, what string) string {
	if n == 1 {
		return fmt.Sprintf("1 %s", what)
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func indent(s string) string {
	return strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n           ")
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
