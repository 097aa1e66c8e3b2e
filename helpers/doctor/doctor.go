//go:build linux

// Package doctor checks whether this machine has what a run of the lab needs, and says which command provides what is missing.
// The checks themselves are those of the packages that need something: tools, host, lab, vm.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"cdblab/helpers/tools"
	"cdblab/helpers/vm"
)

// Level is how bad a finding is.
type Level string

// The three levels.
const (
	OK      Level = "ok"
	Warning Level = "warning" // a run works, but it is slower, or answers less
	Missing Level = "missing" // a run fails
)

// Check looks at one thing.
type Check struct {
	Name string
	Run  func(ctx context.Context) (seen string, err error) // an error says what is missing, and what to do
	Else Level                                              // the level of an error: Warning, or Missing
}

// Finding is the result of a check.
type Finding struct {
	Name  string
	Level Level
	Seen  string
	Do    []string // commands that mend it, or what else to do
}

// Group is checks that belong together.
type Group struct {
	Title  string
	Checks []Check
}

// warning is the error of a check that found something which does not stop a run.
type warning struct{ error }

// Run runs the checks of a group.
func (g Group) Run(ctx context.Context) []Finding {
	var out []Finding
	for _, c := range g.Checks {
		seen, err := c.Run(ctx)
		if err == nil {
			out = append(out, Finding{Name: c.Name, Level: OK, Seen: seen})
			continue
		}
		f := Finding{Name: c.Name, Level: c.Else}
		if _, ok := errors.AsType[warning](err); ok {
			f.Level = Warning
		}
		f.Seen, f.Do = split(err)
		out = append(out, f)
	}
	return out
}

// split returns what an error says was seen, and what it says to do.
func split(err error) (seen string, do []string) {
	if f, ok := errors.AsType[*vm.Fault](err); ok {
		return f.Tried + ": " + f.Seen, []string{f.Do}
	}
	if e, ok := errors.AsType[*tools.NotFoundError](err); ok {
		return e.Seen, []string{e.Do}
	}
	lines := strings.Split(err.Error(), "\n")
	seen = lines[0]
	for _, line := range lines[1:] {
		if detail, ok := strings.CutPrefix(line, "    "); ok {
			seen += ": " + strings.TrimSpace(detail)
		} else {
			do = append(do, strings.TrimPrefix(strings.TrimSpace(line), "what to do: "))
		}
	}
	return seen, do
}

// Print prints the findings of a group, and returns how many have each level.
func Print(w io.Writer, title string, findings []Finding) map[Level]int {
	count := map[Level]int{}
	fmt.Fprintln(w, title)
	for _, f := range findings {
		count[f.Level]++
		fmt.Fprintf(w, "  %-8s %-24s %s\n", f.Level, f.Name, f.Seen)
		for _, do := range f.Do {
			fmt.Fprintf(w, "  %-8s %-24s   -> %s\n", "", "", do)
		}
	}
	return count
}
