package notebook

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"cdblab/helpers/results"
)

// panel is one of the trees of processes of a picture.
type panel struct {
	when    string            // "before", "after", or "" where the title says all
	title   []string          // equal trees are one panel, and each has a line
	parents map[string]string // process → parent
	dead    map[string]bool   // processes that have died; they are drawn where they were
	adopted map[string]bool   // processes that have another parent than before
}

// parents draws who is whose parent. Each fact "…: parents…" is a tree. The first one shows how it was. In a later tree that has a
// process of the first one, the processes that are missing have died.
func parents(q *results.Question) (picture, error) {
	p := picture{Title: "Who is whose parent"}
	var panels []*panel
	for _, f := range factsNamed(q, ": parents") {
		tree := tableOf(f)
		if tree == nil {
			continue
		}
		if len(tree) > maxProcesses {
			return p, fmt.Errorf("the fact %q has %d processes, and a picture has room for %d", f.Name, len(tree), maxProcesses)
		}
		of, when, _ := strings.Cut(f.Name, ": parents")
		title := of
		if when = strings.TrimSpace(when); when != "" {
			title = when + ": " + of
		}
		now := &panel{when: when, title: []string{title}, parents: tree, dead: map[string]bool{}, adopted: map[string]bool{}}
		if len(panels) > 0 {
			now.compare(panels[0], tableNamed(q, of))
			if i := slices.IndexFunc(panels, func(p *panel) bool { return p.equal(now) }); i >= 0 && when != "" {
				panels[i].title = append(panels[i].title, title)
				continue
			}
		}
		panels = append(panels, now)
	}
	if len(panels) == 0 {
		return p, fmt.Errorf("a fact that ends with %q and has elements is missing", ": parents")
	}
	p.Drawing = drawPanels(panels)
	p.Table = [][]string{{"when", "process", "parent"}}
	for _, now := range panels {
		for _, process := range slices.Sorted(maps.Keys(now.parents)) {
			parent := now.parents[process]
			if now.dead[process] {
				parent = "the process is dead; its parent was " + parent
			}
			p.Table = append(p.Table, []string{strings.Join(now.title, "; "), process, parent})
		}
	}
	if slices.ContainsFunc(panels, func(p *panel) bool { return hasTrue(p.dead) }) {
		p.Note = "A dashed box with ✗ is a process that has died: it stands where it was."
	}
	if slices.ContainsFunc(panels, func(p *panel) bool { return hasTrue(p.adopted) }) {
		p.Note += " A thick line leads to an orphan that was adopted."
	}
	return p, nil
}

func hasTrue(m map[string]bool) bool { return slices.Contains(slices.Collect(maps.Values(m)), true) }

// tableNamed returns the elements of the fact with a name, or nil.
func tableNamed(q *results.Question, name string) map[string]string {
	f, err := factNamed(q, name)
	if err != nil {
		return nil
	}
	return tableOf(f)
}

// compare marks what is different from the tree before. Seen says "none" of processes that were not there before.
func (p *panel) compare(before *panel, seen map[string]string) {
	common := false
	for process := range p.parents {
		common = common || before.parents[process] != ""
	}
	if !common {
		return
	}
	for process, parent := range before.parents {
		switch now, alive := p.parents[process]; {
		case alive:
			p.adopted[process] = now != parent
		case seen[process] != "none":
			p.parents[process], p.dead[process] = parent, true
		}
	}
}

func (p *panel) equal(other *panel) bool {
	return p.when == other.when && maps.Equal(p.parents, other.parents) && maps.Equal(p.dead, other.dead)
}

const (
	maxProcesses = 30

	boxHeight  = lineHeight + 10
	levelGap   = 26 // between a parent and its children
	treeGap    = 16
	panelGap   = 34
	panelWidth = 30 // characters of a title's line
	pageWidth  = 860
)

// drawPanels sets the trees beside each other, in as many rows as the page needs.
func drawPanels(panels []*panel) *drawing {
	d := &drawing{}
	x, y, bottom := 1, 1, 0
	for _, p := range panels {
		var lines []string
		for _, t := range p.title {
			lines = append(lines, wrap(t, panelWidth)...)
		}
		width := max(widest(lines...), p.width())
		if x > 1 && x+width > pageWidth {
			x, y = 1, bottom+panelGap
		}
		d.text("title", x, y, lines...)
		top, left := y+len(lines)*lineHeight+10, x
		for _, root := range p.roots() {
			p.draw(d, root, left, top)
			left += p.span(root) + treeGap
		}
		x += width + panelGap
		bottom = max(bottom, d.Height)
	}
	return d
}

// roots are the processes whose parent is not known.
func (p *panel) roots() []string {
	roots := map[string]bool{}
	for _, parent := range p.parents {
		if _, known := p.parents[parent]; !known {
			roots[parent] = true
		}
	}
	return slices.Sorted(maps.Keys(roots))
}

func (p *panel) children(of string) []string {
	var out []string
	for _, process := range slices.Sorted(maps.Keys(p.parents)) {
		if p.parents[process] == of {
			out = append(out, process)
		}
	}
	return out
}

func (p *panel) width() int {
	w := 0
	for i, root := range p.roots() {
		if i > 0 {
			w += treeGap
		}
		w += p.span(root)
	}
	return w
}

func (p *panel) label(process string) string {
	if p.dead[process] {
		return "✗ " + process
	}
	return process
}

// span returns the width of a process and its descendants.
func (p *panel) span(process string) int {
	return max(p.spanOfChildren(process), textWidth(p.label(process))+2*pad)
}

const siblingGap = 14

func (p *panel) spanOfChildren(process string) int {
	w := 0
	for i, child := range p.children(process) {
		if i > 0 {
			w += siblingGap
		}
		w += p.span(child)
	}
	return w
}

// draw draws a process and its descendants, and returns the middle of its box. It ends: a root is no descendant of itself, and
// each other process has one parent.
func (p *panel) draw(d *drawing, process string, x, y int) int {
	span, w := p.span(process), textWidth(p.label(process))+2*pad
	middle := x + span/2
	class := "process"
	if _, known := p.parents[process]; !known {
		class = "root"
	}
	if p.dead[process] {
		class = "dead"
	}
	if p.adopted[process] {
		class = "adopted"
	}
	d.box(class, middle-w/2, y, w, boxHeight, p.label(process))
	left := x + (span-p.spanOfChildren(process))/2
	for _, child := range p.children(process) {
		to := p.draw(d, child, left, y+boxHeight+levelGap)
		class := "edge"
		if p.dead[child] {
			class = "edge gone"
		} else if p.adopted[child] {
			class = "edge new"
		}
		if to-middle <= 1 && middle-to <= 1 {
			to = middle // rounding would bend the line
		}
		half := y + boxHeight + levelGap/2
		d.path(class, fmt.Sprintf("M%d %dV%dH%dV%d", middle, y+boxHeight, half, to, y+boxHeight+levelGap))
		left += p.span(child) + siblingGap
	}
	return middle
}
