package fleet

import (
	"fmt"
	"io"
	"strings"

	"cdblab/helpers/compare"
)

// What the text shows. The page and the tables have more.
const (
	shownGroups      = 20
	shownDifferences = 10 // of a group
)

// WriteText writes a fleet for a terminal or a log: what is wrong, then the groups, the odd ones first.
func WriteText(w io.Writer, f *Fleet) error {
	out := &strings.Builder{}
	fmt.Fprintln(out, f.Summary())
	for _, p := range f.Problems {
		fmt.Fprintf(out, "! %s\n", p)
	}
	groups := f.OddFirst()
	if n := len(groups) - shownGroups; n > 0 {
		largest := groups[len(groups)-1]
		groups = append(groups[:shownGroups-1:shownGroups-1], largest)
		fmt.Fprintf(out, "Not shown here: %s that are larger than the first ones. The page and the tables have them.\n", count(n, "group"))
	}
	for _, g := range groups {
		g.write(out)
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// Summary counts the nodes and groups.
func (f *Fleet) Summary() string {
	if len(f.Groups) == 0 {
		return "No node is compared."
	}
	run := f.Groups[0].Run
	facts := 0
	for _, q := range run.Questions {
		facts += len(q.Facts())
	}
	size := fmt.Sprintf("%s, %s", count(len(run.Questions), "question"), count(facts, "fact"))
	if f.LeftOut > 0 {
		size += fmt.Sprintf("; left out: %s that not all nodes were asked", count(f.LeftOut, "question"))
	}
	switch {
	case f.Nodes == 1:
		return fmt.Sprintf("1 node: there is no other one to compare it with (%s).", size)
	case f.Equal():
		return fmt.Sprintf("%s: no difference (%s).", count(f.Nodes, "node"), size)
	}
	return fmt.Sprintf("%s in %s: the nodes of a group have the same facts. The largest group has %s (%s).",
		count(f.Nodes, "node"), count(len(f.Groups), "group"), count(len(f.Groups[0].Nodes), "node"), size)
}

// Title returns the number of a group, and how many nodes it has.
func (g *Group) Title() string {
	return fmt.Sprintf("Group %d: %s", g.Number, count(len(g.Nodes), "node"))
}

// Tested returns the stack of a group in a line.
func (g *Group) Tested() string {
	if len(g.Stack) == 0 {
		return notRecorded
	}
	var out []string
	for _, p := range g.Stack {
		out = append(out, p.Name+" "+p.String())
	}
	return strings.Join(out, "; ")
}

// Against says in a sentence how a group differs from its base.
func (g *Group) Against() string {
	differences, questions := g.Differences()
	out := fmt.Sprintf("Compared with group %d (A: %s), this group (B) has %s in %s.", g.Base.Number, count(len(g.Base.Nodes), "node"),
		count(differences, "difference"), count(questions, "question"))
	if n := len(g.NotHere); n > 0 {
		out += fmt.Sprintf(" %s only in A: %s.", wereAsked(n), some(g.NotHere))
	}
	if n := len(g.OnlyHere); n > 0 {
		out += fmt.Sprintf(" %s only in B: %s.", wereAsked(n), some(g.OnlyHere))
	}
	return out
}

func wereAsked(n int) string {
	if n == 1 {
		return "1 question was asked"
	}
	return count(n, "question") + " were asked"
}

// Count counts the differences, with the questions that only one of the groups was asked.
func (g *Group) Count() string {
	n, _ := g.Differences()
	out := count(n, "difference")
	if asked := len(g.NotHere) + len(g.OnlyHere); asked > 0 {
		out += fmt.Sprintf(" and %s of one group only", count(asked, "question"))
	}
	return out
}

// Because says what may be behind the differences of a group.
func (g *Group) Because() string {
	if len(g.Behind) == 0 {
		return "No part of the stack tells the two groups apart. Look at what the lab does not record: configuration files, modules, hardware."
	}
	var out []string
	for _, c := range g.Behind {
		out = append(out, c.String())
	}
	return "What may be behind it: " + strings.Join(out, "; ") + "."
}

func (g *Group) write(out *strings.Builder) {
	fmt.Fprintf(out, "\n%s\n  %s\n  tested: %s\n", g.Title(), some(g.Nodes), g.Tested())
	if failed := g.Failed(); len(failed) > 0 {
		fmt.Fprintf(out, "  failed: %s\n", some(failed))
	}
	if g.Base == nil {
		return
	}
	fmt.Fprintf(out, "  %s\n  %s\n", g.Against(), g.Because())
	left := shownDifferences
	for _, q := range g.Questions {
		if left <= 0 {
			break
		}
		fmt.Fprintf(out, "    %s\n    %s\n", q.Title(), q.Test)
		var step compare.Step
		for _, d := range q.Differences[:min(left, len(q.Differences))] {
			if d.Step != step && d.Step.Text != "" {
				fmt.Fprintf(out, "      %s\n", d.Step)
			}
			step = d.Step
			a, b := compare.Excerpt(whole(d))
			fmt.Fprintf(out, "        ~ %s\n            A  %s\n            B  %s\n", d.Label(), indent(a), indent(b))
		}
		left -= len(q.Differences)
		for _, u := range q.Unobserved {
			fmt.Fprintf(out, "        %s\n", u)
		}
	}
	if differences, _ := g.Differences(); differences > shownDifferences {
		fmt.Fprintf(out, "    … and %s. The page and the tables have all.\n", count(differences-shownDifferences, "more difference"))
	}
}

// whole returns what both groups have.
func whole(d compare.Difference) (a, b string) {
	absent := "(no such " + string(d.Kind) + ")"
	switch d.Change {
	case compare.Appeared:
		return absent, d.B
	case compare.Vanished:
		return d.A, absent
	}
	return d.A, d.B
}

func indent(s string) string {
	return strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n               ")
}
