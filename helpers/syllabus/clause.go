package syllabus

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Clauses lists the clauses of a document of the runtime specification: each sentence that has one of the words, such as MUST, as
// "Heading: sentence", without markup. The specification has one sentence on a line (its style.md).
func Clauses(markdown string, words ...string) []string {
	var out []string
	heading := ""
	for line := range strings.SplitSeq(markdown, "\n") {
		text := withoutMarkup(line)
		if strings.HasPrefix(line, "#") {
			heading = text
		} else if slices.ContainsFunc(words, func(word string) bool { return strings.Contains(text, word) }) {
			out = append(out, heading+": "+text)
		}
	}
	return out
}

var (
	anchor      = regexp.MustCompile(`<a [^>]*/>`)
	link        = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
	anchorName  = regexp.MustCompile(`<a (?:name|id)="([^"]+)"`)
	emphasis    = regexp.MustCompile(`(^| )_([^_]+)_`)
	notInAnchor = regexp.MustCompile(`[^\p{L}\p{N}_-]`)
	bullet      = regexp.MustCompile(`^\s*(#+|\*|[0-9]+\.)\s+`)
)

// withoutMarkup returns the text of a line of Markdown.
func withoutMarkup(line string) string {
	line = bullet.ReplaceAllString(line, "")
	line = anchor.ReplaceAllString(line, "")
	line = link.ReplaceAllString(line, "$1")
	return strings.TrimSpace(strings.NewReplacer("`", "", "**", "").Replace(line))
}

// closing matches the end of a heading as in "## Modes ##", which is no part of its text.
var closing = regexp.MustCompile(` #+ *$`)

// Anchors returns what a link to a heading of a page of Markdown has after the #: the names that GitHub makes of the headings, and those
// of <a name="…">.
func Anchors(markdown string) []string {
	var out []string
	for line := range strings.SplitSeq(markdown, "\n") {
		if name := anchorName.FindStringSubmatch(line); name != nil {
			out = append(out, name[1])
		}
		if strings.HasPrefix(line, "#") {
			line = closing.ReplaceAllString(line, "")
			name := strings.ReplaceAll(strings.ToLower(emphasis.ReplaceAllString(withoutMarkup(line), "$1$2")), " ", "-")
			out = append(out, notInAnchor.ReplaceAllString(name, ""))
		}
	}
	return out
}

// ClauseTable returns a table, as lines of a doc comment, of the questions that test each clause. It is an error if no question
// tests a clause, or if a question tests a clause that the specification does not have.
func ClauseTable(clauses []string, questions []Question) (string, error) {
	known := map[string]bool{}
	for _, c := range clauses {
		known[c] = true
	}
	testsOf := map[string][]string{}
	deviations := map[string][]string{}
	for _, q := range questions {
		for _, c := range q.Clauses {
			if !known[c.Text] {
				return "", fmt.Errorf("%s asks about a clause that the specification does not have: %q", q.Test, c.Text)
			}
			if n := len(testsOf[c.Text]); n == 0 || testsOf[c.Text][n-1] != q.Test {
				testsOf[c.Text] = append(testsOf[c.Text], q.Test)
			}
			if c.Seen != "" && !slices.Contains(deviations[c.Text], c.Seen) {
				deviations[c.Text] = append(deviations[c.Text], c.Seen)
			}
		}
	}
	var b strings.Builder
	var missing []string
	for _, c := range clauses {
		if len(testsOf[c]) == 0 {
			missing = append(missing, c)
			continue
		}
		fmt.Fprintf(&b, "//   - %s\n", c)
		for _, seen := range deviations[c] {
			fmt.Fprintf(&b, "//     Known deviation: %s.\n", seen)
		}
		for _, test := range testsOf[c] {
			fmt.Fprintf(&b, "//     %s\n", test)
		}
	}
	if len(missing) > 0 {
		return "", fmt.Errorf("no question asks about these %d clauses:\n  %s", len(missing), strings.Join(missing, "\n  "))
	}
	return b.String(), nil
}
