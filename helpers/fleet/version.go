package fleet

import (
	"fmt"
	"strings"

	"cdblab/helpers/results"
)

// oneVersion returns the nodes that the version of the lab has asked that most nodes have. The others are a problem: where the
// questions differ, a difference of the facts says nothing about the nodes.
func (f *Fleet) oneVersion(nodes []Node) []Node {
	names := map[string][]string{}
	times := map[string]int{}
	for _, n := range nodes {
		v := version(n.Run)
		names[v] = append(names[v], n.Name)
		times[v]++
	}
	versions := largestFirst(times)
	if len(versions) < 2 {
		return nodes
	}
	most := versions[0]
	for _, v := range versions[1:] {
		f.Problems = append(f.Problems, Problem{names[v], fmt.Sprintf("not compared: the questions are of %s, "+
			"and those of the other %s (%s) of %s\n"+
			"  what to do: run the same version of the lab on all nodes, name the results of one version only, or compare what all have in "+
			"common: -common", v, count(times[most], "node"), some(names[most]), most)})
	}
	var out []Node
	for _, n := range nodes {
		if version(n.Run) == most {
			out = append(out, n)
		}
	}
	return out
}

// version returns the version of the lab that has made a run.
func version(run *results.Run) string {
	if run.Stack == nil || run.Stack.Chapter == "" {
		return "a lab that did not record its version"
	}
	digest := strings.TrimPrefix(run.Stack.Chapter, "sha256:")
	return "lab " + digest[:min(12, len(digest))]
}

// inCommon returns the nodes with the questions that all of them were asked, and in each question the facts and clauses that all
// have that answered it. Answers are left out: each version of the lab has its own words. Nodes without a common question are a
// problem, and are not compared.
func (f *Fleet) inCommon(cache *results.Cache, nodes []Node) []Node {
	asked := map[string]int{}                                  // test → number of runs
	questions := map[string]map[*results.Question]bool{}       // test → its different outcomes
	runs := map[*results.Run]*results.Run{}                    // nil until it is made
	kept := map[*results.Question]*results.Question{}          // with what is common alone
	names := func(q *results.Question) (out map[string]bool) { // of its facts and clauses
		out = map[string]bool{}
		for _, f := range q.Facts() {
			out["fact "+f.Name] = true
		}
		for _, c := range q.Clauses() {
			out["clause "+c.Text] = true
		}
		return out
	}
	for _, n := range nodes {
		if _, known := runs[n.Run]; known {
			continue
		}
		runs[n.Run] = nil
		for _, q := range n.Run.Questions {
			asked[q.Test]++
			if questions[q.Test] == nil {
				questions[q.Test] = map[*results.Question]bool{}
			}
			questions[q.Test][q] = true
		}
	}
	for test, outcomes := range questions {
		if asked[test] < len(runs) {
			f.LeftOut++
		}
		times, answered := map[string]int{}, 0
		for q := range outcomes {
			if q.Verdict != results.Answered {
				continue
			}
			answered++
			for name := range names(q) {
				times[name]++
			}
		}
		for q := range outcomes {
			kept[q] = cache.Same(only(q, func(name string) bool { return times[name] == answered }))
		}
	}
	var out []Node
	var all []string
	for _, n := range nodes {
		all = append(all, n.Name)
		if runs[n.Run] == nil {
			run := &results.Run{Stack: n.Run.Stack, Verdict: n.Run.Verdict}
			for _, q := range n.Run.Questions {
				if asked[q.Test] == len(runs) {
					run.Questions = append(run.Questions, kept[q])
				}
			}
			runs[n.Run] = run
		}
		n.Run = runs[n.Run]
		out = append(out, n)
	}
	if len(questions) > 0 && f.LeftOut == len(questions) {
		f.Problems = append(f.Problems, Problem{all, "not compared: they have no question in common\n" +
			"  what to do: ask all nodes the same questions, or name the results of one version of the lab only"})
		return nil
	}
	return out
}

// only returns a question with some of its facts and clauses.
func only(q *results.Question, keep func(name string) bool) *results.Question {
	out := *q
	out.Answer, out.Steps = "", nil
	for _, s := range q.Steps {
		step := *s
		step.Items = nil
		for _, item := range s.Items {
			if item.Fact != nil && keep("fact "+item.Fact.Name) || item.Clause != nil && keep("clause "+item.Clause.Text) {
				step.Items = append(step.Items, item)
			}
		}
		out.Steps = append(out.Steps, &step)
	}
	return &out
}
