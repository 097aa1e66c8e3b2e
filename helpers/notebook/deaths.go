package notebook

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"cdblab/helpers/results"
)

// deathRows is the order of the rows: what the kernel and the file system show, and then what containerd reports. Rows that
// helpers/failure has and this list has not come last.
var deathRows = []string{
	"init", "exec", "shim", "bundle", "rootfs mount", "shim's socket", "cgroup", "runtime's state",
	"container", "new client: task", "new client: exec", "old Wait: task", "old Wait: exec",
	"event 1", "event 2", "event 3", "another exec", "a new task",
}

// deaths draws what remains after deaths: a column for each fact that is an observation of helpers/failure.
func deaths(q *results.Question) (picture, error) {
	p := picture{Title: "What remains after the death"}
	var columns []string
	of := map[string]map[string]string{}
	var more []string
	for _, f := range q.Facts() {
		observation := tableOf(f)
		if _, ok := observation["a new task"]; !ok {
			continue
		}
		columns = append(columns, f.Name)
		of[f.Name] = observation
		for _, row := range slices.Sorted(maps.Keys(observation)) {
			if !slices.Contains(deathRows, row) && !slices.Contains(more, row) {
				more = append(more, row)
			}
		}
	}
	if len(columns) == 0 {
		return p, fmt.Errorf("a fact that is named after a death, such as %q, and has elements is missing", "shim KILL, running")
	}
	p.Table = [][]string{append([]string{"after the death of"}, columns...)}
	differs := false
	for _, row := range append(slices.Clone(deathRows), more...) {
		cells := []string{row}
		for _, c := range columns {
			cell := of[c][row]
			if _, err := factNamed(q, "unlike the pinned version, "+c+": "+row); err == nil {
				cell, differs = cell+" ≠", true
			}
			cells = append(cells, cell)
		}
		p.Table = append(p.Table, cells)
	}
	p.Drawing = drawTable(p.Table, (pageWidth-160)/len(columns)/8-2, 3, func(row, column int) string {
		if row == 0 || column == 0 {
			return "title"
		}
		return deathClass(p.Table[row][column])
	})
	if differs {
		p.Note = "≠ marks what the pinned version does differently."
	}
	return p, nil
}

// deathClass returns the class of a cell: what is there, what is gone, what is an error, and the rest.
func deathClass(cell string) string {
	switch word, _, _ := strings.Cut(cell, " "); word {
	case "alive", "there", "RUNNING", "works", "at":
		return "good"
	case "dead", "gone", "no", "refused":
		return "bad"
	case "error":
		return "warn"
	case "none", "-", "":
		return "quiet"
	}
	return "plain"
}
