//go:build linux

package mutants

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/results"
	"cdblab/helpers/trial"
)

// fake is a campaign that builds and runs nothing: outcomes says what becomes of the mutant at a line.
func fake(t *testing.T, n int, outcomes map[int]Outcome) (c *Campaign, ran *[]string) {
	t.Helper()
	ran = new([]string)
	var mu sync.Mutex
	c = &Campaign{
		Target: Target{Name: "runc"}, Seed: 3, N: n, Dir: t.TempDir(), Digest: "source 1", Lab: trial.Lab{Jobs: 1}, Logf: t.Logf,
		version: "v1.5.2",
	}
	open(t, c)
	c.load = func(context.Context) (iter.Seq[Mutant], error) {
		return func(yield func(Mutant) bool) {
			for line := 1; line <= 9; line++ {
				if !yield(Mutant{File: "example.com/a/b/c.go", Line: line, Start: line, Change: fmt.Sprintf("change %d", line)}) {
					return
				}
			}
		}, nil
	}
	c.try = func(_ context.Context, m *Mutant, name string, deadline time.Duration) (Result, error) {
		mu.Lock()
		defer mu.Unlock()
		r := Result{Outcome: Survived, Took: time.Second, Source: c.Digest, Deadline: deadline}
		if m != nil {
			name, r.Outcome = fmt.Sprint(m.Line), outcomes[m.Line]
		}
		*ran = append(*ran, name)
		if r.Outcome == "" {
			return r, context.Canceled
		}
		return r, nil
	}
	return c, ran
}

func open(t *testing.T, c *Campaign) {
	t.Helper()
	var err error
	c.dir = c.stateDir()
	c.state, err = OpenState(c.dir, "runc", "v1.5.2", 3)
	assert.NilError(t, err)
}

func TestCampaign_ReplacesWhatDoesNotBuild(t *testing.T) {
	c, ran := fake(t, 3, map[int]Outcome{1: Killed, 2: NoBuild, 3: Survived, 4: NoBuild, 5: Hung})
	assert.NilError(t, c.runAll(t.Context(), nil))
	assert.DeepEqual(t, *ran, []string{"honest", "1", "2", "3", "4", "5"})
	s := NewTable(c.state, 3, nil).Score()
	assert.Equal(t, s, Score{Killed: 1, Hung: 1, Survived: 1, Unread: 1, NoBuild: 2})
}

func TestCampaign_GoesOnWhereItWasStopped(t *testing.T) {
	c, ran := fake(t, 3, map[int]Outcome{1: Killed})
	assert.Check(t, errors.Is(c.runAll(t.Context(), nil), context.Canceled))
	assert.DeepEqual(t, *ran, []string{"honest", "1", "2"})
	again, ran := fake(t, 4, map[int]Outcome{1: Killed, 2: Survived, 3: Killed, 4: Killed})
	again.Dir = c.Dir
	open(t, again)
	assert.NilError(t, again.runAll(t.Context(), nil))
	assert.DeepEqual(t, *ran, []string{"2", "3", "4"})

	// The questions have changed: they may notice what they did not notice. What they noticed, they still notice.
	open(t, again)
	again.Digest, *ran = "source 2", nil
	assert.NilError(t, again.runAll(t.Context(), nil))
	assert.DeepEqual(t, *ran, []string{"honest", "2"})
}

// A mutant is of a line that the questions execute. Other questions execute other lines, and with ALL=1 it is any line.
func TestCampaign_DrawsOthersForOtherQuestions(t *testing.T) {
	all := map[int]Outcome{}
	for line := range 10 {
		all[line] = Killed
	}
	c, ran := fake(t, 2, all)
	load := c.load
	c.load = func(ctx context.Context) (iter.Seq[Mutant], error) {
		seq, err := load(ctx)
		first := map[string]int{"": 1, "Lifecycle": 3, "Task": 5}[c.Questions]
		if c.All {
			first = 7
		}
		return func(yield func(Mutant) bool) {
			seq(func(m Mutant) bool { return m.Line < first || yield(m) })
		}, err
	}
	for _, of := range []struct {
		questions string
		all       bool
		want      []string
	}{
		{"", false, []string{"honest", "1", "2"}},
		{"Lifecycle", false, []string{"honest", "3", "4"}},
		{"Task", false, []string{"honest", "5", "6"}},
		{"", true, []string{"honest", "7", "8"}},
		{"Lifecycle", false, nil}, // it has them already
	} {
		c.Questions, c.All, *ran = of.questions, of.all, nil
		open(t, c)
		assert.NilError(t, c.runAll(t.Context(), nil))
		assert.DeepEqual(t, *ran, of.want)
	}
}

// With a delay, a question must not fail. The reader mends the question that does, and runs the same command again.
func TestCampaign_RunsADelayAgainWhenTheQuestionsHaveChanged(t *testing.T) {
	c, ran := fake(t, 2, map[int]Outcome{1: Killed, 2: Hung})
	load := c.load
	c.load = func(ctx context.Context) (iter.Seq[Mutant], error) {
		seq, err := load(ctx)
		return func(yield func(Mutant) bool) {
			seq(func(m Mutant) bool { m.Kind = Delayed; return yield(m) })
		}, err
	}
	assert.NilError(t, c.runAll(t.Context(), nil))
	*ran = nil
	assert.NilError(t, c.runAll(t.Context(), nil))
	assert.Equal(t, len(*ran), 0)
	c.Digest = "source 2"
	assert.NilError(t, c.runAll(t.Context(), nil))
	assert.DeepEqual(t, *ran, []string{"honest", "1", "2"})
}

// The deadline may have been too short for an honest program, too.
func TestCampaign_RunsAgainWhatGetsMoreTime(t *testing.T) {
	c, ran := fake(t, 2, map[int]Outcome{1: Killed, 2: Hung})
	for _, d := range []struct {
		deadline time.Duration
		want     []string
	}{
		{time.Minute, []string{"honest", "1", "2"}},
		{time.Minute, nil},
		{0, []string{"2"}}, // two minutes and three seconds
		{time.Minute, nil},
		{time.Hour, []string{"2"}},
	} {
		c.Deadline, *ran = d.deadline, nil
		assert.NilError(t, c.runAll(t.Context(), nil))
		assert.DeepEqual(t, *ran, d.want)
	}
}

// Nothing is known of a mutant whose run has met a limit of the machine, or could not be confined. The others run, and this one runs
// again with the next command.
func TestCampaign_GoesOnAfterAMutantWithoutAResult(t *testing.T) {
	c, ran := fake(t, 3, map[int]Outcome{1: Hung, 2: Killed, 3: Killed})
	try, mended := c.try, false
	c.try = func(ctx context.Context, m *Mutant, name string, d time.Duration) (Result, error) {
		r, err := try(ctx, m, name, d)
		switch {
		case m == nil || mended:
		case m.Line == 1:
			r.Message = "memory: this machine has only 3 MB available"
		case m.Line == 2:
			return Result{}, fmt.Errorf("%w: look at 2.log", trial.ErrNotConfined)
		}
		return r, err
	}
	assert.ErrorContains(t, c.runAll(t.Context(), nil), "2 mutants have no result")
	assert.DeepEqual(t, *ran, []string{"honest", "1", "2", "3"})
	table := NewTable(c.state, 3, nil)
	assert.Equal(t, table.Score(), Score{Killed: 1, NotRun: 2})
	var text strings.Builder
	assert.NilError(t, table.WriteText(&text))
	assert.Check(t, cmp.Contains(text.String(), "not run: memory: this machine has only 3 MB available"))
	assert.Check(t, cmp.Contains(text.String(), "not run: the questions could not be confined: look at 2.log"))

	mended, *ran = true, nil
	assert.NilError(t, c.runAll(t.Context(), nil))
	assert.DeepEqual(t, *ran, []string{"1", "2"})
}

// Of two mutants at the same time, either one may have taken the memory of the machine.
func TestCampaign_RunsAloneWhatTheMachineCutOff(t *testing.T) {
	c, ran := fake(t, 2, map[int]Outcome{1: Hung, 2: Hung})
	c.Jobs = 2
	try, memory := c.try, "memory: this machine has only 3 MB available"
	var deadlines []time.Duration
	c.try = func(ctx context.Context, m *Mutant, name string, d time.Duration) (Result, error) {
		r, err := try(ctx, m, name, d)
		if m != nil && m.Line == 2 {
			deadlines = append(deadlines, d)
			if r.Message = memory; len(deadlines) == 2 {
				r.Outcome, r.Message = Survived, ""
			}
		}
		return r, err
	}
	assert.NilError(t, c.runAll(t.Context(), nil))
	assert.Check(t, cmp.Len(*ran, 4)) // honest, 1 and 2, and 2 again
	assert.Equal(t, NewTable(c.state, 2, nil).Score(), Score{Hung: 1, Survived: 1, Unread: 1})
	const twice = 2 * (3*time.Second + 2*time.Minute)
	assert.DeepEqual(t, deadlines, []time.Duration{twice, twice})
}

func TestCampaign_NeedsAnHonestBuildThatPasses(t *testing.T) {
	c, ran := fake(t, 3, nil)
	try := c.try
	c.try = func(ctx context.Context, m *Mutant, name string, d time.Duration) (Result, error) {
		r, err := try(ctx, m, name, d)
		r.Outcome, r.Question, r.Message = Killed, "TestTask_A", "no cgroup"
		return r, err
	}
	err := c.runAll(t.Context(), nil)
	assert.ErrorContains(t, err, "the honest build has to pass, and did not: killed by Task_A")
	assert.ErrorContains(t, err, "no cgroup")
	assert.DeepEqual(t, *ran, []string{"honest"})
}

func TestCampaign_SaysWhenThereAreNoFurtherMutants(t *testing.T) {
	all := map[int]Outcome{}
	for line := range 10 {
		all[line] = Killed
	}
	c, _ := fake(t, 20, all)
	assert.NilError(t, c.runAll(t.Context(), nil))
	assert.Equal(t, c.N, 9)
}

func TestJudge(t *testing.T) {
	at := time.Now()
	failed := func(test string, after time.Duration, text string) *results.Question {
		return &results.Question{
			Test: test, Text: "?", Verdict: results.Failed, Begin: at, Elapsed: after, Steps: []*results.Step{{}},
			Logs: []results.Log{
				{Kind: "log", Text: "a note", At: "a_test.go:1"},
				{Kind: "log", Text: text, At: "a_test.go:2"},
			},
		}
	}
	answered := &results.Question{Test: "TestTask_C", Text: "?", Verdict: results.Answered, Steps: []*results.Step{{}}}
	hangs := &results.Question{
		Test: "TestTask_D", Text: "?", Verdict: results.Unfinished, Steps: []*results.Step{{}, {Number: 1, Text: "wait"}},
	}
	late, early := failed("TestTask_A", time.Hour, "assertion failed: late"), failed("TestTask_B", time.Second, "assertion failed: x")
	changed := results.Run{Lines: []string{"cdblab: the run changed the host: mount left", "FAIL"}, Questions: []*results.Question{answered}}
	for name, row := range map[string]struct {
		run    results.Run
		code   int
		cutOff string
		want   Result
	}{
		"passes": {results.Run{Questions: []*results.Question{answered}}, 0, "", Result{Outcome: Survived}},
		"answers nothing": {results.Run{Lines: []string{"cdblab: no question was answered"}}, 0, "",
			Result{Outcome: Killed, Message: "the run ended with exit code 0: no question was answered"}},
		"the first failure": {results.Run{Questions: []*results.Question{late, early}}, 1, "",
			Result{Outcome: Killed, Question: "TestTask_B", Message: "a_test.go:2: assertion failed: x"}},
		"the lab itself": {changed, 1, "",
			Result{Outcome: Killed, Message: "the run ended with exit code 1: the run changed the host: mount left"}},
		"hangs": {results.Run{Questions: []*results.Question{answered, hangs}}, 137, "deadline: it did not end within 2s",
			Result{Outcome: Hung, Question: "TestTask_D", Message: "deadline: it did not end within 2s. It did not end. Its last step: wait"}},
	} {
		t.Run(name, func(t *testing.T) {
			assert.DeepEqual(t, judge(&row.run, row.code, row.cutOff), row.want)
		})
	}
}

func TestTable(t *testing.T) {
	state := &State{Target: "runc", Version: "v1.5.2", Seed: 3, Results: map[string]Result{}}
	for i, r := range []Result{
		{Outcome: Killed, Question: "TestLifecycle_A", Message: "a | b"}, {Outcome: Hung, Message: "deadline"},
		{Outcome: Survived}, {Outcome: Survived}, {Outcome: Survived}, {Outcome: NoBuild}, {Outcome: Killed},
	} {
		m := Mutant{File: "github.com/opencontainers/runc/a.go", Line: i, Start: i, Func: "f", Kind: CallDeleted}
		m.Change = fmt.Sprintf("delete call(%d)", i)
		state.Mutants = append(state.Mutants, m)
		state.Results[m.ID()] = r
	}
	verdicts, err := parseVerdicts(strings.NewReader(`file,function,change,verdict,reason
runc/a.go,f,delete call(2),equivalent,the next call does the same
runc/a.go,f,delete call(3),missing assertion,"no question reads it, yet"
`))
	assert.NilError(t, err)
	table := NewTable(state, 5, verdicts)
	score := table.Score()
	assert.Equal(t, score, Score{Killed: 1, Hung: 1, Survived: 3, Equivalent: 1, MissingAssertion: 1, Unread: 1, NoBuild: 1})
	percent, ok := score.Percent()
	assert.Check(t, ok && percent == 50, "%v", percent)
	var text, markdown, csv strings.Builder
	assert.NilError(t, errors.Join(table.WriteText(&text), table.WriteMarkdown(&markdown), table.WriteCSV(&csv)))
	assert.Check(t, cmp.Contains(text.String(), "1  runc/a.go:0  f  call deleted\n     delete call(0)\n     killed by Lifecycle_A: a | b\n"))
	assert.Check(t, cmp.Contains(text.String(), "score: 50 % killed"))
	assert.Check(t, cmp.Contains(text.String(), "does not build  runc/a.go:5"))
	assert.Check(t, cmp.Contains(markdown.String(), `| killed by Lifecycle_A | a \| b |`))
	assert.Check(t, cmp.Contains(markdown.String(), "missing assertion: no question reads it, yet |"))
	assert.Check(t, cmp.Contains(markdown.String(), "| survived |  | ? |"))
	assert.Check(t, cmp.Contains(csv.String(), "runc/a.go,f,delete call(2),equivalent,the next call does the same"))
}

func TestVerdicts_RefusesWhatHasNoMeaning(t *testing.T) {
	const head = "file,function,change,verdict,reason\n"
	for text, want := range map[string]string{
		"":                           "the first line has to be",
		head + "a,b,c,maybe,d\n":     `row 2: the verdict is "maybe"`,
		head + "a,b,c,equivalent,\n": "row 2: the verdict has no reason",
		head + strings.Repeat("a,b,c,equivalent,d\n", 2): "row 3: there is a verdict about this mutant already",
	} {
		_, err := parseVerdicts(strings.NewReader(text))
		assert.Check(t, cmp.ErrorContains(err, want))
	}
	_, err := ReadVerdicts("../../" + VerdictsFile)
	assert.NilError(t, err, "the verdicts of the lab itself can be read")
}
