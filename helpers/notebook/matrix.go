package notebook

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"cdblab/helpers/results"
)

// namespaces draws the namespaces of processes. Each fact "…: namespaces" that is a map is a process.
func namespaces(q *results.Question) (picture, error) {
	p := picture{
		Title: "Processes and their namespaces",
		Note:  "In a column, the same letter and colour mean the same namespace: the same inode of /proc/PID/ns.",
	}
	var processes []string
	of := map[string]map[string]string{}
	types := map[string]bool{}
	for _, f := range factsNamed(q, ": namespaces") {
		if table := tableOf(f); table != nil {
			name := strings.TrimSuffix(f.Name, ": namespaces")
			processes = append(processes, name)
			of[name] = table
			for t := range table {
				types[t] = true
			}
		}
	}
	if len(processes) < 2 {
		return p, fmt.Errorf("two facts that end with %q and have elements are needed, and there are %d", ": namespaces", len(processes))
	}
	columns := slices.Sorted(maps.Keys(types))
	p.Table = [][]string{append([]string{"process"}, columns...)}
	letters := map[string][]string{} // type → inodes, in the order of their letters
	for _, process := range processes {
		row := []string{process}
		for _, t := range columns {
			inode := of[process][t]
			if !slices.Contains(letters[t], inode) {
				letters[t] = append(letters[t], inode)
			}
			row = append(row, letter(slices.Index(letters[t], inode), inode))
		}
		p.Table = append(p.Table, row)
	}
	p.Drawing = drawMatrix(p.Table)
	return p, nil
}

func letter(i int, inode string) string {
	if inode == "" {
		return "none"
	}
	return string(rune('A' + i%26))
}

func drawMatrix(table [][]string) *drawing {
	d := &drawing{}
	const cell, gap = 62, 4
	left, y := 0, 4
	names := make([][]string, len(table))
	for i, row := range table {
		names[i] = wrap(row[0], 20)
		left = max(left, widest(names[i]...)+14)
	}
	for i, row := range table {
		height := max(34, len(names[i])*lineHeight+8)
		d.text("title", 1, y+(height-len(names[i])*lineHeight)/2, names[i]...)
		for j, value := range row[1:] {
			x := left + j*(cell+gap)
			switch {
			case i == 0:
				d.centered("title", x+cell/2, y+(height-lineHeight)/2, cut(cell, value)...)
			case value == "none":
				d.box("dead", x, y, cell, height-gap, value)
			default:
				d.box(fmt.Sprintf("color%d", (value[0]-'A')%6), x, y, cell, height-gap, value)
			}
		}
		y += height
	}
	return d
}
