package display

import (
	"regexp"
	"strings"
)

// printed sorts the lines that are printed outside of the questions. Some of them are known, and the display shows them in its own
// way. It shows all other lines as they are: what go, the VM and the lab say when something goes wrong.
type printed struct {
	block   kind
	skipped []string // what the lab says of skipped questions and parts of them: the display says it at the end
}

// kind is a kind of line.
type kind int

const (
	other     kind = iota
	underTest      // what is under test: the heading, and the lines below it
	skipped        // what was skipped, and why: the heading, and the lines below it
	known          // verdicts and numbers that the display says as well
)

var verdictOfTests = regexp.MustCompile(`^(PASS|FAIL|exit status 1|(ok  |FAIL|\?   )\t.*|cdblab: \d+ questions asked: .*)$`)

// sort returns the kind of a line.
func (p *printed) sort(line string) kind {
	switch {
	case line == "cdblab: under test":
		p.block = underTest
	case line == "cdblab: skipped, with the reason:":
		p.block = skipped
	case verdictOfTests.MatchString(line):
		p.block = other
		return known
	case !strings.HasPrefix(line, "  "):
		p.block = other
	case p.block == skipped:
		p.skipped = append(p.skipped, line)
	}
	return p.block
}
