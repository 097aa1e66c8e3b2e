// Package display shows a run of the lab while it goes on: on a terminal as a live display, in a log as plain lines.
//
// The live display redraws the lines at the bottom of the screen, and leaves everything above them to the terminal. It only
// writes: the terminal is never put into another mode, its keys are not read, and the cursor stays visible at the beginning of
// the line below. So Ctrl-C reaches the run, and a display that is killed leaves a terminal that works.
package display

import (
	"os"
	"time"

	"golang.org/x/term"

	"cdblab/helpers/results"
)

// A Display shows a run.
type Display interface {
	// Prepare shows what is done before the first question: building tools, compiling, booting. It ends with the next call of
	// Prepare, and with the first question.
	Prepare(what string)
	// Update shows what a line of the stream has changed. The display does not read the run after Update has returned.
	Update(run *results.Run, change results.Change)
	// Done ends the display. Its last but one line says how many questions passed and failed, and the last line says where the
	// results are.
	Done(run *results.Run, where string)
}

// Options are what the user or the terminal asks for.
type Options struct {
	Verbose bool // V=1: the notes in full. A run of one question shows them in any case
	// Expected is how long each question took in the last run on this machine, by the name of its test. It may be empty.
	Expected map[string]float64 // seconds
}

// New returns a live display if out is a terminal that can move its cursor, and a plain one otherwise. With NO_COLOR, the live
// display has no colours (https://no-color.org).
func New(out *os.File, o Options) Display {
	fd := int(out.Fd())
	if name := os.Getenv("TERM"); name == "" || name == "dumb" || !term.IsTerminal(fd) {
		return Plain(out, o)
	}
	size := func() (width, height int) {
		width, height, err := term.GetSize(fd)
		if err != nil || width == 0 || height == 0 {
			return 80, 24 // a serial line does not know its size
		}
		return width, height
	}
	l := newLive(&screen{out: out, size: size}, os.Getenv("NO_COLOR") == "", o, time.Now)
	go l.animate()
	return l
}
