package notebook

import (
	"fmt"
	"regexp"
	"strings"

	"cdblab/helpers/results"
)

// bundles draws the differences of two bundles. The facts "- FIELD" are of the hand-built one, the facts "+ FIELD" of containerd's.
func bundles(q *results.Question) (picture, error) {
	p := picture{
		Title: "The two bundles, field by field",
		Note:  "Fields that are equal in both bundles are left out. Where a cell has no text, the bundle does not have the field.",
	}
	var fields []string
	by := map[string]map[string][]string{"-": {}, "+": {}} // side → field → values
	for _, f := range q.Facts() {
		sign, field, ok := strings.Cut(f.Name, " ")
		if !ok || by[sign] == nil {
			continue
		}
		value := strings.TrimPrefix(f.Value, "= ")
		if list, element, ok := numbered(field); ok {
			field, value = list+"[]", element+": "+value
		}
		if len(by["-"][field]) == 0 && len(by["+"][field]) == 0 {
			fields = append(fields, field)
		}
		by[sign][field] = append(by[sign][field], value)
	}
	if len(fields) == 0 {
		return p, fmt.Errorf("a fact whose name begins with %q or %q is missing", "- ", "+ ")
	}
	p.Table = [][]string{{"field", "hand-built", "containerd's"}}
	short := [][]string{p.Table[0]}
	for _, field := range fields {
		p.Table = append(p.Table, []string{field, strings.Join(by["-"][field], "; "), strings.Join(by["+"][field], "; ")})
		short = append(short, []string{field, shorten(by["-"][field]), shorten(by["+"][field])})
	}
	p.Drawing = drawTable(short, 40, 4, func(row, column int) string {
		switch {
		case row == 0 || column == 0:
			return "title"
		case short[row][column] == "":
			return "quiet"
		case column == 1:
			return "color0"
		}
		return "color1"
	})
	return p, nil
}

var numberedPattern = regexp.MustCompile(`^(.*)\[([0-9]+)\]$`)

// numbered returns the list and the number of a field that is an element without a name of its own: linux.resources.devices[1].
func numbered(field string) (list, number string, ok bool) {
	m := numberedPattern.FindStringSubmatch(field)
	if m == nil {
		return "", "", false
	}
	return m[1], m[2], true
}

// shorten returns values as a cell of the picture has them.
func shorten(values []string) string {
	if len(values) > 2 {
		return fmt.Sprintf("%d elements", len(values))
	}
	return strings.NewReplacer(`"`, "", ",", ", ").Replace(strings.Join(values, "; "))
}
