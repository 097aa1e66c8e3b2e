package compare

import (
	"fmt"
	"io"
	"strings"
)

// WriteMarkdown writes a comparison as Markdown, for the summary of a CI run or a comment on a change.
func WriteMarkdown(w io.Writer, c *Comparison) error {
	out := &strings.Builder{}
	fmt.Fprintf(out, "## %s against %s\n\n%s\n\n| | A | B |\n|---|---|---|\n", markdown(c.A.Name), markdown(c.B.Name), c.Summary())
	for _, r := range c.Stacks() {
		if !r.Same {
			fmt.Fprintf(out, "| %s | %s | %s |\n", markdown(r.Name), markdown(r.A), markdown(r.B))
		}
	}
	if same := c.same(); same != "" {
		fmt.Fprintf(out, "\nThe same in both: %s.\n", markdown(same))
	}
	for _, warning := range c.Warnings() {
		fmt.Fprintf(out, "\n> %s\n", markdown(warning))
	}
	left := 0
	for _, q := range c.Questions {
		text := c.markdownOf(q)
		if out.Len()+len(text) > maxMarkdown {
			left++
			continue
		}
		out.WriteString(text)
	}
	if left > 0 {
		fmt.Fprintf(out, "\nLeft out: %s. A CI refuses a longer summary; the page and the text have all.\n", count(left, "question"))
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// maxMarkdown is how many bytes are written: a CI refuses a summary of more than 1 MiB.
const maxMarkdown = 900 << 10

// markdownOf returns what differs in a question.
func (c *Comparison) markdownOf(q Question) string {
	out := &strings.Builder{}
	fmt.Fprintf(out, "\n### %s\n\n%s\n\n%s\n", markdown(q.Title()), code(q.Test), markdown(c.Behind(q)))
	fmt.Fprint(out, "\n| | | A | B |\n|---|---|---|---|\n")
	for _, d := range q.Differences {
		where := markdown(d.Label())
		if step := d.Step.String(); step != "" {
			where += "<br>" + markdown(step)
		}
		a, b := Excerpt(d.A, d.B)
		fmt.Fprintf(out, "| %s | %s | %s | %s |\n", d.Change, where, code(a), code(b))
	}
	for _, u := range q.Unobserved {
		fmt.Fprintf(out, "\n%s\n", markdown(u))
	}
	return out.String()
}

// Characters that Markdown or HTML would read. Escaped as entities they are text everywhere, also in a cell of a table.
var escaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "|", "&#124;", "`", "&#96;", "*", "&#42;", "_", "&#95;",
	"[", "&#91;", "]", "&#93;", "\\", "&#92;", "!", "&#33;", "#", "&#35;", "~", "&#126;", "$", "&#36;", "@", "&#64;", "\n", "<br>")

func markdown(s string) string { return escaper.Replace(s) }

// code returns a value as code. It is HTML, because in a cell of a table the code of Markdown cannot have all characters.
func code(s string) string {
	if s == "" {
		return ""
	}
	return "<code>" + markdown(s) + "</code>"
}
