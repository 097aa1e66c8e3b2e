//go:build linux

package mutants

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/google/renameio/v2"
)

// A Row is a line of the table.
type Row struct {
	Mutant
	Result
	Verdict Verdict
}

// A Table has the mutants of a campaign, and what became of them.
type Table struct {
	Title   string
	Slow    bool // the mutants have a delay, and no fault
	Rows    []Row
	NoBuild []Mutant
}

// A Score counts the rows.
type Score struct {
	Killed, Hung, Survived   int
	Equivalent, OutOfScope   int // of the survivors
	MissingAssertion, Unread int // the other survivors
	NotRun, NoBuild          int
}

// NewTable makes the table of the first n mutants of a state.
func NewTable(s *State, n int, verdicts Verdicts) Table {
	t := Table{Title: fmt.Sprintf("Mutants of %s %s, seed %d", s.Target, strings.TrimPrefix(s.Version, "v"), s.Seed)}
	counted, _ := s.Counted(n)
	if t.Slow = len(counted) > 0 && counted[0].Kind == Delayed; t.Slow {
		t.Title = strings.Replace(t.Title, "Mutants", "Delays", 1)
	}
	for _, m := range counted {
		t.Rows = append(t.Rows, Row{m, s.Results[m.ID()], verdicts.Of(m)})
	}
	for _, m := range s.Mutants {
		if s.Results[m.ID()].Outcome == NoBuild {
			t.NoBuild = append(t.NoBuild, m)
		}
	}
	return t
}

// Score counts the rows of the table.
func (t Table) Score() Score {
	s := Score{NoBuild: len(t.NoBuild)}
	for _, r := range t.Rows {
		switch r.Outcome {
		case Killed:
			s.Killed++
		case Hung:
			s.Hung++
		case Survived:
			s.Survived++
			switch r.Verdict.Verdict {
			case Equivalent:
				s.Equivalent++
			case OutOfScope:
				s.OutOfScope++
			case MissingAssertion:
				s.MissingAssertion++
			default:
				s.Unread++
			}
		default:
			s.NotRun++
		}
	}
	return s
}

// Percent returns how many of the mutants that could be killed were killed, and whether there were any. A mutant that hangs makes
// the lab red, so it counts as killed.
func (s Score) Percent() (percent float64, ok bool) {
	of := s.Killed + s.Hung + s.Survived - s.Equivalent - s.OutOfScope
	if of == 0 {
		return 0, false
	}
	return 100 * float64(s.Killed+s.Hung) / float64(of), true
}

func (s Score) String() string {
	out := fmt.Sprintf("%d killed, %d hung, %d survived (%d equivalent, %d out of scope, %d missing assertion, %d without a verdict)",
		s.Killed, s.Hung, s.Survived, s.Equivalent, s.OutOfScope, s.MissingAssertion, s.Unread)
	if s.NotRun > 0 {
		out += fmt.Sprintf(", %d not run", s.NotRun)
	}
	if s.NoBuild > 0 {
		out += fmt.Sprintf("; %d more do not build", s.NoBuild)
	}
	if percent, ok := s.Percent(); ok {
		out += fmt.Sprintf("\nscore: %.0f %% killed of those that are neither equivalent nor out of scope", percent)
	}
	return out
}

// summary returns the score. Of delays, a survivor is what is wanted.
func (t Table) summary() string {
	s := t.Score()
	if !t.Slow {
		return s.String()
	}
	out := fmt.Sprintf("with %d of them all questions pass, with %d one fails, %d hung", s.Survived, s.Killed, s.Hung)
	if s.NotRun > 0 {
		out += fmt.Sprintf(", %d not run", s.NotRun)
	}
	return out
}

// verdict returns the last column: a mutant that was killed needs none.
func (r Row) verdict() string {
	switch {
	case r.Outcome != Survived || r.Kind == Delayed:
		return ""
	case r.Verdict.Verdict == "":
		return "?"
	}
	return r.Verdict.Verdict + ": " + r.Verdict.Reason
}

func (r Row) outcome() string {
	switch {
	case r.Outcome == NotRun:
		return "not run"
	case r.Question != "":
		return string(r.Outcome) + " by " + strings.TrimPrefix(r.Question, "Test")
	}
	return string(r.Outcome)
}

// WriteText prints the table for a terminal.
func (t Table) WriteText(w io.Writer) error {
	for i, r := range t.Rows {
		fmt.Fprintf(w, "%d  %s  %s  %s\n", i+1, r.Place(), r.Func, r.Kind)
		fmt.Fprintf(w, "     %s\n", r.Change)
		if r.Message != "" {
			fmt.Fprintf(w, "     %s: %s\n", r.outcome(), clip(r.Message, 300))
		} else {
			fmt.Fprintf(w, "     %s\n", r.outcome())
		}
		if v := r.verdict(); v != "" {
			fmt.Fprintf(w, "     verdict: %s\n", v)
		}
	}
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, m := range t.NoBuild {
		fmt.Fprintf(tab, "does not build\t%s\t%s\n", m.Place(), m.Change)
	}
	tab.Flush()
	_, err := fmt.Fprintf(w, "%s: %s\n", t.Title, t.summary())
	return err
}

// WriteMarkdown writes the table for a page.
func (t Table) WriteMarkdown(w io.Writer) error {
	cell := strings.NewReplacer("|", `\|`, "\n", " ", "<", "&lt;").Replace
	fmt.Fprintf(w, "# %s\n\n| mutant | function | kind | change | result | message | verdict |\n|---|---|---|---|---|---|---|\n", t.Title)
	for _, r := range t.Rows {
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s | %s |\n", cell(r.Place()), cell(r.Func), r.Kind, cell(r.Change), cell(r.outcome()),
			cell(clip(r.Message, 300)), cell(r.verdict()))
	}
	_, err := fmt.Fprintf(w, "\n%s\n", strings.ReplaceAll(t.summary(), "\n", "\n\n"))
	return err
}

// WriteCSV writes the table for a program. The columns file, function and change can be copied into [VerdictsFile].
func (t Table) WriteCSV(w io.Writer) error {
	out := csv.NewWriter(w)
	_ = out.Write([]string{"id", "line", "kind", "outcome", "question", "message", "seconds",
		"file", "function", "change", "verdict", "reason"})
	for _, r := range t.Rows {
		_ = out.Write([]string{r.ID(), fmt.Sprint(r.Line), string(r.Kind), string(r.Outcome), r.Question, clip(r.Message, 300),
			fmt.Sprintf("%.0f", r.Took.Seconds()), r.ShortFile(), r.Func, r.Change, r.Verdict.Verdict, r.Verdict.Reason})
	}
	out.Flush()
	return out.Error()
}

// WriteFiles writes the table into a directory: table.txt, table.md and table.csv.
func (t Table) WriteFiles(dir string) error {
	var errs []error
	for name, write := range map[string]func(io.Writer) error{
		"table.txt": t.WriteText, "table.md": t.WriteMarkdown, "table.csv": t.WriteCSV,
	} {
		var text strings.Builder
		err := write(&text)
		errs = append(errs, err, renameio.WriteFile(filepath.Join(dir, name), []byte(text.String()), os.FileMode(0o644)))
	}
	return errors.Join(errs...)
}
