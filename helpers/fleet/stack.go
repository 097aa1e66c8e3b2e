package fleet

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"cdblab/helpers/compare"
	"cdblab/helpers/host"
	"cdblab/helpers/results"
)

// A Part is a part of what was tested on the nodes of a group: the kernel, a program. Or it is a property of the nodes: their init.
type Part struct {
	Name   string
	Values []Value // the most frequent first
}

// A Value is what some nodes have for a part.
type Value struct {
	Shown    string // the version
	Identity string // the digest of a program: two values are the same if it is the same
	Nodes    int
}

// A Change is a part of the stack of which two groups have no value in common. So it may be what is behind their differences.
type Change struct{ Name, There, Here string }

// stacks counts the stacks of the nodes of a group. Nodes with the same facts may have different programs.
type stacks map[string]map[Value]int

func (s stacks) count(name, shown, identity string) {
	if s[name] == nil {
		s[name] = map[Value]int{}
	}
	s[name][Value{Shown: shown, Identity: identity}]++
}

// addTested adds what was tested on a node.
func (s stacks) addTested(stack *results.Stack) {
	if stack == nil {
		return
	}
	s.count("kernel", stack.Kernel, stack.Kernel)
	s.count("machine", stack.Machine, stack.Machine)
	s.count("cgroup", stack.Cgroup, stack.Cgroup)
	for _, p := range stack.Programs {
		s.count(p.Name, compare.Version(p), cmp.Or(p.Digest, p.Version))
	}
}

// addNode adds what else a node is. The configuration of its own containerd is apart: the lab's containerd does not read it.
func (s stacks) addNode(stack *results.Stack, config stacks) {
	if stack == nil {
		return
	}
	for _, p := range stack.Node {
		to := s
		if strings.HasPrefix(p.Name, host.ContainerdConfig) {
			to = config
		}
		to.count(p.Name, p.Value, p.Value)
	}
}

// inOrder are the parts that a reader looks at first. The others follow by their names.
var inOrder = []string{"kernel", "machine", "cgroup", "runc", "containerd", "ctr", "containerd-shim-runc-v2"}

func (s stacks) parts() []Part {
	var out []Part
	for name, values := range s {
		p := Part{Name: name}
		for v, nodes := range values {
			v.Nodes = nodes
			p.Values = append(p.Values, v)
		}
		slices.SortFunc(p.Values, func(a, b Value) int {
			return cmp.Or(b.Nodes-a.Nodes, strings.Compare(a.Shown, b.Shown), strings.Compare(a.Identity, b.Identity))
		})
		out = append(out, p)
	}
	place := func(p Part) int {
		if i := slices.Index(inOrder, p.Name); i >= 0 {
			return i
		}
		return len(inOrder)
	}
	slices.SortFunc(out, func(a, b Part) int { return cmp.Or(place(a)-place(b), strings.Compare(a.Name, b.Name)) })
	return out
}

// changes returns the parts of which a group and its base have no value in common. A lab that has recorded no stack, or nothing else of
// the nodes, says nothing about them.
func (g *Group) changes() []Change {
	var out []Change
	if len(g.Base.Stack) > 0 && len(g.Stack) > 0 {
		out = g.behind(g.Base.Stack, g.Stack)
	}
	if len(g.Base.Node) == 0 || len(g.Node) == 0 {
		return out
	}
	out = append(out, g.behind(g.Base.Node, g.Node)...)
	for _, c := range g.behind(g.Base.config, g.config) {
		if slices.ContainsFunc(g.Questions, func(q compare.Question) bool { return compare.ReadsNodeConfig(q.Test, c.Name) }) {
			out = append(out, c)
		}
	}
	return out
}

func (g *Group) behind(there, here []Part) []Change {
	names := map[string]bool{}
	var out []Change
	for _, p := range slices.Concat(there, here) {
		if names[p.Name] {
			continue
		}
		names[p.Name] = true
		a, b := partOf(there, p.Name, len(g.Base.Nodes)), partOf(here, p.Name, len(g.Nodes))
		if slices.ContainsFunc(a.Values, func(v Value) bool { return b.has(v.Identity) }) {
			continue
		}
		c := Change{p.Name, a.String(), b.String()}
		if c.There == c.Here { // two builds of one version
			c.There, c.Here = c.There+" ("+a.Values[0].short()+")", c.Here+" ("+b.Values[0].short()+")"
		}
		out = append(out, c)
	}
	return out
}

// partOf returns the part with a name. Nodes can lack it: a kernel parameter, a program. They have the value "not recorded".
func partOf(parts []Part, name string, nodes int) Part {
	p := Part{Name: name}
	if i := slices.IndexFunc(parts, func(p Part) bool { return p.Name == name }); i >= 0 {
		p.Values = slices.Clone(parts[i].Values)
	}
	for _, v := range p.Values {
		nodes -= v.Nodes
	}
	if nodes > 0 {
		p.Values = append(p.Values, Value{notRecorded, notRecorded, nodes})
	}
	return p
}

const notRecorded = "not recorded"

func (p Part) has(identity string) bool {
	return slices.ContainsFunc(p.Values, func(v Value) bool { return v.Identity == identity })
}

// String returns the value. If the nodes have several, it returns how many nodes have each.
func (p Part) String() string {
	if len(p.Values) == 1 {
		return p.Values[0].Shown
	}
	const shown = 3
	var out []string
	for _, v := range p.Values[:min(shown, len(p.Values))] {
		out = append(out, fmt.Sprintf("%s on %s", v.Shown, count(v.Nodes, "node")))
	}
	if len(p.Values) > shown {
		out = append(out, number(len(p.Values)-shown)+" more")
	}
	return strings.Join(out, ", ")
}

// short returns the beginning of the digest.
func (v Value) short() string {
	hex := strings.TrimPrefix(v.Identity, "sha256:")
	return "sha256 " + hex[:min(12, len(hex))] + "…"
}

// String returns the change in a sentence.
func (c Change) String() string { return fmt.Sprintf("%s: A %s, B %s", c.Name, c.There, c.Here) }
