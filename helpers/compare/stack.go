package compare

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"cdblab/helpers/results"
)

// A StackRow is a part of what was tested: a program, the kernel or the cgroup mode.
type StackRow struct {
	Name string
	A, B string
	Same bool
}

// verdictsRow is the name of the row with the verdicts of the questions.
const verdictsRow = "questions"

// Stacks returns what the two runs have tested, part by part, and how they ended.
func (c *Comparison) Stacks() []StackRow {
	a, b := parts(c.A.Run.Stack), parts(c.B.Run.Stack)
	va, vb := verdicts(c.A.Run), verdicts(c.B.Run)
	rows := []StackRow{{verdictsRow, va, vb, va == vb}}
	for _, p := range a {
		row := StackRow{Name: p.name, A: p.shown, B: "not told"}
		if i := slices.IndexFunc(b, func(o part) bool { return o.name == p.name }); i >= 0 {
			row.B, row.Same = b[i].shown, b[i].identity == p.identity
			if !row.Same && row.A == row.B {
				row.A, row.B = row.A+", "+p.short(), row.B+", "+b[i].short()
			}
		}
		rows = append(rows, row)
	}
	for _, p := range b {
		if !slices.ContainsFunc(a, func(o part) bool { return o.name == p.name }) {
			rows = append(rows, StackRow{Name: p.name, A: "not told", B: p.shown})
		}
	}
	return rows
}

// verdicts counts the questions of a run by their verdict, and says if the run failed for a reason that they do not tell.
func verdicts(run *results.Run) string {
	var out []string
	for _, v := range []results.Verdict{results.Answered, results.Failed, results.Skipped, results.Unfinished} {
		if n := run.Count(v); n > 0 {
			out = append(out, fmt.Sprintf("%d %s", n, v))
		}
	}
	if run.FailedAtEnd {
		out = append(out, "and the run failed")
	}
	return strings.Join(out, ", ")
}

// part is a part of a stack.
type part struct {
	name, shown string
	identity    string // two parts are the same if it is the same
}

// short returns the beginning of the digest, which tells two programs of the same version apart.
func (p part) short() string {
	hex := strings.TrimPrefix(p.identity, "sha256:")
	return "sha256 " + hex[:min(12, len(hex))] + "…"
}

func parts(s *results.Stack) []part {
	if s == nil {
		return nil
	}
	var out []part
	for _, p := range s.Programs {
		shown := Version(p)
		if p.Package != "" {
			shown += " (package " + p.Package + ")"
		}
		out = append(out, part{p.Name, shown, cmp.Or(p.Digest, p.Version)})
	}
	out = append(out, part{"kernel", s.Kernel + " " + s.Machine, s.Kernel + s.Machine}, part{"cgroup", s.Cgroup, s.Cgroup})
	for _, p := range s.Node {
		out = append(out, part{p.Name, p.Value, p.Value})
	}
	return out
}

// Version returns the version of a program without the words that say nothing: its own name, and how it was built.
func Version(p results.Program) string {
	v := howBuilt.ReplaceAllString(p.Version, "")
	words := slices.DeleteFunc(strings.Fields(v), func(w string) bool {
		return strings.EqualFold(w, p.Name) || w == "version" || w == "Version:" || strings.HasPrefix(w, "github.com/")
	})
	// containerd adds a word for the commit, which a build from a module does not know.
	return cmp.Or(strings.TrimSuffix(strings.Join(words, " "), "+unknown"), "unknown version")
}

var howBuilt = regexp.MustCompile(` \((go[0-9]|build tags ).*| multi-call binary.*`)

// same lists what is the same in both stacks.
func (c *Comparison) same() string {
	var out []string
	for _, r := range c.Stacks() {
		if r.Same {
			out = append(out, r.Name+" "+r.A)
		}
	}
	return strings.Join(out, ", ")
}

// Tested returns a row for each part of the stack: what each run has tested.
func (m *Matrix) Tested() []Row {
	var names []string
	stacks := make([][]part, len(m.Columns))
	for i, c := range m.Columns {
		if c.Run == nil {
			continue
		}
		stacks[i] = parts(c.Run.Stack)
		for _, p := range stacks[i] {
			if !slices.Contains(names, p.name) {
				names = append(names, p.name)
			}
		}
	}
	ended := Row{Kind: Fact, Name: verdictsRow}
	for _, c := range m.Columns {
		cell := Cell{Missing: noRun}
		if c.Run != nil {
			cell = Cell{Value: verdicts(c.Run)}
		}
		ended.Cells = append(ended.Cells, cell)
	}
	out := []Row{ended}
	for _, name := range names {
		r := Row{Kind: Fact, Name: name}
		for i := range m.Columns {
			cell := Cell{Missing: noRun}
			if at := slices.IndexFunc(stacks[i], func(p part) bool { return p.name == name }); at >= 0 {
				cell = Cell{Value: stacks[i][at].shown}
			}
			r.Cells = append(r.Cells, cell)
		}
		out = append(out, r)
	}
	return out
}
