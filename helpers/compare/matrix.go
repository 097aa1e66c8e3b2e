package compare

import (
	"cmp"
	"encoding/csv"
	"fmt"
	"io"
	"slices"
	"strings"

	"cdblab/helpers/results"
)

// A Matrix compares any number of runs. Its columns are the runs, and its rows are what differs between them.
type Matrix struct {
	Columns   []Column
	Facts     int // number of facts of all runs, a fact that several runs have counted once
	Questions []MatrixQuestion
}

// A Column is a run of a matrix.
type Column struct {
	Name string
	Run  *results.Run // nil if there is none
	Err  error        // why there is none
}

// A MatrixQuestion is a question in which something differs.
type MatrixQuestion struct {
	Test, Text string
	Rows       []Row
}

// A Row is a fact, a clause or a verdict that differs between the runs.
type Row struct {
	Kind  Kind
	Step  Step
	Name  string // of the fact or the subtest, text of the clause; "" for the verdict of the question
	Cells []Cell // one for each column
}

// A Cell is what one run has of a row.
type Cell struct {
	Value   string
	Note    string // is shown after the value: why a question failed or was skipped, or that a fact is in doubt
	Missing string // why there is no value; "" if there is one
}

// Reasons why a cell has no value.
const (
	noRun       = "no run"
	notAsked    = "not asked"
	notObserved = "not observed" // the question, or its part, ended before
	noSuchFact  = "no such fact"
)

// NewMatrix compares runs.
func NewMatrix(columns []Column) *Matrix {
	m := &Matrix{Columns: columns}
	for _, test := range m.tests() {
		questions := make([]*results.Question, len(columns))
		var q MatrixQuestion
		for i, c := range columns {
			if c.Run == nil {
				continue
			}
			if questions[i] = c.Run.Question(test); questions[i] != nil {
				q.Test, q.Text = test, questions[i].Text
			}
		}
		q.Rows = append(q.Rows, m.verdictRow(questions))
		for _, name := range subtests(questions...) {
			q.Rows = append(q.Rows, m.subtestRow(questions, name))
		}
		facts := m.rows(Fact, questions, factsOf)
		m.Facts += len(facts)
		q.Rows = append(q.Rows, facts...)
		q.Rows = append(q.Rows, m.rows(Clause, questions, clausesOf)...)
		q.Rows = slices.DeleteFunc(q.Rows, func(r Row) bool { return r.isSame() })
		if len(q.Rows) > 0 {
			m.Questions = append(m.Questions, q)
		}
	}
	return m
}

// tests returns the tests of all runs. They are in the order of the first run; the tests that it lacks follow.
func (m *Matrix) tests() []string {
	var out []string
	known := map[string]bool{}
	for _, c := range m.Columns {
		if c.Run == nil {
			continue
		}
		for _, q := range c.Run.Questions {
			if !known[q.Test] {
				known[q.Test] = true
				out = append(out, q.Test)
			}
		}
	}
	return out
}

func (m *Matrix) verdictRow(questions []*results.Question) Row {
	r := Row{Kind: Verdict}
	for i, q := range questions {
		switch {
		case m.Columns[i].Run == nil:
			r.Cells = append(r.Cells, Cell{Missing: noRun})
		case q == nil:
			r.Cells = append(r.Cells, Cell{Missing: notAsked})
		default:
			r.Cells = append(r.Cells, Cell{Value: string(q.Verdict), Note: reason(q)})
		}
	}
	return r
}

func (m *Matrix) subtestRow(questions []*results.Question, name string) Row {
	r := Row{Kind: Verdict, Name: name}
	for i, q := range questions {
		cell := Cell{Missing: notObserved}
		switch {
		case m.Columns[i].Run == nil:
			cell.Missing = noRun
		case q == nil:
			cell.Missing = notAsked
		default:
			if v, known := subtest(q, name); known {
				cell = Cell{Value: string(v)}
			}
		}
		r.Cells = append(r.Cells, cell)
	}
	return r
}

// rows returns a row for each fact, or clause, that one of the questions has.
func (m *Matrix) rows(kind Kind, questions []*results.Question, of func(*results.Question) observed) []Row {
	all := make([]observed, len(questions))
	var out []Row
	known := map[string]bool{}
	for i, q := range questions {
		if q == nil {
			continue
		}
		all[i] = of(q)
	}
	for _, seen := range all {
		for _, name := range seen.names {
			if known[name] {
				continue
			}
			known[name] = true
			one := seen.facts[name]
			r := Row{Kind: kind, Step: one.step, Name: name}
			for i, q := range questions {
				r.Cells = append(r.Cells, m.cell(i, q, all[i], name, one))
			}
			out = append(out, r)
		}
	}
	return out
}

func (m *Matrix) cell(column int, q *results.Question, seen observed, name string, elsewhere fact) Cell {
	f, ok := seen.facts[name]
	switch {
	case m.Columns[column].Run == nil:
		return Cell{Missing: noRun}
	case q == nil:
		return Cell{Missing: notAsked}
	case ok:
		return Cell{Value: f.value, Note: f.doubt}
	case !complete(q, elsewhere):
		return Cell{Missing: notObserved}
	}
	return Cell{Missing: noSuchFact}
}

// isSame reports whether no two runs differ in the row. A run that did not come to it says nothing about it.
func (r Row) isSame() bool {
	told := slices.DeleteFunc(slices.Clone(r.Cells), func(c Cell) bool { return c.Missing != "" && c.Missing != noSuchFact })
	for i, c := range told {
		if slices.ContainsFunc(told[:i], func(o Cell) bool { return !c.isSame(o) }) {
			return false
		}
	}
	return true
}

// isSame reports whether two cells say the same. Messages of failures have pids and times, so only the reasons of skips are compared.
// A facts.json has no reasons.
func (c Cell) isSame(o Cell) bool {
	otherReason := c.Value == string(results.Skipped) && c.Note != "" && o.Note != "" && c.Note != o.Note
	return c.Value == o.Value && c.Missing == o.Missing && !otherReason
}

// A Span is a cell of the page: neighbours of the same value are one.
type Span struct {
	Cell
	Columns int
	Group   int // cells of the same value have the same group, counted from 1; 0 for a missing value. The page has colours for six
}

// Spans returns the cells of a row, with neighbours of the same value as one.
func (r Row) Spans() []Span {
	groups := map[string]int{}
	var out []Span
	for _, c := range r.Cells {
		if n := len(out); n > 0 && out[n-1].Cell == c {
			out[n-1].Columns++
			continue
		}
		span := Span{Cell: c, Columns: 1}
		if c.Missing == "" {
			value := c.Value
			if value == string(results.Skipped) {
				value += c.Note
			}
			if groups[value] == 0 {
				groups[value] = len(groups) + 1
			}
			span.Group = groups[value]
		}
		out = append(out, span)
	}
	return out
}

// String returns the value, or why there is none.
func (c Cell) String() string { return cmp.Or(c.Value+c.Note, c.Missing) }

// Label says what the row is about.
func (r Row) Label() string { return Difference{Kind: r.Kind, Name: r.Name}.Label() }

// Summary counts the rows in a sentence.
func (m *Matrix) Summary() string {
	if err := m.Comparable(); err != nil {
		return "Nothing is compared: " + err.Error() + "."
	}
	rows, made := 0, 0
	for _, q := range m.Questions {
		rows += len(q.Rows)
	}
	for _, c := range m.Columns {
		if c.Run != nil {
			made++
		}
	}
	return fmt.Sprintf("%d of %s. The runs have %s; %s differ, in %s.", made, count(len(m.Columns), "run"), count(m.Facts, "fact"),
		count(rows, "row"), count(len(m.Questions), "question"))
}

// Comparable returns an error if there are several runs, and no question is in two of them: then no row differs, and yet the runs
// are not equal.
func (m *Matrix) Comparable() error {
	var runs []string
	for i, c := range m.Columns {
		if c.Run == nil {
			continue
		}
		runs = append(runs, fmt.Sprintf("%s asks %s", c.Name, asks(c.Run)))
		if m.inCommon(i) > 0 {
			return nil
		}
	}
	if len(runs) < 2 {
		return nil // the only run: the others are missing, or still to be made
	}
	return fmt.Errorf("no two of the runs have a question in common: %s", strings.Join(runs, ", "))
}

// inCommon returns how many questions of a column some other column has asked as well.
func (m *Matrix) inCommon(column int) int {
	n := 0
	for _, q := range m.Columns[column].Run.Questions {
		if slices.ContainsFunc(slices.Concat(m.Columns[:column], m.Columns[column+1:]), func(c Column) bool {
			return c.Run != nil && c.Run.Question(q.Test) != nil
		}) {
			n++
		}
	}
	return n
}

// asks says in words how many questions a run asks, and which one is the first.
func asks(run *results.Run) string {
	if len(run.Questions) == 0 {
		return "none"
	}
	return fmt.Sprintf("%d (%s …)", len(run.Questions), run.Questions[0].Test)
}

// Missing returns a sentence for each column that is not compared: it has no run, or its run has no question in common with another one.
func (m *Matrix) Missing() []string {
	var out []string
	runs := 0
	for _, c := range m.Columns {
		if c.Run != nil {
			runs++
		}
	}
	for i, c := range m.Columns {
		switch {
		case c.Err != nil:
			out = append(out, fmt.Sprintf("%s: %v", c.Name, c.Err))
		case c.Run != nil && len(c.Run.Questions) == 0:
			out = append(out, fmt.Sprintf("%s: the run has no questions%s", c.Name, problems(c.Run)))
		case c.Run != nil && runs > 1 && m.inCommon(i) == 0:
			out = append(out, fmt.Sprintf("%s: the run has no question in common with another one. It asks %s", c.Name, asks(c.Run)))
		}
	}
	return out
}

// Warnings say what makes a matrix less than complete. Cells of a question that a column has not asked say nothing, and a row in which
// only one column says something is no row of the matrix.
func (m *Matrix) Warnings() []string {
	var out []string
	if others := m.otherChapters(); len(others) > 0 {
		out = append(out, fmt.Sprintf("The questions themselves are not the same in all runs: other versions of the lab asked those of %s. "+
			"A difference may be the lab's.", list(others)))
	}
	for i, c := range m.Columns {
		if c.Run == nil {
			continue
		}
		out = append(out, problemsOf(c.Name, c.Run)...)
		notAsked := slices.DeleteFunc(m.tests(), func(test string) bool { return c.Run.Question(test) != nil })
		if len(notAsked) > 0 && m.inCommon(i) > 0 {
			out = append(out, fmt.Sprintf("%s: it has not asked %s of other runs: %s.", c.Name, count(len(notAsked), "question"), list(notAsked)))
		}
	}
	for _, test := range m.tests() {
		if m.failedInAll(test) {
			out = append(out, fmt.Sprintf("%s failed in all runs: what it did not observe is not compared.", test))
		}
	}
	return out
}

// otherChapters returns the names of the columns whose questions have another source than those of the first column. A run that did
// not record its source says nothing about it.
func (m *Matrix) otherChapters() []string {
	var out []string
	first := ""
	for _, c := range m.Columns {
		if c.Run == nil || c.Run.Stack == nil || c.Run.Stack.Chapter == "" {
			continue
		}
		first = cmp.Or(first, c.Run.Stack.Chapter)
		if c.Run.Stack.Chapter != first {
			out = append(out, c.Name)
		}
	}
	return out
}

// failedInAll reports whether a question failed in each of several runs that asked it.
func (m *Matrix) failedInAll(test string) bool {
	n := 0
	for _, c := range m.Columns {
		if c.Run == nil || c.Run.Question(test) == nil {
			continue
		}
		if c.Run.Question(test).Verdict != results.Failed {
			return false
		}
		n++
	}
	return n > 1
}

// WriteCSV writes a matrix for a spreadsheet.
func WriteCSV(w io.Writer, m *Matrix) error {
	out := csv.NewWriter(w)
	header := []string{"question", "test", "step", "kind", "name"}
	for _, c := range m.Columns {
		header = append(header, CSVText(c.Name))
	}
	_ = out.Write(header) // the writer keeps its first error
	for _, q := range m.Questions {
		for _, r := range q.Rows {
			record := []string{CSVText(q.Text), CSVText(q.Test), CSVText(r.Step.String()), string(r.Kind), CSVText(cmp.Or(r.Name, string(r.Kind)))}
			for _, c := range r.Cells {
				record = append(record, CSVText(c.String()))
			}
			_ = out.Write(record)
		}
	}
	out.Flush()
	return out.Error()
}

// CSVText returns a value for a spreadsheet. What a spreadsheet would compute as a formula gets an apostrophe before it.
func CSVText(s string) string {
	if strings.HasPrefix(s, "=") || strings.HasPrefix(s, "+") || strings.HasPrefix(s, "-") || strings.HasPrefix(s, "@") {
		return "'" + s
	}
	return s
}
