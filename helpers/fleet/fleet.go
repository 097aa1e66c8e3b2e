package fleet

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"cdblab/helpers/compare"
	"cdblab/helpers/results"
)

// A Fleet is a number of nodes, in groups that have the same facts.
type Fleet struct {
	Nodes    int      // that are compared
	LeftOut  int      // questions that are not compared, because not all nodes were asked them
	Groups   []*Group // the largest first
	Problems []Problem
}

// A Group has nodes on which the lab has observed the same.
type Group struct {
	Number int // from 1, which is the largest group
	Nodes  []string
	Run    *results.Run // of one of them
	Stack  []Part       // what was tested on them
	Node   []Part       // what else they are: system, init, security modules, settings of the kernel

	Base      *Group             // the larger group that differs in the fewest questions; nil if there is no larger one
	Questions []compare.Question // those that differ: A is Base, B is this group
	NotHere   []string           // tests of questions that only Base was asked
	OnlyHere  []string           // tests of questions that only this group was asked
	Behind    []Change           // the parts of the stack, and the properties of the nodes, that differ

	byTest map[string]*results.Question
	config []Part // the configuration of the nodes' own containerd
}

// New makes the groups. The cache is that with which the nodes were read.
//
// Nodes that were asked by another version of the lab than most are a problem, and are not compared. With common, all nodes are
// compared, by the questions and facts that all have.
func New(cache *results.Cache, nodes []Node, common bool, problems ...Problem) *Fleet {
	f := &Fleet{Problems: problems}
	if !common {
		nodes = f.oneVersion(nodes)
	}
	f.unfinished(nodes)
	if common {
		nodes = f.inCommon(cache, nodes)
	}
	f.Nodes = len(nodes)
	f.group(nodes)
	for _, g := range f.Groups {
		f.compare(g)
	}
	return f
}

// Equal reports whether all nodes have the same facts.
func (f *Fleet) Equal() bool { return len(f.Groups) == 1 }

// group makes the groups. Questions that have observed the same are the same pointer, see [results.Cache].
func (f *Fleet) group(nodes []Node) {
	ids := map[*results.Question]int{}
	keys := map[*results.Run]string{}
	groups := map[string]*Group{}
	tested, others, configs := map[*Group]stacks{}, map[*Group]stacks{}, map[*Group]stacks{}
	for _, n := range nodes {
		key, ok := keys[n.Run]
		if !ok {
			key = keyOf(n.Run, ids)
			keys[n.Run] = key
		}
		g := groups[key]
		if g == nil {
			g = &Group{Run: n.Run, byTest: map[string]*results.Question{}}
			for _, q := range n.Run.Questions {
				g.byTest[q.Test] = q
			}
			groups[key] = g
			tested[g], others[g], configs[g] = stacks{}, stacks{}, stacks{}
			f.Groups = append(f.Groups, g)
		}
		g.Nodes = append(g.Nodes, n.Name)
		tested[g].addTested(n.Run.Stack)
		others[g].addNode(n.Run.Stack, configs[g])
	}
	slices.SortStableFunc(f.Groups, func(a, b *Group) int { return len(b.Nodes) - len(a.Nodes) })
	for i, g := range f.Groups {
		g.Number, g.Stack, g.Node, g.config = i+1, tested[g].parts(), others[g].parts(), configs[g].parts()
	}
}

// keyOf returns a string that two runs share if they have the same questions.
func keyOf(run *results.Run, ids map[*results.Question]int) string {
	var key []int
	for _, q := range run.Questions {
		if ids[q] == 0 {
			ids[q] = len(ids) + 1
		}
		key = append(key, ids[q])
	}
	slices.Sort(key) // facts.json may have another order in another run
	return fmt.Sprint(key)
}

// compare compares a group with the larger group that is nearest to it. The largest group has none.
func (f *Fleet) compare(g *Group) {
	fewest := 0
	for _, other := range f.Groups {
		if len(other.Nodes) <= len(g.Nodes) && other.Number > 1 || other == g {
			break // they are sorted by their size
		}
		if n := g.distance(other); g.Base == nil || n < fewest {
			g.Base, fewest = other, n
		}
	}
	if g.Base == nil {
		return
	}
	for _, q := range g.Run.Questions {
		there := g.Base.byTest[q.Test]
		switch {
		case there == nil:
			g.OnlyHere = append(g.OnlyHere, q.Test)
		case there != q:
			if c, _ := compare.Questions(there, q); len(c.Differences)+len(c.Unobserved) > 0 {
				g.Questions = append(g.Questions, c)
			}
		}
	}
	for _, q := range g.Base.Run.Questions {
		if g.byTest[q.Test] == nil {
			g.NotHere = append(g.NotHere, q.Test)
		}
	}
	g.Behind = g.changes()
}

// distance returns how many questions differ.
func (g *Group) distance(other *Group) int {
	n := max(0, len(other.byTest)-len(g.byTest))
	for test, q := range g.byTest {
		if other.byTest[test] != q {
			n++
		}
	}
	return n
}

// unfinished reports the nodes on which the run did not come to its end.
func (f *Fleet) unfinished(nodes []Node) {
	names := map[string][]string{} // the questions without a verdict → nodes
	times := map[string]int{}
	for _, n := range nodes {
		var tests []string
		for _, q := range n.Run.Questions {
			if q.Verdict == results.Unfinished {
				tests = append(tests, q.Test)
			}
		}
		if len(tests) > 0 {
			what := fmt.Sprintf("%s without a verdict (%s)", count(len(tests), "question"), some(tests))
			names[what] = append(names[what], n.Name)
			times[what]++
		}
	}
	for _, what := range largestFirst(times) {
		f.Problems = append(f.Problems, Problem{names[what], "the run did not come to its end: " + what + "\n" +
			"  what to do: see what the run has printed on the node, and run it again"})
	}
}

// Failed returns the tests of the questions that failed, or did not end, on the nodes of a group.
func (g *Group) Failed() []string {
	var out []string
	for _, q := range g.Run.Questions {
		if q.Verdict == results.Failed || q.Verdict == results.Unfinished {
			out = append(out, q.Test)
		}
	}
	return out
}

// Differences returns how many facts, clauses, verdicts and answers differ from the base, and in how many questions.
func (g *Group) Differences() (differences, questions int) {
	for _, q := range g.Questions {
		if len(q.Differences) > 0 {
			questions++
		}
		differences += len(q.Differences)
	}
	return differences, questions
}

// OddFirst returns the groups, the smallest first.
func (f *Fleet) OddFirst() []*Group {
	out := slices.Clone(f.Groups)
	slices.Reverse(out)
	return out
}

// String returns the nodes and the text, for the terminal.
func (p Problem) String() string {
	names := some(p.Nodes)
	if len(p.Nodes) > 1 {
		names = count(len(p.Nodes), "node") + " (" + names + ")"
	}
	return names + ": " + p.Text
}

// some returns the first names of a list.
func some(names []string) string {
	const shown = 5
	if len(names) > shown {
		return fmt.Sprintf("%s and %s more", strings.Join(names[:shown], ", "), number(len(names)-shown))
	}
	return strings.Join(names, ", ")
}

// count returns "1 node" or "5,000 nodes".
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return number(n) + " " + what + "s"
}

// number returns 5,000 for 5000.
func number(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s,%03d", number(n/1000), n%1000)
}

// largestFirst sorts keys by how often they occur.
func largestFirst(times map[string]int) []string {
	keys := make([]string, 0, len(times))
	for k := range times {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int { return cmp.Or(times[b]-times[a], strings.Compare(a, b)) })
	return keys
}
