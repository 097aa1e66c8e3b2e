//go:build linux

package failure

import (
	"bytes"
	"fmt"
	"strings"
	"text/tabwriter"

	"cdblab/helpers/check"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/lab"
)

// Tabulate observes each victim, then tries another exec and a new task with each, and records the result as a fact
// that is named after the victim's death. The table of all results has to be equal to the golden file testdata/path. It returns
// what was observed.
func Tabulate(q *lab.Q, d *ctrd.Daemon, path string, victims []*Victim) map[*Victim]Observation {
	q.Helper()
	observed := Observe(q, d, victims)
	AssertTable(q, path, "after the death of", victims, observed)
	return observed
}

// Observe is [Tabulate] without the table.
func Observe(q *lab.Q, d *ctrd.Daemon, victims []*Victim) map[*Victim]Observation {
	q.Helper()
	tasks := d.Ctr("tasks", "ls").Stdout
	observed := map[*Victim]Observation{}
	for _, v := range victims {
		observed[v] = v.observe(tasks)
		v.RecordParents("after")
	}
	for _, v := range victims {
		o := observed[v]
		o["another exec"] = v.tryExec()
		o["a new task"] = v.tryNewTask()
		q.Fact(v.String(), o)
	}
	return observed
}

// AssertTable asserts that the table of what was observed is equal to the golden file testdata/path. The title stands above the rows.
func AssertTable(q *lab.Q, path, title string, victims []*Victim, observed map[*Victim]Observation) {
	q.Helper()
	var columns []string
	table := map[string]Observation{}
	for _, v := range victims {
		columns = append(columns, v.String())
		table[v.String()] = observed[v]
	}
	check.Golden(q, format(title, columns, table), path)
}

// format writes the table as aligned text, with one death in each column.
func format(title string, columns []string, table map[string]Observation) string {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, strings.Join(append([]string{title}, columns...), "\t"))
	for _, row := range rows {
		line := row
		for _, c := range columns {
			line += "\t" + table[c][row]
		}
		fmt.Fprintln(w, line)
	}
	_ = w.Flush() // into memory: it cannot fail
	return b.String()
}
