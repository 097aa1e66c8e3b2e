// Package display shows a run of the lab while it goes on: on a terminal as a live display, in a log as plain lines.
package display

import (
	"fmt"
	"io"

	"cdblab/helpers/results"
)

// A Display shows a run.
type Display interface {
	// Prepare shows what is done before the first question: building tools, compiling, booting.
	Prepare(what string)
	// Update shows what a line of the stream has changed.
	Update(run *results.Run, change results.Change)
	// Done ends the display. The last line says where the results are.
	Done(run *results.Run, where string)
}

// Options are what the user or the terminal asks for.
type Options struct {
	Verbose bool // V=1: the notes in full
	// Expected is how long each question took in the last run on this machine, by the name of its test. It may be empty.
	Expected map[string]float64 // seconds
}

// Plain returns a display for a log.
func Plain(out io.Writer, o Options) Display { return plain{out, o} }

type plain struct {
	out io.Writer
	Options
}

func (p plain) Prepare(what string) { fmt.Fprintln(p.out, what) }

func (p plain) Update(_ *results.Run, c results.Change) {
	switch c.Kind {
	case results.Printed:
		fmt.Fprintln(p.out, c.Line)
	case results.Ended:
		fmt.Fprintf(p.out, "%s %s\n", c.Question.Verdict, c.Question.Test)
	}
}

func (p plain) Done(run *results.Run, where string) { fmt.Fprintln(p.out, run.Verdict, where) }
