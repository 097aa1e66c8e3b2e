//go:build linux

package failure

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/golden"

	"cdblab/helpers/ctrd"
	"cdblab/helpers/lab"
)

// Tabulate observes each victim, then tries another exec and a new task with each, and records the result as a fact
// that is named after the victim's death. With the pinned versions, the table of all results has to be equal to the
// golden file testdata/path. With other versions, each cell that is different is a fact. It returns what was observed.
func Tabulate(q *lab.Q, d *ctrd.Daemon, path string, victims []*Victim) map[*Victim]Observation {
	q.Helper()
	tasks := d.Ctr("tasks", "ls").Stdout
	observed := map[*Victim]Observation{}
	for _, v := range victims {
		observed[v] = v.observe(tasks)
		v.RecordParents("after")
	}
	var columns []string
	table := map[string]Observation{}
	for _, v := range victims {
		o := observed[v]
		o["another exec"] = v.tryExec()
		o["a new task"] = v.tryNewTask()
		q.Fact(v.String(), o)
		columns = append(columns, v.String())
		table[v.String()] = o
	}
	text := format(columns, table)
	if q.Pinned() {
		golden.Assert(q, text, path)
	} else {
		logDifferences(q, path, text)
	}
	return observed
}

// format writes the table as aligned text, with one death in each column.
func format(columns []string, table map[string]Observation) string {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, strings.Join(append([]string{"after the death of"}, columns...), "\t"))
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

// columnGap is what separates two columns. A cell has no more than one space in a row.
var columnGap = regexp.MustCompile(`\s{3,}`)

// parse reads a table that [format] wrote. It maps "column: row" to the cell.
func parse(text string) map[string]string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	columns := columnGap.Split(lines[0], -1)
	out := map[string]string{}
	for _, line := range lines[1:] {
		f := columnGap.Split(line, -1)
		for i := 1; i < min(len(f), len(columns)); i++ {
			out[columns[i]+": "+f[0]] = strings.TrimSpace(f[i])
		}
	}
	return out
}

// logDifferences logs in which cells a version under test differs from the pinned one. Which cells may differ, the question
// asserts itself. They are no facts: the facts are the columns of the table, which two runs are compared by.
func logDifferences(q *lab.Q, path, text string) {
	q.Helper()
	known, err := os.ReadFile(filepath.Join("testdata", path))
	assert.NilError(q, err)
	want, got := parse(string(known)), parse(text)
	for _, cell := range slices.Sorted(maps.Keys(want)) {
		if got[cell] != want[cell] {
			q.Logf("unlike the pinned version, %s: %s, not %s", cell, got[cell], want[cell])
		}
	}
}
