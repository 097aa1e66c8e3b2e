package syllabus

import (
	"fmt"
	"regexp"
	"strings"
)

// Clauses lists what a document of the runtime specification demands: each sentence with a MUST, as "Heading: sentence",
// without markup. The specification has one sentence on a line (its style.md).
func Clauses(markdown string) []string {
	var out []string
	heading := ""
	for line := range strings.SplitSeq(markdown, "\n") {
		text := plain(line)
		if strings.HasPrefix(line, "#") {
			heading = text
		} else if strings.Contains(text, "MUST") {
			out = append(out, heading+": "+text)
		}
	}
	return out
}

var (
	anchor = regexp.MustCompile(`<a [^>]*/>`)
	link   = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
	bullet = regexp.MustCompile(`^\s*(#+|\*|[0-9]+\.)\s+`)
)

func plain(line string) string {
	line = bullet.ReplaceAllString(line, "")
	line = anchor.ReplaceAllString(line, "")
	line = link.ReplaceAllString(line, "$1")
	return strings.TrimSpace(strings.NewReplacer("`", "", "**", "").Replace(line))
}

// ClauseTable writes, as lines of a doc comment, which question puts which clause to the test. A clause that no question
// asks about, and one that the specification does not have, is an error.
func ClauseTable(clauses []string, qs []Question) (string, error) {
	known := map[string]bool{}
	for _, c := range clauses {
		known[c] = true
	}
	asked := map[string][]string{}
	deviations := map[string]string{}
	for _, q := range qs {
		for _, c := range q.Clauses {
			if !known[c.Text] {
				return "", fmt.Errorf("%s asks about a clause that the specification does not have: %q", q.Test, c.Text)
			}
			if n := len(asked[c.Text]); n == 0 || asked[c.Text][n-1] != q.Test {
				asked[c.Text] = append(asked[c.Text], q.Test)
			}
			if c.Seen != "" {
				deviations[c.Text] = c.Seen
			}
		}
	}
	var b strings.Builder
	var missing []string
	for _, c := range clauses {
		if len(asked[c]) == 0 {
			missing = append(missing, c)
			continue
		}
		fmt.Fprintf(&b, "//   - %s\n", c)
		if seen := deviations[c]; seen != "" {
			fmt.Fprintf(&b, "//     Known deviation: %s.\n", seen)
		}
		for _, test := range asked[c] {
			fmt.Fprintf(&b, "//     %s\n", test)
		}
	}
	if len(missing) > 0 {
		return "", fmt.Errorf("no question asks about these %d clauses:\n  %s", len(missing), strings.Join(missing, "\n  "))
	}
	return b.String(), nil
}
