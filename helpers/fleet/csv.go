package fleet

import (
	"encoding/csv"
	"fmt"
	"io"
	"slices"
	"strings"

	"cdblab/helpers/compare"
)

// WriteNodes writes a table with a row for each node: its group, what the group has tested, and what else its nodes are.
func WriteNodes(w io.Writer, f *Fleet) error {
	header := []string{"node", "group", "nodes of the group", "compared with group", "failed"}
	var parts []string
	known := map[string]bool{}
	for _, g := range f.Groups {
		for _, p := range slices.Concat(g.Stack, g.Node) {
			if !known[p.Name] {
				known[p.Name] = true
				parts = append(parts, p.Name)
			}
		}
	}
	t := newTable(w, append(header, parts...)...)
	for _, g := range f.OddFirst() {
		base := ""
		if g.Base != nil {
			base = fmt.Sprint(g.Base.Number)
		}
		ofGroup := []string{fmt.Sprint(g.Number), fmt.Sprint(len(g.Nodes)), base, strings.Join(g.Failed(), " ")}
		for _, name := range parts {
			value := ""
			for _, p := range slices.Concat(g.Stack, g.Node) {
				if p.Name == name {
					value = p.String()
				}
			}
			ofGroup = append(ofGroup, value)
		}
		for _, node := range g.Nodes {
			t.row(append([]string{node}, ofGroup...)...)
		}
	}
	return t.end()
}

// WriteDifferences writes a table with a row for each difference of a group from its base.
func WriteDifferences(w io.Writer, f *Fleet) error {
	t := newTable(w, "group", "nodes", "compared with group", "question", "test", "step", "kind", "name", "there", "here")
	for _, g := range f.OddFirst() {
		if g.Base == nil {
			continue
		}
		ofGroup := []string{fmt.Sprint(g.Number), fmt.Sprint(len(g.Nodes)), fmt.Sprint(g.Base.Number)}
		for _, test := range g.NotHere {
			t.row(append(ofGroup, g.Base.byTest[test].Text, test, "", "question", "", "asked", "not asked")...)
		}
		for _, test := range g.OnlyHere {
			t.row(append(ofGroup, g.byTest[test].Text, test, "", "question", "", "not asked", "asked")...)
		}
		for _, q := range g.Questions {
			for _, d := range q.Differences {
				a, b := whole(d)
				t.row(append(ofGroup, q.Text, q.Test, d.Step.String(), string(d.Kind), d.Name, a, b)...)
			}
		}
	}
	return t.end()
}

// table writes a CSV for a spreadsheet.
type table struct{ csv *csv.Writer }

func newTable(w io.Writer, header ...string) table {
	t := table{csv.NewWriter(w)}
	t.row(header...)
	return t
}

func (t table) row(cells ...string) {
	var out []string
	for _, c := range cells {
		out = append(out, compare.CSVText(c))
	}
	_ = t.csv.Write(out) // the writer keeps its first error
}

func (t table) end() error {
	t.csv.Flush()
	return t.csv.Error()
}
