package compare

import (
	"errors"
	"fmt"
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
		Test: test, Text: "What does " + test + " show?", Verdict: results.Answered, Answer: "It shows it.",
		Steps: []*results.Step{{}, step},
	}
}

func withClause(q *results.Question, text string, met bool, seen string) *results.Question {
	q.Steps[1].Items = append(q.Steps[1].Items, results.Item{Clause: &results.Clause{Text: text, Met: met, Seen: seen}})
	return q
}

func ended(q *results.Question, v results.Verdict, kind, message string) *results.Question {
	q.Verdict, q.Answer = v, ""
	q.Logs = append(q.Logs, results.Log{Kind: kind, Text: message, At: "kill_test.go:7"})
	return q
}

// doubtful marks the facts of a question as in doubt.
func doubtful(q *results.Question) *results.Question {
	for _, f := range q.Facts() {
		f.Doubt = true
	}
	return q
}

func run(questions ...*results.Question) *results.Run {
	return &results.Run{Questions: questions, Verdict: results.Answered, Stack: &results.Stack{Kernel: "6.1", Machine: "x86_64", Cgroup: "v2"}}
}

func mustCompare(t *testing.T, a, b *results.Run) *Comparison {
	t.Helper()
	c, err := Runs(Side{"RUNC=1", a}, Side{"RUNC=2", b})
	assert.NilError(t, err)
	return c
}

// told returns the differences, each on a line.
func told(c *Comparison) string {
	var out []string
	for _, q := range c.Questions {
		for _, d := range q.Differences {
			out = append(out, fmt.Sprintf("%s %s %s %s: %s: %q %q", q.Test, d.Kind, d.Change, d.Step.Text, d.Name, d.A, d.B))
		}
		for _, u := range q.Unobserved {
			out = append(out, q.Test+" "+u)
		}
	}
	return strings.Join(out, "\n")
}

func TestRuns_TellsWhatDiffers(t *testing.T) {
	two := func(r *results.Run) *results.Run {
		r.Questions = append(r.Questions, question("TestOther", "always", "the same"))
		return r
	}
	answers := func(q *results.Question, answer string) *results.Question { q.Answer = answer; return q }
	subtest := func(q *results.Question, v results.Verdict) *results.Question {
		q.Subtests = []*results.Subtest{{Name: "part", Verdict: v}}
		q.Steps[1].Subtest = "part"
		return q
	}
	for _, row := range []struct {
		name string
		a, b *results.Question
		want string
	}{
		{"nothing", question("TestX", "fifo", "there"), question("TestX", "fifo", "there"), ""},
		{"a fact changed", question("TestX", "fifo", "there", "pid", "1"), question("TestX", "fifo", "gone", "pid", "1"),
			`TestX fact changed start the container: fifo: "there" "gone"`},
		{"a fact vanished and one appeared", question("TestX", "fifo", "there"), question("TestX", "socket", "there"),
			"TestX fact vanished start the container: fifo: \"there\" \"\"\nTestX fact appeared start the container: socket: \"\" \"there\""},
		{"the order of facts is no difference", question("TestX", "a", "1", "b", "2"), question("TestX", "b", "2", "a", "1"), ""},
		{"an answer", question("TestX"), answers(question("TestX"), "It does not."), `TestX answer changed : : "It shows it." "It does not."`},
		{"a deviation came",
			withClause(question("TestX"), "Kill: MUST", true, ""),
			withClause(question("TestX"), "Kill: MUST", false, "it does not"),
			`TestX clause changed start the container: Kill: MUST: "met" "not met: it does not"`},
		{"a clause that is tested twice is met if it is met twice",
			withClause(withClause(question("TestX"), "Kill: MUST", true, ""), "Kill: MUST", false, "once not"),
			withClause(question("TestX"), "Kill: MUST", false, "once not"), ""},
		{"a clause appeared", question("TestX"), withClause(question("TestX"), "Kill: MUST", true, ""),
			`TestX clause appeared start the container: Kill: MUST: "" "met"`},
		{"a failure hides the facts after it", question("TestX", "fifo", "there", "a", "1", "b", "2"),
			ended(question("TestX", "fifo", "gone"), results.Failed, "error", "no such pid"),
			"TestX verdict changed : : \"answered\" \"failed: kill_test.go:7: no such pid\"\n" +
				"TestX fact changed start the container: fifo: \"there\" \"gone\"\n" +
				"TestX 2 of A's facts were not observed in B: there the question is failed."},
		{"a skip", ended(question("TestX"), results.Skipped, "skip", "no criu here"), question("TestX", "a", "1"),
			"TestX verdict changed : : \"skipped: no criu here\" \"answered\"\n" +
				"TestX 1 of B's facts were not observed in A: there the question is skipped."},
		{"skips for two reasons",
			ended(question("TestX"), results.Skipped, "skip", "no criu"),
			ended(question("TestX"), results.Skipped, "skip", "no v2"),
			`TestX verdict changed : : "skipped: no criu" "skipped: no v2"`},
		{"messages of failures have pids",
			ended(question("TestX"), results.Failed, "error", "pid 7"),
			ended(question("TestX"), results.Failed, "error", "pid 8"), ""},
		{"a part that only one run lists: a facts.json leaves out those that were answered",
			question("TestX"), subtest(question("TestX"), results.Skipped),
			`TestX verdict changed : part: "answered" "skipped"`},
		{"a part of which a failed question says nothing",
			ended(question("TestX"), results.Failed, "error", "it broke"),
			ended(subtest(question("TestX"), results.Failed), results.Failed, "error", "it broke"), ""},
		{"a fact in doubt", question("TestX", "fifo", "there"), doubtful(ended(question("TestX", "fifo", "gone"), results.Failed, "error", "no")),
			"TestX verdict changed : : \"answered\" \"failed: kill_test.go:7: no\"\n" +
				`TestX fact changed start the container: fifo: "there" "gone (in doubt: an assertion before it has failed)"`},
		{"a part that is skipped hides its facts",
			subtest(question("TestX", "a", "1"), results.Answered),
			subtest(question("TestX"), results.Skipped),
			"TestX verdict changed : part: \"answered\" \"skipped\"\n" +
				"TestX 1 of A's facts were not observed in B: a part of the question has no answer there."},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := mustCompare(t, two(run(row.a)), two(run(row.b)))
			assert.Equal(t, told(c), row.want)
			assert.Equal(t, c.Equal(), row.want == "")
		})
	}
}

func TestRuns_TellsQuestionsOfOneRun(t *testing.T) {
	c := mustCompare(t, run(question("TestX"), question("TestA")), run(question("TestX"), question("TestB")))
	assert.DeepEqual(t, []any{c.OnlyA, c.OnlyB, c.Both, c.Equal()}, []any{[]string{"TestA"}, []string{"TestB"}, 1, false})
	var out strings.Builder
	assert.NilError(t, WriteText(&out, c))
	assert.Check(t, cmp.Contains(out.String(), "! 1 question is asked in A only: TestA."))
	assert.Check(t, cmp.Contains(out.String(), "No difference in the questions that both ask: 1 question and 0 facts are in both runs."))
}

func TestRuns_RefusesRunsWithNothingInCommon(t *testing.T) {
	_, err := Runs(Side{"a", run(question("TestA"))}, Side{"b", run(question("TestB"))})
	assert.ErrorContains(t, err, "no question in common: a asks 1 questions (TestA …), b asks 1 (TestB …)")
	_, err = Runs(Side{"a", &results.Run{Problems: []string{"The stream is empty."}}}, Side{"b", run(question("TestB"))})
	assert.ErrorContains(t, err, "a has no questions: The stream is empty.")
}

func TestExcerpt_ShowsWhereLongValuesDiffer(t *testing.T) {
	long := strings.TrimSpace(strings.Repeat("word ", 30))
	for _, row := range [][4]string{
		{"one two", "one three", "one two", "one three"}, // short values are shown in full
		{long + " x " + long, long + " y z " + long,
			"… word word word word x word word word word …", "… word word word word y z word word word word …"},
		{"x " + long + " x", "y " + long + " y",
			"x word word word word … word word word word x", "y word word word word … word word word word y"},
		{long, "other", long, "other"},
		{long, long + " more", long, "… word word word word more"},
		{"", "", "", ""},
	} {
		a, b := Excerpt(row[0], row[1])
		assert.Check(t, cmp.Equal(a, row[2]))
		assert.Check(t, cmp.Equal(b, row[3]))
	}
}

// A hostile run: its texts are code in HTML, in Markdown and in a spreadsheet.
const hostile = "=<script>alert(1)</script> | ` [x](javascript:alert(1)) \"'>"

func hostileComparison(t *testing.T) (*results.Run, *results.Run, *Comparison) {
	q := func(value string) *results.Question {
		out := withClause(question("TestX", hostile, value), hostile, value == hostile, hostile)
		out.Test, out.Text, out.Answer, out.Steps[1].Text = "Test"+hostile, hostile, value, hostile
		return out
	}
	a, b := run(q(hostile)), run(q(""))
	b.Stack.Kernel = hostile
	a.Problems = []string{hostile}
	return a, b, mustCompare(t, a, b)
}

func TestPages_ExecuteNothingOfARun(t *testing.T) {
	a, b, c := hostileComparison(t)
	var page, markdown, table, matrix strings.Builder
	assert.NilError(t, WriteHTML(&page, c))
	assert.NilError(t, WriteMarkdown(&markdown, c))
	m := NewMatrix([]Column{{Name: hostile, Run: a}, {Name: "B", Run: b}, {Name: "C", Err: errors.New(hostile)}})
	assert.NilError(t, WriteMatrixHTML(&matrix, m))
	assert.NilError(t, WriteCSV(&table, m))
	for name, out := range map[string]string{"page": page.String(), "Markdown": markdown.String(), "matrix": matrix.String()} {
		assert.Check(t, !strings.Contains(out, "<script"), "%s:\n%s", name, out)
		assert.Check(t, cmp.Contains(out, "&lt;script&gt;"), name)
	}
	for _, out := range []string{page.String(), matrix.String()} {
		assert.Check(t, !strings.Contains(out, "src=") && !strings.Contains(out, "href="), "the page refers to something:\n%s", out)
	}
	for line := range strings.Lines(markdown.String()) {
		assert.Check(t, !strings.ContainsAny(line, "[]"), "a link in Markdown: %s", line)
		if strings.HasPrefix(line, "| changed") {
			assert.Check(t, cmp.Equal(strings.Count(line, "|"), 5), "cells of %s", line)
		}
	}
	assert.Check(t, !strings.Contains(table.String(), ",\"=") && !strings.Contains(table.String(), ",="), "a formula:\n%s", table.String())
}

func TestWriteText_NamesQuestionAndStep(t *testing.T) {
	a, b := run(question("TestX", "fifo", "there")), run(question("TestX", "fifo", "gone"))
	a.Stack.Programs = []results.Program{{Name: "runc", Version: "runc version 1.3.4 (build tags seccomp)", Digest: "sha256:a"}}
	b.Stack.Programs = []results.Program{{Name: "runc", Version: "runc version 1.3.5 (build tags seccomp)", Digest: "sha256:b"}}
	var out strings.Builder
	assert.NilError(t, WriteText(&out, mustCompare(t, a, b)))
	assert.Equal(t, out.String(), `      A       B
      RUNC=1  RUNC=2
runc  1.3.4   1.3.5
the same in both: questions 1 answered, kernel 6.1 x86_64, cgroup v2

What does TestX show?
TestX
  What lies behind it is runc: 1.3.4 → 1.3.5
  start the container
    ~ fifo
        A  there
        B  gone

1 question differs: 1 fact changed. 1 question and 1 fact are in both runs.
`)
}

func TestMatrix_HasTheRowsThatDiffer(t *testing.T) {
	m := NewMatrix([]Column{
		{Name: "1", Run: run(question("TestX", "fifo", "there", "same", "x", "old", "1"))},
		{Name: "2", Run: run(question("TestX", "fifo", "there", "same", "x"))},
		{Name: "3", Run: run(ended(question("TestX", "fifo", "gone"), results.Failed, "error", "it broke"))},
		{Name: "4", Err: errors.New("it does not build")},
	})
	var out strings.Builder
	assert.NilError(t, WriteCSV(&out, m))
	assert.Equal(t, out.String(), `question,test,step,kind,name,1,2,3,4
What does TestX show?,TestX,,verdict,verdict,answered,answered,failed: kill_test.go:7: it broke,no run
What does TestX show?,TestX,start the container,fact,fifo,there,there,gone,no run
What does TestX show?,TestX,start the container,fact,old,1,no such fact,not observed,no run
`)
	assert.Equal(t, m.Summary(), "3 of 4 runs. The runs have 3 facts; 3 rows differ, in 1 question.")
	assert.DeepEqual(t, m.Questions[0].Rows[1].Spans(), []Span{
		{Cell{Value: "there"}, 2, 1}, {Cell{Value: "gone"}, 1, 2}, {Cell{Missing: "no run"}, 1, 0},
	})
}

// A facts.json has no reasons, and messages of failures have pids.
func TestMatrix_ComparesVerdictsWithoutTheirMessages(t *testing.T) {
	skip := func(reason string) *results.Question {
		q := question("TestX")
		q.Verdict = results.Skipped
		if reason != "" {
			q.Logs = []results.Log{{Kind: "skip", Text: reason}}
		}
		return q
	}
	fail := func(message string) *results.Question {
		return ended(question("TestX"), results.Failed, "error", message)
	}
	part := func(q *results.Question, v results.Verdict) *results.Question {
		q.Subtests = []*results.Subtest{{Name: "part", Verdict: v}}
		return q
	}
	for name, c := range map[string]struct {
		questions []*results.Question
		rows      int
	}{
		"a skip with and without a reason": {[]*results.Question{skip("no criu"), skip(""), skip("no criu")}, 0},
		"skips for two reasons":            {[]*results.Question{skip(""), skip("no criu"), skip("no v2")}, 1},
		"failures with other pids":         {[]*results.Question{fail("pid 7"), fail("pid 8")}, 0},
		"another verdict":                  {[]*results.Question{fail("pid 7"), skip("no criu")}, 1},
		"a part":                           {[]*results.Question{question("TestX"), part(question("TestX"), results.Skipped)}, 1},
	} {
		var columns []Column
		for _, q := range c.questions {
			columns = append(columns, Column{Run: run(q)})
		}
		rows := 0
		for _, q := range NewMatrix(columns).Questions {
			rows += len(q.Rows)
		}
		assert.Check(t, cmp.Equal(rows, c.rows), name)
	}
	m := NewMatrix([]Column{{Run: run(question("TestX"))}, {Run: run(part(question("TestX"), results.Skipped))}})
	assert.Equal(t, m.Questions[0].Rows[0].Label(), "verdict of part")
}

// A row needs two runs that say something. So runs that have no question in common have no row, and are not equal.
func TestMatrix_RunsWithNothingInCommonAreNotCompared(t *testing.T) {
	ab := []Column{{Name: "a", Run: run(question("TestA"))}, {Name: "b", Run: run(question("TestB"), question("TestC"))}}
	m := NewMatrix(ab)
	assert.Error(t, m.Comparable(), "no two of the runs have a question in common: a asks 1 (TestA …), b asks 2 (TestB …)")
	assert.Check(t, cmp.Contains(m.Summary(), "Nothing is compared: no two of the runs"))

	empty := &results.Run{Problems: []string{"It is empty."}}
	m = NewMatrix(append(ab, Column{Name: "c", Run: run(question("TestB"))}, Column{Name: "d", Run: empty}))
	assert.NilError(t, m.Comparable())
	assert.DeepEqual(t, m.Missing(), []string{
		"a: the run has no question in common with another one. It asks 1 (TestA …)",
		"d: the run has no questions: It is empty.",
	})

	// While the first run is there, the others are still to be made.
	assert.NilError(t, NewMatrix(ab[:1]).Comparable())
	assert.Equal(t, len(NewMatrix(ab[:1]).Missing()), 0)
	assert.NilError(t, NewMatrix([]Column{ab[0], {Name: "e", Err: errors.New("it does not build")}}).Comparable())
}

func TestMatrix_SaysWhatIsNotComplete(t *testing.T) {
	failed := func() *results.Question { return ended(question("TestX"), results.Failed, "error", "it broke") }
	a, b, c := run(failed(), question("TestA")), run(failed()), run(failed(), question("TestA"))
	a.Stack.Chapter, b.Stack.Chapter = "sha256:1", "sha256:2"
	b.Problems = []string{"The stream ends before the run does."}
	c.FailedAtEnd, c.Lines = true, []string{"cdblab: the run changed the host: a mount is left", "FAIL"}
	m := NewMatrix([]Column{{Name: "a", Run: a}, {Name: "b", Run: b}, {Name: "c", Run: c}, {Name: "d", Err: errors.New("no")}})
	want := []string{
		"The questions themselves are not the same in all runs: other versions of the lab asked those of b. A difference may be the lab's.",
		"b: The stream ends before the run does.",
		"b: it has not asked 1 question of other runs: TestA.",
		"c: the run failed for a reason that is not in its questions: the run changed the host: a mount is left",
		"TestX failed in all runs: what it did not observe is not compared.",
	}
	assert.DeepEqual(t, m.Warnings(), want)
	var page strings.Builder
	assert.NilError(t, WriteMatrixHTML(&page, m))
	for _, warning := range want {
		assert.Check(t, cmp.Contains(page.String(), strings.ReplaceAll(warning, "'", "&#39;")))
	}
	same := NewMatrix([]Column{{Name: "a", Run: run(question("TestX"))}, {Name: "b", Run: run(question("TestX"))}})
	assert.Equal(t, len(same.Warnings()), 0)
}

// The page has six colours. A missing value has none, and no two values have the same one.
func TestSpans_HaveAGroupForEachValue(t *testing.T) {
	row := Row{Cells: []Cell{
		{Value: ""}, {Missing: notAsked}, {Value: "2"}, {Value: "3"}, {Value: "4"}, {Value: "5"}, {Value: "6"}, {Value: "7"},
	}}
	var groups []int
	for _, s := range row.Spans() {
		groups = append(groups, s.Group)
	}
	assert.DeepEqual(t, groups, []int{1, 0, 2, 3, 4, 5, 6, 7})
}

// A run that changed the host has failed, although each of its questions was answered.
func TestRuns_TellsThatARunFailedThoughNoQuestionDid(t *testing.T) {
	a, b := run(question("TestX")), run(question("TestX"))
	b.Verdict, b.FailedAtEnd = results.Failed, true
	b.Lines = []string{"cdblab: the run changed the host: a mount is left", "FAIL"}
	c := mustCompare(t, a, b)
	assert.Check(t, !c.Equal())
	const want = "B: the run failed for a reason that is not in its questions: the run changed the host: a mount is left"
	assert.DeepEqual(t, c.Warnings(), []string{want})
	assert.Check(t, cmp.Contains(c.Summary(), "No difference in the questions that both ask: "))
	assert.Equal(t, c.Stacks()[0].B, "1 answered, and the run failed")
}

// Two runs that hang in the same question are equal only before it.
func TestRuns_ThatDidNotEndAreNotEqual(t *testing.T) {
	hangs := func() *results.Question {
		return ended(question("TestX", "fifo", "there"), results.Unfinished, "log", "waiting")
	}
	a, b := run(question("TestA"), hangs()), run(question("TestA"), hangs())
	c := mustCompare(t, a, b)
	assert.Check(t, c.Equal() && !c.Whole())
	assert.DeepEqual(t, c.Warnings(), []string{
		"A: 1 question did not end, so facts may be missing: TestX.", "B: 1 question did not end, so facts may be missing: TestX."})
	assert.Equal(t, c.Summary(), "No difference before one of the runs ended early: 2 questions and 1 fact are in both runs.")
	m := NewMatrix([]Column{{Name: "a", Run: a}, {Name: "b", Run: b}})
	assert.DeepEqual(t, m.Warnings(), []string{
		"a: 1 question did not end, so facts may be missing: TestX.", "b: 1 question did not end, so facts may be missing: TestX."})
	assert.Check(t, mustCompare(t, run(question("TestX")), run(question("TestX"))).Whole())
}

// A CI refuses a summary of more than 1 MiB, in the run where it is needed.
func TestWriteMarkdown_IsNotTooLong(t *testing.T) {
	a, b := run(), run()
	add := func(test, value string) {
		a.Questions = append(a.Questions, question(test, "fact", value))
		b.Questions = append(b.Questions, question(test, "fact", "other"))
	}
	add("TestFirst", "1")
	for _, test := range []string{"TestA", "TestB", "TestC"} {
		add(test, strings.Repeat("~", 100_000)) // one word, so it has no excerpt
	}
	add("TestLast", "1")
	var out strings.Builder
	assert.NilError(t, WriteMarkdown(&out, mustCompare(t, a, b)))
	assert.Check(t, out.Len() < 1<<20, "%d bytes", out.Len())
	for _, want := range []string{"TestFirst", "TestA", "TestLast", "Left out: 2 questions."} {
		assert.Check(t, strings.Contains(out.String(), want), "%s is missing", want)
	}
}

func TestVersion_LeavesOutWhatSaysNothing(t *testing.T) {
	for _, row := range [][3]string{
		{"runc", "runc version 1.5.2 (build tags seccomp netgo)", "1.5.2"},
		{"runc", "runc version 1.3.5 (go1.26.8, build tags seccomp,netgo)", "1.3.5"},
		{"containerd", "containerd github.com/containerd/containerd/v2 2.4.2+unknown (build tags no_cri)", "2.4.2"},
		{"containerd-shim-runc-v2", "Version: 1.6.20~ds1", "1.6.20~ds1"},
		{"busybox", "BusyBox v1.35.0 (Debian 1:1.35.0-4) multi-call binary.", "v1.35.0 (Debian 1:1.35.0-4)"},
		{"runc", "crun version 1.8.1", "crun 1.8.1"}, // not the program that its name promises
		{"runc", "runc version unknown", "unknown"},
		{"runc", "", "unknown version"},
	} {
		assert.Check(t, cmp.Equal(Version(results.Program{Name: row[0], Version: row[1]}), row[2]))
	}
}
