package results

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/golden"
)

// facts returns the facts.json of a run.
func facts(t *testing.T, run *Run) string {
	t.Helper()
	run.Sort(nil)
	var b bytes.Buffer
	assert.NilError(t, WriteFacts(&b, run))
	return b.String()
}

func TestWriteFacts_IsWhatWasObserved(t *testing.T) {
	golden.Assert(t, facts(t, sample(t)), "facts.golden")
}

// Times, paths and the order in which questions end differ from run to run, and facts.json does not.
func TestWriteFacts_TheSameFactsAreTheSameBytes(t *testing.T) {
	data, err := os.ReadFile("testdata/stream.json")
	assert.NilError(t, err)
	other := strings.NewReplacer("/home/reader/cdblab/_results", "/srv/lab", `path\":\"/home/reader`, `path\":\"/srv/lab`).Replace(string(data))
	other = strings.ReplaceAll(other, "2026-11-26T17:0", "2027-01-02T03:0")
	lines := strings.SplitAfter(strings.TrimSpace(other), "\n")
	// One question after the other, the last one first.
	slices.SortStableFunc(lines, func(a, b string) int { return strings.Compare(testOf(b), testOf(a)) })
	run, err := Read(strings.NewReader(strings.Join(lines, "")))
	assert.NilError(t, err)
	assert.Equal(t, facts(t, run), facts(t, sample(t)))
	assert.Check(t, !strings.Contains(facts(t, run), "/srv/lab"))
}

func testOf(line string) string {
	_, after, _ := strings.Cut(line, `"Test":"`)
	name, _, _ := strings.Cut(after, `"`)
	return name
}

func TestLoad_ReadsWhatWriteFactsHasWritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "baseline.json")
	want := facts(t, sample(t))
	assert.NilError(t, os.WriteFile(file, []byte(want), 0o644))
	run, err := Load(file)
	assert.NilError(t, err)
	assert.Equal(t, facts(t, run), want)
	assert.Equal(t, run.Verdict, Failed)
	q := run.Question("TestLifecycle_WhatIsTheDifferenceBetweenCreateAndStart")
	assert.DeepEqual(t, q.Facts(), sample(t).Question(q.Test).Facts())
}

// What the questions do not tell is read again as well.
func TestLoad_ReadsThatTheRunFailedAtItsEndAndWhichFactsAreInDoubt(t *testing.T) {
	run := read(t,
		`"Action":"run","Test":"T"`,
		`"Action":"attr","Test":"T","Key":"question","Value":"What does kill do?"`,
		`"Action":"attr","Test":"T","Key":"fact","Value":"{\"name\":\"state\",\"value\":\"stopped\",\"doubt\":true}"`,
		`"Action":"attr","Test":"T","Key":"fact","Value":"{\"name\":\"pid\",\"value\":\"0\"}"`,
		`"Action":"pass","Test":"T"`,
		`"Action":"output","Output":"cdblab: the run changed the host\n"`,
		`"Action":"fail"`,
	)
	assert.Check(t, run.FailedAtEnd)
	again, err := new(Cache).Read([]byte(facts(t, run)))
	assert.NilError(t, err)
	assert.DeepEqual(t, []any{again.FailedAtEnd, again.Verdict}, []any{true, Failed})
	assert.DeepEqual(t, again.Questions[0].Facts(), run.Questions[0].Facts())
	assert.Check(t, !sample(t).FailedAtEnd, "a question of it has failed")
}

// Of a test that failed, or still waited, before it told its question, facts.json can say nothing but that the run failed.
func TestRead_ATestThatFailsBeforeItTellsItsQuestionFailsTheRun(t *testing.T) {
	question := func(test, verdict string) []string {
		return []string{
			`"Action":"run","Test":"` + test + `"`, `"Action":"attr","Test":"` + test + `","Key":"question","Value":"Q?"`,
			`"Action":"` + verdict + `","Test":"` + test + `"`,
		}
	}
	setUp := []string{
		`"Action":"run","Test":"T_2"`, `"Action":"output","Test":"T_2","Output":"    ask.go:1: mkdir: no space left on device\n"`,
		`"Action":"fail","Test":"T_2"`,
	}
	waiting := []string{`"Action":"run","Test":"T_2"`, `"Action":"pause","Test":"T_2"`}
	for name, row := range map[string]struct {
		events []string
		want   bool
		output string
	}{
		"a question failed":         {question("T", "fail"), false, ""},
		"a set-up failed":           {append(question("T", "pass"), setUp...), true, "no space left on device"},
		"a question and a set-up":   {append(question("T", "fail"), setUp...), true, "no space left on device"},
		"a test waited":             {append(question("T", "pass"), waiting...), true, "panic: test timed out"},
		"a question, and one waits": {append(question("T", "fail"), waiting...), true, "panic: test timed out"},
	} {
		run := read(t, append(row.events, `"Action":"output","Output":"panic: test timed out\n"`, `"Action":"fail"`)...)
		assert.Check(t, cmp.Equal(run.FailedAtEnd, row.want), name)
		again, err := new(Cache).Read([]byte(facts(t, run)))
		assert.NilError(t, err)
		assert.Check(t, cmp.DeepEqual([]any{again.FailedAtEnd, again.Verdict}, []any{row.want, Failed}), name)
		for _, write := range []func(io.Writer, *Run) error{WriteSummary, WriteJUnit} {
			var b bytes.Buffer
			assert.NilError(t, write(&b, run))
			assert.Check(t, cmp.Contains(b.String(), row.output), name)
			assert.Check(t, cmp.Equal(strings.Contains(b.String(), "panic: test timed out"), row.want), "%s:\n%s", name, &b)
		}
	}
}

// All questions of a run that was stopped may have a verdict, and a lost note leaves no trace in them.
func TestWriteFacts_SaysThatARunWasStoppedOrHasLostFacts(t *testing.T) {
	for event, want := range map[string]string{
		strings.Trim(string(Stopped("interrupt")), "{}\n"):             "The run was stopped (interrupt).",
		`"Action":"attr","Test":"T","Key":"fact","Value":"{\"name\":"`: "1 notes are incomplete",
	} {
		run := read(t, `"Action":"run","Test":"T"`, `"Action":"attr","Test":"T","Key":"question","Value":"Q?"`, event,
			`"Action":"pass","Test":"T"`, `"Action":"pass"`)
		assert.Check(t, cmp.Contains(strings.Join(run.Problems, "\n"), want))
		assert.Check(t, cmp.Contains(facts(t, run), `"failedAtEnd": true`), want)
	}
}

// The digest of the questions tells versions of the lab apart.
func TestWriteFacts_HasTheVersionOfTheQuestions(t *testing.T) {
	run, err := Read(strings.NewReader(`{"Action":"run","Test":"TestX"}
{"Action":"attr","Test":"TestX","Key":"question","Value":"What is there?"}
{"Action":"attr","Test":"TestX","Key":"stack","Value":"{\"kernel\":\"6.1\",\"chapter\":\"sha256:1\"}"}
{"Action":"pass","Test":"TestX"}
`))
	assert.NilError(t, err)
	assert.Check(t, cmp.Contains(facts(t, run), `"chapter": "sha256:1"`))
	again, err := new(Cache).Read([]byte(facts(t, run)))
	assert.NilError(t, err)
	assert.Equal(t, again.Stack.Chapter, "sha256:1")
}

func TestLoad_SaysWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		file := filepath.Join(dir, name)
		assert.NilError(t, os.WriteFile(file, []byte(content), 0o644))
		return file
	}
	whole := facts(t, sample(t))
	for name, test := range map[string]struct{ path, want string }{
		"nothing there":     {dir + "/moon", "there is no such file or directory"},
		"no results":        {dir, "the directory has no results: neither stream.json nor facts.json"},
		"older format":      {write("old", strings.Replace(whole, `"format": 1`, `"format": 0`, 1)), "it has format 0, and this lab reads format 1"},
		"newer format":      {write("new", `{"format":2,"questions":"moon"}`), "it has format 2, and this lab reads format 1"},
		"cut":               {write("cut", whole[:len(whole)/2]), "cut short"},
		"fact is no string": {write("kind", strings.Replace(whole, `"created"`, `7`, 1)), "names with strings, and not 7"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Load(test.path)
			assert.Check(t, cmp.ErrorContains(err, test.want))
			assert.Check(t, cmp.ErrorContains(err, test.path))
		})
	}
}

// A directory whose stream was not stored is still read.
func TestLoad_ReadsTheFactsOfADirectoryWithoutAStream(t *testing.T) {
	dir := t.TempDir()
	assert.NilError(t, os.WriteFile(filepath.Join(dir, FactsFile), []byte(facts(t, sample(t))), 0o644))
	run, err := Load(dir)
	assert.NilError(t, err)
	assert.Equal(t, len(run.Questions), 3)
}
