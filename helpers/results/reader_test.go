package results

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

// read reads a stream. Each event is a line without its braces, and T is a question's name.
func read(t *testing.T, events ...string) *Run {
	t.Helper()
	var b strings.Builder
	for _, e := range events {
		fmt.Fprintf(&b, "{%s}\n", strings.ReplaceAll(e, `"Test":"T`, `"Test":"TestLifecycle_WhatDoesKillDo`))
	}
	run, err := Read(strings.NewReader(b.String()))
	assert.NilError(t, err)
	return run
}

// sample reads testdata/stream.json: runc is a wrapper that does not pause. One question failed, one was skipped, one answered.
func sample(t *testing.T) *Run {
	t.Helper()
	run, err := Load("testdata/stream.json")
	assert.NilError(t, err)
	assert.DeepEqual(t, run.Problems, []string(nil))
	return run
}

func TestRead_ReadsAQuestion(t *testing.T) {
	run := read(t,
		`"Action":"start","Package":"cdblab"`,
		`"Action":"run","Test":"T"`,
		`"Action":"attr","Test":"T","Key":"question","Value":"What does kill do?"`,
		`"Action":"attr","Test":"T","Key":"source","Value":"lifecycle_kill_test.go:63"`,
		`"Action":"attr","Test":"T","Key":"command","Value":"{\"script\":\"cat <<END\\n"`,
		`"Action":"output","Test":"T","Output":"=== ATTR  T command {\"script\":\"cat"`,
		`"Action":"output","Test":"T","Output":" <<END\\n\n"`,
		`"Action":"attr","Test":"T","Key":"command+","Value":"END\\n\"}"`,
		`"Action":"attr","Test":"T","Key":"step","Value":"{\"number\":1,\"text\":\"kill it\"}"`,
		`"Action":"attr","Test":"T","Key":"fact","Value":"{\"name\":\"state\",\"value\":\"stopped\",\"step\":1,\"data\":{\"a\\u0000\":[\"b\"]}}"`,
		`"Action":"output","Test":"T","Output":"a long "`,
		`"Action":"output","Test":"T","Output":"line\n"`,
		`"Action":"pass","Test":"T","Elapsed":1.5`,
		`"Action":"output","Output":"ok\n"`,
		`"Action":"pass"`,
	)
	assert.Equal(t, len(run.Problems), 0, "%v", run.Problems)
	assert.Equal(t, run.Verdict, Answered)
	q := run.Question("TestLifecycle_WhatDoesKillDo")
	assert.Equal(t, q.Text, "What does kill do?")
	assert.Equal(t, q.Section(), "Lifecycle")
	assert.Equal(t, q.Steps[0].Items[0].Command.Script, "cat <<END\nEND\n")
	assert.Equal(t, q.Source, "lifecycle_kill_test.go:63")
	assert.DeepEqual(t, q.Facts(), []*Fact{{Name: "state", Value: "stopped", Step: 1, Data: map[string]any{"a\ufffd": []any{"b"}}}})
	assert.DeepEqual(t, q.Output, []string{"a long line"})
	assert.DeepEqual(t, run.Lines, []string{"ok"})
}

// go test writes notes and their copies in the output. Each command is read once, and whole.
func TestRead_ReadsAStreamOfTheLab(t *testing.T) {
	run := sample(t)
	assert.Equal(t, run.Verdict, Failed)
	assert.Equal(t, run.Stack.Kernel, "6.12.57-cloud-amd64")
	assert.Equal(t, len(run.Stack.Programs), 5)
	q := run.Question("TestLifecycle_WhatIsTheDifferenceBetweenCreateAndStart")
	assert.Equal(t, q.Verdict, Answered)
	assert.Equal(t, len(q.Steps), 1+8) // the set-up and eight
	assert.Equal(t, q.Controls(), 1)
	assert.Equal(t, len(q.Facts()), 24)
	commands := 0
	for _, s := range q.Steps {
		for _, item := range s.Items {
			if c := item.Command; c != nil {
				commands++
				assert.Check(t, c.Script != "")
			}
		}
	}
	data, err := os.ReadFile("testdata/stream.json")
	assert.NilError(t, err)
	assert.Equal(t, commands, strings.Count(string(data), `"Test":"TestLifecycle_WhatIsTheDifferenceBetweenCreateAndStart","Key":"command",`))
}

func TestRead_TellsWhyAQuestionFailedOrWasSkipped(t *testing.T) {
	run := sample(t)
	assert.Assert(t, cmp.Len(run.Question("TestLifecycle_WhatDoesPauseStop").Messages(), 5))
	assert.Check(t, cmp.Contains(run.Question("TestLifecycle_WhatDoesPauseStop").Messages()[0], "lifecycle_pause_test.go:"))
	skips := run.Question("TestLifecycle_CanItBeFrozenToDiskAndThawed").Skips()
	assert.Assert(t, cmp.Len(skips, 1))
	assert.Check(t, cmp.Contains(skips[0].Reason, "try another kernel: make lab"))
}

// A panic in a cleanup comes after the logs of the question.
func TestMessages_HaveAPanicAfterOtherLogs(t *testing.T) {
	q := Question{
		Steps: []*Step{{}}, Verdict: Failed, Logs: []Log{{Kind: "log", Text: "a note"}}, Output: []string{"a note", "panic: no such map"},
	}
	assert.DeepEqual(t, q.Messages(), []string{"a note", "panic: no such map"})
	q.Verdict = Answered
	assert.DeepEqual(t, q.Messages(), []string{"a note"})
}

func TestRead_TellsWhyAPartOfAQuestionWasSkipped(t *testing.T) {
	run := read(t,
		`"Action":"run","Test":"T"`,
		`"Action":"attr","Test":"T","Key":"question","Value":"Q?"`,
		`"Action":"run","Test":"T/crun"`,
		`"Action":"attr","Test":"T/crun","Key":"log","Value":"{\"kind\":\"skip\",\"text\":\"no crun: make deps\"}"`,
		`"Action":"skip","Test":"T/crun"`,
		`"Action":"attr","Test":"T","Key":"fact","Value":"{\"name\":\"state\",\"value\":\"stopped\"}"`,
		`"Action":"pass","Test":"T"`,
		`"Action":"pass"`,
	)
	assert.DeepEqual(t, run.Questions[0].Skips(), []Skip{{"TestLifecycle_WhatDoesKillDo/crun", "no crun: make deps"}})
	assert.Equal(t, run.SkippedParts(), 1)
	assert.Equal(t, run.Headline(), "passed: 1 questions, 1 answered, 0 failed, 0 skipped, 1 parts skipped")
}

// go test lets a test pass of which all subtests were skipped. Its answer was not seen.
func TestRead_AQuestionThatShowedNothingWasSkipped(t *testing.T) {
	fact := `"Action":"attr","Test":"T","Key":"fact","Value":"{\"name\":\"state\",\"value\":\"stopped\"}"`
	skip := func(subtest string) []string {
		return []string{
			`"Action":"run","Test":"T/` + subtest + `"`,
			`"Action":"attr","Test":"T/` + subtest + `","Key":"log","Value":"{\"kind\":\"skip\",\"text\":\"no crun: make deps\"}"`,
			`"Action":"skip","Test":"T/` + subtest + `"`,
		}
	}
	pass := func(subtest string) []string {
		return []string{`"Action":"run","Test":"T/` + subtest + `"`, `"Action":"pass","Test":"T/` + subtest + `"`}
	}
	for name, row := range map[string]struct {
		body  []string
		want  Verdict
		parts int
	}{
		"all parts":                           {append(skip("a"), skip("b")...), Skipped, 0},
		"the only part of a part":             {append(pass("a"), skip("a/b")...), Skipped, 0},
		"one of two parts":                    {append(skip("a"), pass("b")...), Answered, 1},
		"all parts of a question with a fact": {append(skip("a"), fact), Answered, 1},
		"all parts of a question with a control": {
			append(skip("a"), `"Action":"attr","Test":"T","Key":"control","Value":"{\"number\":1,\"text\":\"without it\"}"`), Answered, 1,
		},
		"all parts of a question with a clause": {
			append(skip("a"), `"Action":"attr","Test":"T","Key":"clause","Value":"{\"text\":\"Kill: MUST\",\"met\":true}"`), Answered, 1,
		},
		"no parts": {nil, Answered, 0},
	} {
		events := append([]string{
			`"Action":"run","Test":"T"`, `"Action":"attr","Test":"T","Key":"question","Value":"Q?"`,
			`"Action":"attr","Test":"T","Key":"answer","Value":"It ends."`,
		}, row.body...)
		run := read(t, append(events, `"Action":"pass","Test":"T"`, `"Action":"pass"`)...)
		q := run.Questions[0]
		assert.Check(t, cmp.Equal(q.Verdict, row.want), name)
		assert.Check(t, cmp.Equal(run.SkippedParts(), row.parts), name)
		assert.Check(t, cmp.Equal(q.Answer == "", row.want == Skipped), name)
		if skips := q.Skips(); row.want == Skipped {
			last := skips[len(skips)-1]
			assert.Check(t, cmp.DeepEqual(last, Skip{q.Test, "all its parts were skipped, and it asserts nothing besides them"}), name)
		}
	}
}

// go test takes what the VM says about its own failure for output of the question that is asked then.
func TestRead_WhatTheMachineSaysIsNoOutputOfAQuestion(t *testing.T) {
	run := read(t,
		`"Action":"run","Test":"T"`,
		`"Action":"output","Test":"T","Output":"    a note\n"`,
		`"Action":"output","Test":"T","Output":"lab: run the tests: the guest was silent for 1m0s\n"`,
		`"Action":"output","Test":"T","Output":"  what to do: try again\n"`,
		`"Action":"output","Output":"FAIL\tcdblab\t3s\n"`,
		`"Action":"fail"`,
	)
	assert.DeepEqual(t, run.Lines, []string{"lab: run the tests: the guest was silent for 1m0s", "  what to do: try again", "FAIL\tcdblab\t3s"})
	assert.DeepEqual(t, run.Questions[0].Output, []string{"    a note"})
}

// A package that fails is not forgotten when a later one passes.
func TestRead_OneFailedPackageFailsTheRun(t *testing.T) {
	run := read(t, `"Action":"fail","Package":"a"`, `"Action":"pass","Package":"b"`)
	assert.Equal(t, run.Verdict, Failed)
}

// A package without tests is skipped, and that says nothing about the others.
func TestRead_APackageWithoutTestsDoesNotSkipTheRun(t *testing.T) {
	pass, skip := `"Action":"pass","Package":"a"`, `"Action":"skip","Package":"b"`
	assert.Equal(t, read(t, pass, skip).Verdict, Answered)
	assert.Equal(t, read(t, skip, pass).Verdict, Answered)
	assert.Equal(t, read(t, skip, skip).Verdict, Skipped)
}

// A stream that is cut in its second package is no whole run, although the first package has passed.
func TestRead_OfAStreamThatIsCutInItsSecondPackage(t *testing.T) {
	start := []string{`"Action":"start","Package":"a"`, `"Action":"pass","Package":"a"`, `"Action":"start","Package":"b"`}
	run := read(t, start...)
	assert.Equal(t, run.Verdict, Unfinished)
	assert.Check(t, cmp.Contains(strings.Join(run.Problems, "\n"), "The stream ends before the run does"))
	assert.Equal(t, read(t, append(start, `"Action":"pass","Package":"b"`)...).Verdict, Answered)
}
