package fleet

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/results"
)

// question returns a question with one step, in which the facts were observed. The facts are names and values, in turn.
func question(test string, facts ...string) *results.Question {
	step := &results.Step{Number: 1, Text: "start the container"}
	for i := 0; i < len(facts); i += 2 {
		step.Items = append(step.Items, results.Item{Fact: &results.Fact{Name: facts[i], Value: facts[i+1], Step: 1}})
	}
	return &results.Question{
		Test: test, Text: "What does " + test + " show?", Verdict: results.Answered, Steps: []*results.Step{{}, step},
	}
}

func ended(q *results.Question, v results.Verdict) *results.Question {
	q.Verdict = v
	return q
}

// run returns a run of version 1 of the lab, of runc 1.3.4.
func run(questions ...*results.Question) *results.Run {
	return &results.Run{Questions: questions, Verdict: results.Answered, Stack: &results.Stack{
		Kernel: "6.1", Machine: "x86_64", Cgroup: "v2", Chapter: "sha256:111111111111111",
		Programs: []results.Program{{Name: "runc", Version: "runc version 1.3.4", Digest: "sha256:aaaaaaaaaaaaaaaaaaaa"}},
		Node:     []results.Property{{Name: "security modules", Value: "selinux"}, {Name: "/etc/containerd/config.toml version", Value: "2"}},
	}}
}

func with(run *results.Run, change func(*results.Stack)) *results.Run {
	change(run.Stack)
	return run
}

func factsOf(t testing.TB, run *results.Run) []byte {
	t.Helper()
	var b bytes.Buffer
	assert.NilError(t, results.WriteFacts(&b, run))
	return b.Bytes()
}

// members are nodes with the same result. Their names are the number of the members, and a letter.
type members struct {
	letter string
	n      int
	run    *results.Run
}

// fleetOf returns the fleet of the nodes, as their facts.json are read.
func fleetOf(t *testing.T, common bool, all ...members) *Fleet {
	t.Helper()
	cache := &results.Cache{}
	var nodes []Node
	for _, m := range all {
		for i := range m.n {
			run, err := cache.Read(factsOf(t, m.run))
			assert.NilError(t, err)
			nodes = append(nodes, Node{Name: fmt.Sprintf("%s%d", m.letter, i+1), Run: run})
		}
	}
	return New(cache, nodes, common)
}

// sizes describes each group, the largest first: its nodes, and the group with which it is compared.
func sizes(f *Fleet) []string {
	var out []string
	for _, g := range f.Groups {
		base := ""
		if g.Base != nil {
			base = fmt.Sprintf(" against %d", g.Base.Number)
		}
		out = append(out, strings.Join(g.Nodes, " ")+base)
	}
	return out
}

func TestNew_GroupsNodesWithTheSameFacts(t *testing.T) {
	f := fleetOf(t, false,
		members{"a", 1, run(question("TestX", "fifo", "gone"), question("TestY", "pid", "1"))},
		members{"b", 3, run(question("TestX", "fifo", "there"), question("TestY", "pid", "1"))},
		// The order of the questions and facts, the programs and the kernel are no facts.
		members{"c", 1, with(run(question("TestY", "pid", "1"), question("TestX", "fifo", "there")),
			func(s *results.Stack) { s.Kernel = "6.12" })},
	)
	assert.DeepEqual(t, sizes(f), []string{"b1 b2 b3 c1", "a1 against 1"})
	assert.Check(t, !f.Equal())
	assert.DeepEqual(t, f.Groups[0].Stack[0], Part{"kernel", []Value{{"6.1", "6.1", 3}, {"6.12", "6.12", 1}}})
	assert.Equal(t, f.Summary(), "5 nodes in 2 groups: the nodes of a group have the same facts. "+
		"The largest group has 4 nodes (2 questions, 2 facts).")
}

func TestNew_OfEqualNodes(t *testing.T) {
	f := fleetOf(t, false, members{"a", 2, run(question("TestX", "fifo", "there"))})
	assert.Check(t, f.Equal())
	assert.Equal(t, f.Summary(), "2 nodes: no difference (1 question, 1 fact).")
}

// A group that has all that another one has, and one difference more, is compared with that one, and not with the largest.
func TestNew_ComparesWithTheNearestLargerGroup(t *testing.T) {
	f := fleetOf(t, false,
		members{"a", 5, run(question("TestX", "x", "1"), question("TestY", "y", "1"), question("TestZ", "z", "1"))},
		members{"b", 3, run(question("TestX", "x", "2"), question("TestY", "y", "2"), question("TestZ", "z", "1"))},
		members{"c", 1, run(question("TestX", "x", "2"), question("TestY", "y", "2"), question("TestZ", "z", "2"))},
		members{"d", 1, run(question("TestX", "x", "1"), question("TestY", "y", "1"), question("TestZ", "z", "2"))},
		members{"e", 1, run(question("TestX", "x", "2"))},
	)
	assert.DeepEqual(t, sizes(f), []string{"a1 a2 a3 a4 a5", "b1 b2 b3 against 1", "c1 against 2", "d1 against 1", "e1 against 2"})
	assert.DeepEqual(t, f.Groups[4].NotHere, []string{"TestY", "TestZ"})
	assert.Equal(t, f.Groups[4].Against(), "Compared with group 2 (A: 3 nodes), this group (B) has 0 differences in 0 questions. "+
		"2 questions were asked only in A: TestY, TestZ.")
}

// As many nodes as the largest group has: the first one by name is the largest, so that each other group has a base.
func TestNew_GroupsOfTheSameSize(t *testing.T) {
	f := fleetOf(t, false,
		members{"a", 1, run(question("TestX", "x", "1"))}, members{"b", 1, run(question("TestX", "x", "2"))},
		members{"c", 1, run(question("TestX", "x", "3"))})
	assert.DeepEqual(t, sizes(f), []string{"a1", "b1 against 1", "c1 against 1"})
}

func TestNew_SaysWhatMayBeBehindADifference(t *testing.T) {
	f := fleetOf(t, false,
		members{"a", 2, run(question("TestX", "x", "1"))},
		members{"b", 1, with(run(question("TestX", "x", "1")), func(s *results.Stack) { s.Kernel = "6.12" })},
		members{"c", 1, with(run(question("TestX", "x", "2")), func(s *results.Stack) {
			s.Kernel = "6.12" // a node of the other group has it too: it cannot be the reason
			s.Programs = []results.Program{{Name: "runc", Version: "runc version 1.3.5", Digest: "sha256:b"}}
		})},
		members{"d", 1, with(run(question("TestX", "x", "3")), func(s *results.Stack) {
			s.Programs = []results.Program{{Name: "runc", Version: "runc version 1.3.4", Digest: "sha256:bbbbbbbbbbbbbbbbb"}}
		})},
		members{"e", 1, run(question("TestX", "x", "4"))},
		members{"f", 1, with(run(question("TestX", "x", "5")), func(s *results.Stack) { s.Node[0].Value = "apparmor" })},
		members{"g", 1, with(run(question("TestX", "x", "6")), func(s *results.Stack) { s.Node[1].Value = "3" })},
	)
	var got []string
	for _, g := range f.Groups[1:] {
		got = append(got, g.Because())
	}
	assert.DeepEqual(t, got, []string{
		"What may be behind it: runc: A 1.3.4, B 1.3.5.",
		"What may be behind it: runc: A 1.3.4 (sha256 aaaaaaaaaaaa…), B 1.3.4 (sha256 bbbbbbbbbbbb…).",
		"No part of the stack tells the two groups apart. Look at what the lab does not record: configuration files, modules, hardware.",
		"What may be behind it: security modules: A selinux, B apparmor.",
		"No part of the stack tells the two groups apart. Look at what the lab does not record: configuration files, modules, hardware.",
	})
}

// A part that one group lacks tells the two apart. If a node of the other group lacks it as well, it cannot be the reason.
func TestNew_SaysWhichPartAGroupLacks(t *testing.T) {
	parameter := func(s *results.Stack) {
		s.Node = append(s.Node, results.Property{Name: "kernel parameters", Value: "swapaccount=1"})
	}
	crun := func(s *results.Stack) {
		s.Programs = append(s.Programs, results.Program{Name: "crun", Version: "crun version 1.8"})
	}
	both := func(s *results.Stack) { parameter(s); crun(s) }
	older := func(s *results.Stack) { s.Node = nil }
	f := fleetOf(t, false,
		members{"a", 2, with(run(question("TestX", "x", "1")), crun)},
		members{"b", 1, with(run(question("TestX", "x", "1")), both)},
		members{"c", 2, run(question("TestX", "x", "2"))},
		members{"d", 1, with(run(question("TestX", "x", "3")), both)},
		members{"e", 1, with(run(question("TestX", "x", "4")), func(s *results.Stack) { older(s); crun(s) })},
	)
	var got []string
	for _, g := range f.Groups[1:] {
		got = append(got, g.Because())
	}
	const nothing = "No part of the stack tells the two groups apart. " +
		"Look at what the lab does not record: configuration files, modules, hardware."
	assert.DeepEqual(t, got, []string{"What may be behind it: crun: A 1.8, B not recorded.", nothing, nothing})
}

// One question reads the configuration of the node's own containerd.
func TestNew_TheConfigurationOfContainerdMayBeBehindItsQuestion(t *testing.T) {
	const test = "TestTask_WhatDoesConfigTOMLDecideForAPod"
	f := fleetOf(t, false,
		members{"a", 2, run(question("TestX", "x", "1"), question(test, "x", "1"))},
		members{"b", 1, with(run(question("TestX", "x", "1"), question(test, "x", "2")), func(s *results.Stack) { s.Node[1].Value = "3" })},
		members{"c", 1, with(run(question("TestX", "x", "1"), question(test, "x", "3")), func(s *results.Stack) { s.Node = s.Node[:1] })},
		members{"d", 1, with(run(question("TestX", "x", "2"), question(test, "x", "1")), func(s *results.Stack) { s.Node[1].Value = "3" })},
	)
	assert.Equal(t, f.Groups[1].Because(), "What may be behind it: /etc/containerd/config.toml version: A 2, B 3.")
	assert.Equal(t, f.Groups[2].Because(), "What may be behind it: /etc/containerd/config.toml version: A 2, B not recorded.")
	assert.Equal(t, len(f.Groups[3].Behind), 0)
}

func TestNew_DoesNotCompareVersionsOfTheLab(t *testing.T) {
	other := func(s *results.Stack) { s.Chapter = "sha256:2222222222222222" }
	older := func(s *results.Stack) { s.Chapter = "" }
	all := []members{
		{"a", 3, run(question("TestX", "x", "1"), question("TestY", "y", "1"))},
		{"b", 2, with(run(question("TestX", "x", "2"), question("TestNew", "n", "1")), other)},
		{"c", 1, with(run(question("TestX", "x", "1", "old", "1"), question("TestY", "y", "1")), older)},
	}
	f := fleetOf(t, false, all...)
	assert.DeepEqual(t, sizes(f), []string{"a1 a2 a3"})
	var got []string
	for _, p := range f.Problems {
		got = append(got, p.String())
	}
	const remedy = "\n  what to do: run the same version of the lab on all nodes, name the results of one version only, " +
		"or compare what all have in common: -common"
	assert.DeepEqual(t, got, []string{
		"2 nodes (b1, b2): not compared: the questions are of lab 222222222222, " +
			"and those of the other 3 nodes (a1, a2, a3) of lab 111111111111" + remedy,
		"c1: not compared: the questions are of a lab that did not record its version, " +
			"and those of the other 3 nodes (a1, a2, a3) of lab 111111111111" + remedy,
	})

	f = fleetOf(t, true, all...)
	assert.DeepEqual(t, sizes(f), []string{"a1 a2 a3 c1", "b1 b2 against 1"})
	assert.Equal(t, len(f.Problems), 0)
	assert.Equal(t, f.Groups[0].Run.Questions[0].Test, "TestX")
	assert.Equal(t, len(f.Groups[0].Run.Questions), 1, "only TestX was asked everywhere")
	assert.Check(t, cmp.Contains(f.Summary(), "(1 question, 1 fact; left out: 2 questions that not all nodes were asked)"))
}

// A question that failed on a node lacks facts there, which all others have in common.
func TestNew_InCommonIsWhatAllHaveThatAnswered(t *testing.T) {
	f := fleetOf(t, true,
		members{"a", 2, run(question("TestX", "x", "1", "y", "1"))},
		members{"b", 1, run(question("TestX", "x", "1", "y", "2"))},
		members{"c", 1, run(ended(question("TestX", "x", "1"), results.Failed))})
	assert.DeepEqual(t, sizes(f), []string{"a1 a2", "b1 against 1", "c1 against 1"})
}

func TestNew_ARunThatDidNotEndIsAProblem(t *testing.T) {
	f := fleetOf(t, false, members{"a", 2, run(question("TestX", "x", "1"))},
		members{"b", 1, run(ended(question("TestX"), results.Unfinished))})
	assert.DeepEqual(t, sizes(f), []string{"a1 a2", "b1 against 1"})
	assert.Equal(t, len(f.Problems), 1)
	assert.Check(t, cmp.Contains(f.Problems[0].String(), "b1: the run did not come to its end: 1 question without a verdict (TestX)"))
}

// What the nodes do not have in common is left out. A run that did not come to its end there is still no result.
func TestNew_InCommonARunThatDidNotEndIsAProblem(t *testing.T) {
	f := fleetOf(t, true, members{"a", 1, run(question("TestX"), ended(question("TestNew"), results.Unfinished))},
		members{"b", 1, run(question("TestX"))})
	assert.Check(t, f.Equal())
	assert.Equal(t, len(f.Problems), 1)
	assert.Check(t, cmp.Contains(f.Problems[0].String(), "a1: the run did not come to its end: 1 question without a verdict (TestNew)"))
}

// Where nothing is compared, nothing is equal.
func TestNew_NothingInCommonIsAProblem(t *testing.T) {
	f := fleetOf(t, true, members{"a", 1, run(question("TestX", "x", "1"))}, members{"b", 1, run(question("TestY", "y", "1"))})
	assert.Equal(t, f.Nodes, 0)
	assert.Check(t, !f.Equal())
	assert.Equal(t, f.Summary(), "No node is compared.")
	assert.Equal(t, len(f.Problems), 1)
	const want = "2 nodes (a1, b1): not compared: they have no question in common\n  what to do: "
	assert.Check(t, cmp.Contains(f.Problems[0].String(), want))

	f = fleetOf(t, true, members{"a", 1, run(question("TestX", "x", "1"))})
	assert.Equal(t, len(f.Problems), 0)
}

func TestNumber(t *testing.T) {
	var got []string
	for _, n := range []int{0, 999, 1000, 5000, 1234567} {
		got = append(got, number(n))
	}
	assert.DeepEqual(t, got, []string{"0", "999", "1,000", "5,000", "1,234,567"})
}

// odd is a fleet with two odd nodes.
func odd(t *testing.T) *Fleet {
	broken := ended(question("TestY"), results.Failed)
	return fleetOf(t, false,
		members{"a", 7, run(question("TestX", "fifo", "there", "lost", "=1"), question("TestY", "y", "1"))},
		members{"b", 1, run(question("TestX", "fifo", "gone", "new", "1"), broken)},
		members{"c", 2, with(run(question("TestX", "fifo", "gone", "lost", "=1"), question("TestY", "y", "1")),
			func(s *results.Stack) { s.Kernel = "6.12" })},
	)
}

func TestWriteText_HasTheOddOnesFirst(t *testing.T) {
	f := odd(t)
	f.Problems = append(f.Problems, Problem{[]string{"n9/facts.json"}, "it is empty"})
	var out strings.Builder
	assert.NilError(t, WriteText(&out, f))
	assert.Equal(t, out.String(), `10 nodes in 3 groups: the nodes of a group have the same facts. The largest group has 7 nodes (2 questions, 3 facts).
! n9/facts.json: it is empty

Group 3: 1 node
  b1
  tested: kernel 6.1; machine x86_64; cgroup v2; runc 1.3.4
  failed: TestY
  Compared with group 1 (A: 7 nodes), this group (B) has 4 differences in 2 questions.
  No part of the stack tells the two groups apart. Look at what the lab does not record: configuration files, modules, hardware.
    What does TestX show?
    TestX
      start the container
        ~ fifo
            A  there
            B  gone
        ~ lost
            A  =1
            B  (no such fact)
        ~ new
            A  (no such fact)
            B  1
    What does TestY show?
    TestY
        ~ verdict
            A  answered
            B  failed
        1 of A's facts were not observed in B: there the question is failed.

Group 2: 2 nodes
  c1, c2
  tested: kernel 6.12; machine x86_64; cgroup v2; runc 1.3.4
  Compared with group 1 (A: 7 nodes), this group (B) has 1 difference in 1 question.
  What may be behind it: kernel: A 6.1, B 6.12.
    What does TestX show?
    TestX
      start the container
        ~ fifo
            A  there
            B  gone

Group 1: 7 nodes
  a1, a2, a3, a4, a5 and 2 more
  tested: kernel 6.1; machine x86_64; cgroup v2; runc 1.3.4
`)
}

// Many groups, or many differences, do not hide the others: the text is short, and says so.
func TestWriteText_IsShort(t *testing.T) {
	var all []members
	for i := range 30 {
		var facts []string
		for j := range 30 {
			facts = append(facts, fmt.Sprint("fact ", j), fmt.Sprint(i))
		}
		all = append(all, members{fmt.Sprintf("n%02d-", i), 1, run(question("TestX", facts...))})
	}
	var out strings.Builder
	assert.NilError(t, WriteText(&out, fleetOf(t, false, all...)))
	text := out.String()
	assert.Equal(t, strings.Count(text, "\nGroup "), 20)
	assert.Equal(t, strings.Count(text, "        ~ "), 19*10)
	assert.Check(t, cmp.Contains(text, "Not shown here: 10 groups"))
	assert.Check(t, cmp.Contains(text, "… and 20 more differences. The page and the tables have all.\n"))
	assert.Check(t, strings.HasSuffix(text,
		"\nGroup 1: 1 node\n  n00-1\n  tested: kernel 6.1; machine x86_64; cgroup v2; runc 1.3.4\n"), text[len(text)-200:])
}

func TestTables(t *testing.T) {
	var nodes, differences strings.Builder
	assert.NilError(t, WriteNodes(&nodes, odd(t)))
	lines := strings.Split(nodes.String(), "\n")
	assert.DeepEqual(t, lines[:4], []string{
		"node,group,nodes of the group,compared with group,failed,kernel,machine,cgroup,runc,security modules",
		"b1,3,1,1,TestY,6.1,x86_64,v2,1.3.4,selinux",
		"c1,2,2,1,,6.12,x86_64,v2,1.3.4,selinux", "c2,2,2,1,,6.12,x86_64,v2,1.3.4,selinux",
	})
	assert.Equal(t, len(lines), 1+10+1)
	assert.NilError(t, WriteDifferences(&differences, odd(t)))
	assert.Equal(t, differences.String(), `group,nodes,compared with group,question,test,step,kind,name,there,here
3,1,1,What does TestX show?,TestX,start the container,fact,fifo,there,gone
3,1,1,What does TestX show?,TestX,start the container,fact,lost,'=1,(no such fact)
3,1,1,What does TestX show?,TestX,start the container,fact,new,(no such fact),1
3,1,1,What does TestY show?,TestY,,verdict,,answered,failed
2,2,1,What does TestX show?,TestX,start the container,fact,fifo,there,gone
`)
}

// A question that a node was not asked is a row as well.
func TestWriteDifferences_HasQuestionsThatWereNotAsked(t *testing.T) {
	f := fleetOf(t, false,
		members{"a", 2, run(question("TestX"), question("TestY"))}, members{"b", 1, run(question("TestX"), question("TestZ"))})
	var out strings.Builder
	assert.NilError(t, WriteDifferences(&out, f))
	assert.DeepEqual(t, strings.Split(out.String(), "\n")[1:3], []string{
		"2,1,1,What does TestY show?,TestY,,question,,asked,not asked", "2,1,1,What does TestZ show?,TestZ,,question,,not asked,asked",
	})
}

func sortedNames(nodes []Node) []string {
	var out []string
	for _, n := range nodes {
		out = append(out, n.Name)
	}
	slices.Sort(out)
	return out
}
