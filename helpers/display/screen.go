package display

import (
	"io"
	"strings"

	"github.com/charmbracelet/x/ansi"
)

// screen draws lines at the bottom of a terminal, and redraws them. The lines above them stay as they are.
type screen struct {
	out  io.Writer
	size func() (width, height int)
	live []string // the lines that are redrawn, as they were drawn
}

// draw replaces the lines at the bottom by live. It writes the lines of permanent above them, which are not redrawn. The terminal
// may fold a permanent line, so that a long command can be copied in one piece. A live line is cut: draw must know how many rows
// the live lines have.
func (s *screen) draw(permanent, live []string) {
	width, height := s.size()
	var b strings.Builder
	if up := min(s.rows(width), height-1); up > 0 {
		b.WriteString("\r" + ansi.CursorUp(up))
		if len(permanent) > 0 {
			// Row by row: tmux keeps what is erased from the first row on, in its history.
			b.WriteString(strings.Repeat(ansi.EraseLineRight+"\n", up) + ansi.CursorUp(up))
		}
	}
	for _, line := range permanent {
		b.WriteString(line + "\n")
	}
	if len(live) > height-1 {
		live = live[len(live)-(height-1):]
	}
	s.live = nil
	for _, line := range live {
		line = cut(line, width-1)
		s.live = append(s.live, line)
		b.WriteString(ansi.EraseLineRight + line + "\n")
	}
	if b.Len() == 0 {
		return
	}
	b.WriteString(ansi.EraseScreenBelow)
	_, _ = io.WriteString(s.out, b.String()) // in one piece, so that the terminal does not show half of it
}

// rows returns how many rows the live lines have on the screen. A terminal that became narrower since they were drawn has folded
// them. Rows that have left the screen by that cannot be redrawn: they stay in the terminal's history.
func (s *screen) rows(width int) int {
	rows := 0
	for _, line := range s.live {
		rows += max(1, (ansi.StringWidthWc(line)+width-1)/width)
	}
	return rows
}

// cut returns a line of at most width columns. A wide rune has two of them. Most terminals count rune by rune, and so do the
// functions of package ansi whose names end with Wc.
func cut(line string, width int) string { return ansi.TruncateWc(line, max(width, 1), "…") }
