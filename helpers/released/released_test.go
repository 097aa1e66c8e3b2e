package released

import (
	"context"
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/results"
	"cdblab/helpers/syllabus"
)

const good = `
[[bug]]
id = "kill"
refs = ["#1"]
module = "runc"
broken = "1.1.4"
fixed = "1.1.5"
det = "D"
sees = "Kill does nothing."
questions = ["TestLifecycle_Kill"]
message = "still alive"
`

func TestRead_TheTableOfTheProject(t *testing.T) {
	f, err := os.Open("../../testdata/released-bugs.toml")
	assert.NilError(t, err)
	defer f.Close()
	bugs, err := Read(f)
	assert.NilError(t, err)
	assert.Check(t, len(bugs) > 30, "the table has %d bugs", len(bugs))
	questions, err := syllabus.Read(os.DirFS("../.."))
	assert.NilError(t, err)
	for _, b := range bugs {
		for _, test := range regexp.MustCompile(`Test[A-Z]\w+`).FindAllString(strings.Join(b.Questions, " ")+" "+b.Unnoticed, -1) {
			exists := slices.ContainsFunc(questions, func(q syllabus.Question) bool { return q.Test == test })
			assert.Check(t, exists, "%s names %s, which is no question", b.ID, test)
		}
	}
}

func TestRead_SaysWhatIsWrong(t *testing.T) {
	for _, c := range []struct{ old, new, want string }{
		{`id = "kill"`, ``, "id is missing"},
		{`sees = `, `seen = `, "strict mode"},
		{`"runc"`, `"youki"`, `module is "youki"`},
		{`"runc"`, `"crun"`, "expected the key unnoticed with the reason"},
		{`fixed = "1.1.5"`, ``, "expected the key unnoticed with the reason"},
		{`det = "D"`, ``, `det is "", expected D, W, R or E`},
		{`det = "D"`, `det = "X"`, `det is "X", expected D, W, R or E`},
		{`"1.1.4"`, `"1.1"`, `"1.1" is no complete version`},
		{`"1.1.4"`, `"1.1.5"`, "expected the fixed version to be the later one"},
		{`["#1"]`, `[]`, "refs is missing"},
		{`"still alive"`, `"("`, "missing closing )"},
		{`message = "still alive"`, ``, "expected questions and a message"},
		{`"TestLifecycle_Kill"`, `"Kill"`, "no name of a question"},
		{`sees = `, "needs = \"luck\"\nsees = ", `needs is "luck"`},
	} {
		_, err := Read(strings.NewReader(strings.Replace(good, c.old, c.new, 1)))
		assert.Check(t, cmp.ErrorContains(err, c.want))
	}
	subtest := strings.Replace(good, "TestLifecycle_Kill", "TestLifecycle_Kill/by-number", 1)
	bugs, err := Read(strings.NewReader(subtest))
	assert.NilError(t, err)
	assert.Check(t, cmp.Equal(bugs[0].Pattern(), "^TestLifecycle_Kill$/^by-number$"))
	assert.Check(t, cmp.DeepEqual(bugs[0].Tests(), []string{"TestLifecycle_Kill"}))
	_, err = Read(strings.NewReader(strings.Replace(subtest, `by-number"`, `by-number", "TestLifecycle_Kill"`, 1)))
	assert.ErrorContains(t, err, "expected it to be the only entry")
	_, err = Read(strings.NewReader(good + good))
	assert.ErrorContains(t, err, "there twice")
	unnoticed := strings.NewReplacer("questions", "#", "message", "#", "sees", "unnoticed = \"a race\"\nsees").Replace(good)
	_, err = Read(strings.NewReader(unnoticed))
	assert.NilError(t, err)
	for name, without := range map[string]*strings.Replacer{
		"no fix": strings.NewReplacer(`"1.1.5"`, `""`), "crun, whose versions have two or three numbers": strings.NewReplacer(
			`"runc"`, `"crun"`, `"1.1.4"`, `"1.1"`),
	} {
		bugs, err := Read(strings.NewReader(without.Replace(unnoticed)))
		assert.NilError(t, err, name)
		assert.Check(t, !bugs[0].HasPair() && !bugs[0].Counts(), "%s: no pair can be built", name)
	}
	_, err = Read(strings.NewReader(strings.Replace(unnoticed, `"1.1.4"`, `""`, 1)))
	assert.ErrorContains(t, err, "broken is missing")
}

// The races and those that cannot be shown do not count for the percentage.
func TestScore_CountsWhatARunShowsEachTime(t *testing.T) {
	row := func(d Det, v Verdict) Row { return Row{Bug: Bug{Det: d, Module: "runc", Fixed: "1.1.5"}, Verdict: v} }
	rows := []Row{row("D", Noticed), row("W", Noticed), row("D", Unnoticed), row("D", NotShown), row("R", Noticed), row("E", Unnoticed)}
	rows = append(rows, Row{Bug: Bug{Det: "D", Module: "crun", Fixed: "1.28"}, Verdict: Unnoticed})
	assert.Check(t, cmp.Contains(Score(rows), "(D and W), and of which both versions can be built: 2 of 3 noticed, 66 %."))
	assert.Check(t, cmp.Contains(Score(nil), "0 of 0 noticed, 0 %."))
}

func bug(t *testing.T) Bug {
	t.Helper()
	bugs, err := Read(strings.NewReader(good))
	assert.NilError(t, err)
	return bugs[0]
}

func TestSelect_ByIDReferenceOrVersion(t *testing.T) {
	bugs := []Bug{bug(t), {ID: "other", Module: "containerd", Broken: "2.0.0", Fixed: "2.0.1"}}
	for _, word := range []string{"kill", "#1", "RUNC=1.1.4", "RUNC=1.1.5"} {
		got, err := Select(bugs, []string{word})
		assert.NilError(t, err)
		assert.Check(t, cmp.Len(got, 1))
		assert.Check(t, cmp.Equal(got[0].ID, "kill"))
	}
	got, err := Select(bugs, nil)
	assert.NilError(t, err)
	assert.Check(t, cmp.Len(got, 2))
	_, err = Select(bugs, []string{"kill", "moon"})
	assert.ErrorContains(t, err, "moon selects no released bug")
}

// ended returns a run in which the bug's question has a verdict and, if it failed, says why.
func ended(v results.Verdict, message string) *results.Run {
	q := &results.Question{Test: "TestLifecycle_Kill", Text: "Kill?", Verdict: v, Steps: []*results.Step{{}}}
	switch v {
	case results.Failed:
		q.Logs = []results.Log{{Kind: "log", Text: message}}
	case results.Skipped:
		q.Logs = []results.Log{{Kind: "skip", Text: message}}
	}
	return &results.Run{Questions: []*results.Question{q}, Verdict: v}
}

func TestCheck_EachVerdict(t *testing.T) {
	green := ended(results.Answered, "")
	red := ended(results.Failed, "process 7 is still alive")
	changed := ended(results.Answered, "")
	changed.Verdict, changed.Lines = results.Failed, []string{"cdblab: the run changed the host"}
	cases := []struct {
		name          string
		broken, fixed *results.Run
		err           error
		edit          func(*Bug)
		want          Verdict
		why           string
		failed        bool
	}{
		{"noticed", red, green, nil, nil, Noticed, "process 7 is still alive", false},
		{"missed", green, green, nil, nil, Missed, "green with 1.1.4", true},
		{"wrong", ended(results.Failed, "no busybox"), green, nil, nil, Wrong, "no busybox", true},
		{"fixed-red", red, red, nil, nil, FixedRed, "still alive", true},
		{"fixed-unfinished", red, ended(results.Unfinished, ""), nil, nil, FixedRed, "", true},
		{"skipped", red, ended(results.Skipped, "one CPU"), nil, nil, NotShown, "one CPU", false},
		{"skipped-by-the-bug", ended(results.Skipped, "no features"), green, nil, nil, Missed,
			"skipped with 1.1.4, answered with 1.1.5: no features", true},
		{"fixed-changes-the-host", red, changed, nil, nil, FixedRed, "the lab itself: the run changed the host", true},
		{"no-question", red, &results.Run{}, nil, nil, Fault, "no question has the name", true},
		{"not-built", red, green, errors.New("no network"), nil, Fault, "RUNC=1.1.4: no network", true},
		{"unnoticed", green, green, nil, func(b *Bug) { b.Unnoticed = "a race" }, Unnoticed, "a race", false},
		{"v2", green, green, nil, func(b *Bug) { b.Needs = NeedsV2 }, NotShown, "needs cgroup v2", false},
	}
	var all []Row
	for _, c := range cases {
		b := bug(t)
		b.ID = c.name
		if c.edit != nil {
			c.edit(&b)
		}
		run := func(_ context.Context, _ Bug, version string) (*results.Run, error) {
			if version == b.Broken {
				return c.broken, c.err
			}
			return c.fixed, c.err
		}
		progress := 0
		rows := Check(t.Context(), []Bug{b}, false, run, func(Row) { progress++ })
		assert.Check(t, cmp.Len(rows, 1))
		assert.Check(t, cmp.Equal(progress, 1))
		assert.Check(t, cmp.Equal(rows[0].Verdict, c.want), c.name)
		assert.Check(t, cmp.Contains(rows[0].Why, c.why), c.name)
		assert.Check(t, cmp.Equal(rows[0].Failed(), c.failed), c.name)
		all = append(all, rows...)
	}
	assert.Check(t, cmp.Equal(Score(all), "1 of 10 released bugs noticed: red with the broken version for the right reason, green with "+
		"the fixed one. 2 missed, 1 red for another reason, 3 red with the fixed version, 2 not run, 1 known to be unnoticed. "+
		"2 more cannot be shown here.\n"+
		"Of the bugs that a run shows each time (D and W), and of which both versions can be built: 1 of 10 noticed, 10 %."))
	var table strings.Builder
	assert.NilError(t, Write(&table, all[:2]))
	assert.Check(t, cmp.Contains(table.String(), "noticed"))
	assert.Check(t, cmp.Contains(table.String(), "MISSED"))
}

func TestCheck_StopsWhenItIsStopped(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	run := func(context.Context, Bug, string) (*results.Run, error) {
		cancel()
		return ended(results.Answered, ""), nil
	}
	rows := Check(ctx, []Bug{bug(t), bug(t)}, false, run, func(Row) {})
	assert.Check(t, cmp.Len(rows, 1))
}

// A question that was skipped hides neither that another one is red with the fixed version, nor that another one notices the bug.
func TestJudge_ASkippedQuestionHidesNoOther(t *testing.T) {
	b := bug(t)
	b.Questions = append(b.Questions, "TestOther")
	two := func(v results.Verdict) *results.Run {
		r := ended(results.Skipped, "no criu")
		other := ended(v, "process 7 is still alive").Questions[0]
		other.Test = "TestOther"
		r.Questions, r.Verdict = append(r.Questions, other), v
		return r
	}
	for _, c := range []struct {
		broken, fixed *results.Run
		want          Verdict
	}{
		{two(results.Failed), two(results.Failed), FixedRed},
		{two(results.Failed), two(results.Answered), Noticed},
		{two(results.Answered), two(results.Answered), NotShown},
		{two(results.Skipped), two(results.Skipped), NotShown},
	} {
		got, why := Judge(b, c.broken, c.fixed)
		assert.Check(t, cmp.Equal(got, c.want), why)
	}
}
