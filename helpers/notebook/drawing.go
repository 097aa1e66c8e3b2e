package notebook

import (
	"strings"
	"unicode/utf8"
)

// drawing is a picture as SVG. The template writes it, so that texts are escaped. Colours come from classes in page.css.
type drawing struct {
	Label         string // for a reader who cannot see it
	Width, Height int
	Shapes        []shape
}

// shape is a rectangle, a path or a line of text.
type shape struct {
	Kind, Class string
	X, Y, W, H  int    // of a rectangle; X and Y of a text: the left end of its base line, or its middle
	Path        string // of a path: SVG's commands
	Text        string
}

// The sizes of a text. Texts are set in a monospaced font, so that their width is known: fonts of this size have characters of at
// most 7.3 pixels.
const (
	charWidth  = 7.4
	lineHeight = 17
	pad        = 9 // between a text and its box
)

func textWidth(s string) int { return int(float64(utf8.RuneCountInString(s))*charWidth + 0.99) }

// widest returns the width of the widest of some lines.
func widest(lines ...string) int {
	w := 0
	for _, l := range lines {
		w = max(w, textWidth(l))
	}
	return w
}

// grow makes room for what ends at x and y.
func (d *drawing) grow(x, y int) { d.Width, d.Height = max(d.Width, x), max(d.Height, y) }

func (d *drawing) rect(class string, x, y, w, h int) {
	d.Shapes = append(d.Shapes, shape{Kind: "rect", Class: class, X: x, Y: y, W: w, H: h})
	d.grow(x+w+2, y+h+2)
}

func (d *drawing) path(class, path string) {
	d.Shapes = append(d.Shapes, shape{Kind: "path", Class: class, Path: path})
}

// text writes lines below each other. They begin at x, and y is the upper end.
func (d *drawing) text(class string, x, y int, lines ...string) {
	d.lines(class, x, y, lines)
	d.grow(x+widest(lines...)+2, 0)
}

// centered is text whose lines have their middle at x.
func (d *drawing) centered(class string, x, y int, lines ...string) {
	d.lines(class+" middle", x, y, lines)
	d.grow(x+widest(lines...)/2+2, 0)
}

func (d *drawing) lines(class string, x, y int, lines []string) {
	for i, l := range lines {
		if l != "" {
			d.Shapes = append(d.Shapes, shape{Kind: "text", Class: class, X: x, Y: y + i*lineHeight + 13, Text: l})
			d.grow(0, y+(i+1)*lineHeight)
		}
	}
}

// box is a rectangle with lines of text in its middle. A line that is too long for it is cut.
func (d *drawing) box(class string, x, y, w, h int, lines ...string) {
	d.rect(class, x, y, w, h)
	d.centered(class, x+w/2, y+(h-len(lines)*lineHeight)/2, cut(w, lines...)...)
}

// cut cuts lines so that they are not wider than w. A line that is cut ends with ….
func cut(w int, lines ...string) []string {
	var out []string
	for _, l := range lines {
		if r, n := []rune(l), int(float64(w)/charWidth); len(r) > n {
			l = string(r[:n-1]) + "…"
		}
		out = append(out, l)
	}
	return out
}

// wrap breaks a text into lines of at most n characters: at spaces, and within longer words.
func wrap(s string, n int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(s) {
		for {
			sep := " "
			if line == "" {
				sep = ""
			}
			if utf8.RuneCountInString(line+sep+word) <= n {
				line += sep + word
				break
			}
			if line != "" {
				lines, line = append(lines, line), ""
				continue
			}
			r := []rune(word)
			lines, word = append(lines, string(r[:n])), string(r[n:])
		}
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}

// wrapTo is [wrap] with at most max lines. The last one ends with … if there are more.
func wrapTo(max int, s string, n int) []string {
	lines := wrap(s, n)
	if len(lines) > max {
		lines = lines[:max]
		r := []rune(lines[max-1])
		lines[max-1] = string(r[:min(len(r), n-1)]) + "…"
	}
	return lines
}

// unbracketed returns a volatile value without its angle brackets: "pid 1" for <pid 1>.
func unbracketed(s string) string { return strings.NewReplacer("<", "", ">", "").Replace(s) }
