package fleet

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"slices"

	"cdblab/helpers/compare"
)

// What the page shows. A browser is slow with more, and the tables have all.
const (
	pageGroups      = 200
	pageDifferences = 200 // of a group
)

//go:embed fleet.html
var page string

// html/template escapes all that comes from a result, so no text of a result is code in the page. The page allows no script at all.
var pageTemplate = template.Must(template.New("fleet").Funcs(template.FuncMap{
	"some":   some,
	"sides":  sides,
	"groups": onPage,
	"shown":  shown,
	"left":   left,
}).Parse(page))

// WriteHTML writes a fleet as a page without references to other files.
func WriteHTML(w io.Writer, f *Fleet) error { return pageTemplate.Execute(w, f) }

// onPage returns the groups that the page shows: the odd ones, and each group with which one of them is compared.
func onPage(f *Fleet) []*Group {
	all := f.OddFirst()
	shown := map[*Group]bool{}
	for _, g := range all[:min(pageGroups, len(all))] {
		for ; g != nil; g = g.Base {
			shown[g] = true
		}
	}
	return slices.DeleteFunc(all, func(g *Group) bool { return !shown[g] })
}

// sides returns what both groups have, each in pieces that say what differs.
func sides(d compare.Difference) [2][]compare.Segment {
	a, b := whole(d)
	inA, inB := compare.Segments(a, b)
	return [2][]compare.Segment{inA, inB}
}

// shown returns the questions of a group with as many differences as the page shows.
func shown(g *Group) []compare.Question {
	var out []compare.Question
	left := pageDifferences
	for _, q := range g.Questions {
		if left <= 0 {
			break
		}
		q.Differences = q.Differences[:min(left, len(q.Differences))]
		left -= len(q.Differences)
		out = append(out, q)
	}
	return out
}

// left says what of the fleet, or of a group, the page does not show.
func left(of any) string {
	n, what := 0, ""
	switch of := of.(type) {
	case *Fleet:
		n, what = len(of.Groups)-len(onPage(of)), "more group"
	case *Group:
		n, _ = of.Differences()
		n, what = n-pageDifferences, "more difference"
	}
	if n <= 0 {
		return ""
	}
	return fmt.Sprintf("… and %s: see the tables nodes.csv and differences.csv.", count(n, what))
}
