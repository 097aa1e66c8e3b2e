package display

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/charmbracelet/x/ansi"
)

// terminal is a terminal that knows only what the live display may write: text, newlines, a few ways to move the cursor and to
// erase, and colours. Anything else fails the test. TestTmux compares it with a real one.
type terminal struct {
	*testing.T
	width, height int
	color         bool // whether colours may be written
	rows          [][]rune
	row, column   int
	written       strings.Builder
}

func (t *terminal) size() (width, height int) { return t.width, t.height }

var (
	control = regexp.MustCompile(`^\x1b\[(\d*)([A-Za-z])`)
	colour  = regexp.MustCompile(`^\x1b\[(0|1|2|3[0-7])?(;(0|1|2|3[0-7]))*m`)
)

func (t *terminal) Write(b []byte) (int, error) {
	t.Helper()
	t.written.Write(b)
	for s := string(b); s != ""; {
		if s[0] == 0x1b {
			s = s[t.sequence(s):]
			continue
		}
		r, size := utf8.DecodeRuneInString(s)
		t.put(r)
		s = s[size:]
	}
	return len(b), nil
}

// sequence does what a control sequence says, and returns its length.
func (t *terminal) sequence(s string) int {
	t.Helper()
	if c := colour.FindString(s); c != "" && t.color {
		return len(c)
	}
	t.reach()
	c := control.FindStringSubmatch(s)
	switch {
	case c == nil:
	case c[0] == ansi.EraseLineRight:
		t.rows[t.row] = t.rows[t.row][:t.column]
		return len(c[0])
	case c[0] == ansi.EraseScreenBelow:
		t.rows[t.row] = t.rows[t.row][:t.column]
		t.rows = t.rows[:t.row+1]
		return len(c[0])
	case c[2] == "A":
		up, _ := strconv.Atoi(c[1])
		t.row = max(t.row-max(up, 1), len(t.rows)-t.height, 0)
		return len(c[0])
	}
	t.Fatalf("a control sequence was written that the display does not need: %q", s[:min(len(s), 20)])
	return 0
}

func (t *terminal) put(r rune) {
	t.Helper()
	width := ansi.StringWidthWc(string(r))
	switch {
	case r == '\n':
		t.row, t.column = t.row+1, 0
		t.reach()
		return
	case r == '\r':
		t.column = 0
		return
	case r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0:
		t.Fatalf("a control character was written: %q", r)
	}
	if t.column+width > t.width {
		t.row, t.column = t.row+1, 0
	}
	t.reach()
	row := append(t.rows[t.row][:t.column:t.column], r)
	for range width - 1 {
		row = append(row, 0) // the second half of a wide rune
	}
	if next := t.column + width; next < len(t.rows[t.row]) {
		row = append(row, t.rows[t.row][next:]...)
	}
	t.rows[t.row] = row
	t.column += width
}

// reach makes the row and the column of the cursor.
func (t *terminal) reach() {
	for len(t.rows) <= t.row {
		t.rows = append(t.rows, nil)
	}
	for len(t.rows[t.row]) < t.column {
		t.rows[t.row] = append(t.rows[t.row], ' ')
	}
}

// text returns all that was shown, also what has left the screen.
func (t *terminal) text() string {
	var b strings.Builder
	for _, row := range t.rows {
		b.WriteString(strings.TrimRight(strings.ReplaceAll(string(row), "\x00", ""), " ") + "\n")
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}
