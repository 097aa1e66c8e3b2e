package display

import (
	"strings"

	"github.com/charmbracelet/x/ansi"
)

// style says how a text looks.
type style struct {
	width int  // columns of the terminal; 0 for a log, whose lines may have any length
	color bool // colours only repeat what the text says
}

func (s style) paint(text string, look ansi.Style) string {
	if !s.color || text == "" {
		return text
	}
	return look.Styled(text)
}

func (s style) bold(text string) string  { return s.paint(text, ansi.NewStyle().Bold()) }
func (s style) faint(text string) string { return s.paint(text, ansi.NewStyle().Faint()) }
func (s style) green(text string) string {
	return s.paint(text, ansi.NewStyle().ForegroundColor(ansi.Green))
}
func (s style) yellow(text string) string {
	return s.paint(text, ansi.NewStyle().ForegroundColor(ansi.Yellow))
}
func (s style) red(text string) string {
	return s.paint(text, ansi.NewStyle().Bold().ForegroundColor(ansi.Red))
}

// wrap returns a text as lines of at most width columns. With a width of 0 there is one line.
func wrap(text string, width int) []string {
	if width <= 0 {
		return []string{text}
	}
	return strings.Split(ansi.WrapWc(text, width, ""), "\n")
}

// pad returns a text with spaces after it, up to a width.
func pad(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-ansi.StringWidthWc(text)))
}

// between returns a line with left at its beginning and right at its end. Where both do not fit, left is cut.
func (s style) between(left, right string) string {
	room := min(s.width, widest) - 1 - ansi.StringWidthWc(right)
	if right == "" || room < 10 {
		return left
	}
	return pad(cut(left, room-2), room) + right
}

// indented returns a text, whose lines may have to be wrapped, with an indent before each line.
func (s style) indented(text string, indent int) []string {
	var out []string
	for line := range strings.SplitSeq(text, "\n") {
		room := 0
		if s.width > 0 {
			room = max(20, s.width-1-indent)
		}
		for _, part := range wrap(line, room) {
			out = append(out, strings.Repeat(" ", indent)+part)
		}
	}
	return out
}

// folded returns a line that was printed, in as many lines as it needs. The parts have the indent of the line. A command is left to
// the terminal, so that a reader can copy it in one piece.
func (s style) folded(line string) []string {
	text := strings.TrimLeft(line, " ")
	if strings.HasPrefix(text, "$ ") {
		return []string{line}
	}
	return s.indented(text, len(line)-len(text))
}

// oneLine returns a text without newlines and tabs, which would move the lines of a live display.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
