package display

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/golden"

	"cdblab/helpers/results"
)

// showPlain shows a stream in a log, and returns the log.
func showPlain(stream string, o Options) string {
	var b strings.Builder
	c := &clock{}
	p := newPlain(&b, o, c.now)
	p.Prepare("compiling the tests")
	p.Done(replay(p, c, stream, nil), ".lab/results/latest")
	return b.String()
}

func TestPlain_ShowsARun(t *testing.T) {
	golden.Assert(t, showPlain(read(t, "testdata/stream.json"), Options{}), "plain.txt")
}

func TestPlain_VerboseShowsTheNotes(t *testing.T) {
	stream := read(t, "testdata/stream.json")
	const note = "· status after create                created"
	assert.Check(t, !strings.Contains(showPlain(stream, Options{}), note))
	assert.Check(t, cmp.Contains(showPlain(stream, Options{Verbose: true}), note))
}

func TestPlain_ShowsTheNotesOfTheOnlyQuestion(t *testing.T) {
	log := showPlain(`{"Action":"run","Test":"TestTask_X"}
{"Action":"attr","Test":"TestTask_X","Key":"question","Value":"What is x?"}
{"Action":"output","Test":"TestTask_X","Output":"    1. look at x\n"}
{"Action":"pass","Test":"TestTask_X","Elapsed":1.5}
{"Action":"pass"}
`, Options{})
	assert.Check(t, cmp.Contains(log, "answered  Task      What is x?  (1.5s)\n    1. look at x\n"))
}

// Programs find the closing line: it stands alone, and only the place of the results comes after it.
func TestPlain_ClosesWithTheNumbers(t *testing.T) {
	closing := regexp.MustCompile(`\n\d+ passed, \d+ failed(, \d+ skipped)?(, \d+ parts? skipped)?\n[^\n]+\n$`)
	for name, stream := range map[string]string{
		"a run":    read(t, "testdata/stream.json"),
		"cut":      read(t, "testdata/stream.json")[:30_000],
		"garbage":  "no stream\n",
		"empty":    "",
		"no tests": `{"Action":"output","Output":"# cdblab [build failed]\n"}` + "\n" + `{"Action":"fail"}` + "\n",
	} {
		log := showPlain(stream, Options{})
		assert.Check(t, closing.MatchString(log), "%s: the log ends with\n%s", name, log[max(0, len(log)-300):])
	}
}

// A run with a problem is not green: its exit code is 1.
func TestStyle_ARunWithAProblemIsNotGreen(t *testing.T) {
	s, run := style{color: true}, &results.Run{Verdict: results.Answered}
	assert.Equal(t, s.closing(run), s.green("0 passed, 0 failed"))
	run.Problems = []string{"The results could not be written in full: no space left on device"}
	assert.Equal(t, s.closing(run), s.red("0 passed, 0 failed"))
}

// The list of skips names parts of questions as well. The closing line counts them, so that the two agree.
func TestPlain_CountsSkippedParts(t *testing.T) {
	part := func(name string) string {
		return `{"Action":"run","Test":"TestTask_X/` + name + `"}` + "\n" + `{"Action":"skip","Test":"TestTask_X/` + name + `"}` + "\n"
	}
	question := `{"Action":"run","Test":"TestTask_X"}
{"Action":"attr","Test":"TestTask_X","Key":"question","Value":"What is x?"}
`
	const fact = `{"Action":"attr","Test":"TestTask_X","Key":"fact","Value":"{\"name\":\"x\",\"value\":\"1\"}"}` + "\n"
	const pass = `{"Action":"pass","Test":"TestTask_X","Elapsed":1.5}` + "\n" + `{"Action":"pass"}` + "\n"
	for stream, want := range map[string]string{
		question + fact + part("a") + pass:             "\n1 passed, 0 failed, 1 part skipped\n",
		question + fact + part("a") + part("b") + pass: "\n1 passed, 0 failed, 2 parts skipped\n",
		question + part("a") + part("b") + pass:        "\n0 passed, 0 failed, 1 skipped\n", // the question has shown nothing
	} {
		assert.Check(t, cmp.Contains(showPlain(stream, Options{}), want))
	}
}

func TestPlain_CountsWhatHasNoVerdictAsFailed(t *testing.T) {
	log := showPlain(`{"Action":"run","Test":"TestTask_X"}
{"Action":"run","Test":"TestTask_Y"}
{"Action":"run","Test":"TestTask_Waits"}
{"Action":"attr","Test":"TestTask_X","Key":"question","Value":"What is x?"}
{"Action":"attr","Test":"TestTask_X","Key":"step","Value":"{\"number\":1,\"text\":\"look at x\"}"}
{"Action":"fail","Test":"TestTask_Y","Elapsed":0.1}
{"Action":"fail"}
`, Options{})
	for _, want := range []string{
		"NO VERDICT  Task      What is x?\n  TestTask_X has no verdict, because the run ended before it, in the step: look at x. ",
		"FAILED    Task      TestTask_Y", // it failed before it asked its question
		"1 question without a verdict: the run ended first. They count as failed.",
		"1 question had no turn: the run ended first.",
		"\n0 passed, 2 failed\n",
	} {
		assert.Check(t, cmp.Contains(log, want))
	}
}

// The reason is shown when it is printed, and again below what failed: a CI that keeps the end of a log must have it.
func TestPlain_SaysAtTheEndWhyARunEnded(t *testing.T) {
	log := showPlain(`{"Action":"run","Test":"TestTask_X"}
{"Action":"attr","Test":"TestTask_X","Key":"question","Value":"What is x?"}
{"Action":"output","Test":"TestTask_X","Output":"    1. look at x\n"}
{"Action":"output","Test":"TestTask_X","Output":"lab: run x in the VM: the guest was silent for 2m0s\n"}
{"Action":"output","Test":"TestTask_X","Output":"  the last lines of the guest's console:\n"}
{"Action":"output","Test":"TestTask_X","Output":"    | Kernel panic\n"}
{"Action":"fail"}
`, Options{})
	const why = "lab: run x in the VM: the guest was silent for 2m0s\n  the last lines of the guest's console:\n    | Kernel panic\n"
	_, after, _ := strings.Cut(log, "Why the run ended before all questions did")
	assert.Check(t, cmp.Contains(after, why), log)
	assert.Check(t, cmp.Contains(after, "0 passed, 1 failed"), "the numbers come last:\n%s", log)
}

func TestPlain_CutsTheStacksOfAPanic(t *testing.T) {
	var stacks strings.Builder
	for i := range 100 {
		fmt.Fprintf(&stacks, `{"Action":"output","Test":"TestTask_X","Output":"goroutine %d [select]:\n"}`+"\n", i)
	}
	log := showPlain(`{"Action":"run","Test":"TestTask_X"}
{"Action":"attr","Test":"TestTask_X","Key":"question","Value":"What is x?"}
{"Action":"output","Test":"TestTask_X","Output":"    1. look at x\n"}
{"Action":"output","Test":"TestTask_X","Output":"panic: test timed out after 10m0s\n"}
`+stacks.String()+`{"Action":"fail"}
`, Options{})
	assert.Check(t, cmp.Contains(log, "    1. look at x\npanic: test timed out after 10m0s\ngoroutine 0 "))
	assert.Check(t, cmp.Contains(log, "\ngoroutine 38 [select]:\n… 61 more lines are in the results, in stream.json\n"))
}

func TestPlain_SaysThatARunFailedWithoutAQuestion(t *testing.T) {
	log := showPlain(`{"Action":"build-output","Output":"./main_test.go:12: undefined: x\n"}
{"Action":"fail"}
`, Options{})
	assert.Check(t, cmp.Contains(log, "./main_test.go:12: undefined: x\n"))
	assert.Check(t, cmp.Contains(log, "The run failed, but no question did."))
}

func TestPlain_BreaksTheSilence(t *testing.T) {
	var b strings.Builder
	c := &clock{time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	p := newPlain(&b, Options{}, c.now)
	p.Prepare("compiling the tests")
	c.time = c.time.Add(silence - time.Second)
	assert.DeepEqual(t, p.sign(), []string(nil))
	c.time = c.time.Add(30 * time.Second)
	assert.DeepEqual(t, p.sign(), []string{"still at it after 1m29s: compiling the tests"})

	r := results.NewReader()
	for _, line := range []string{
		`{"Action":"run","Test":"TestTask_X"}`,
		`{"Action":"attr","Test":"TestTask_X","Key":"question","Value":"What is x?"}`,
		`{"Action":"attr","Test":"TestTask_X","Key":"step","Value":"{\"number\":1,\"text\":\"look at x\"}"}`,
	} {
		p.Update(r.Run(), r.Line([]byte(line)))
	}
	c.time = c.time.Add(2 * silence)
	assert.DeepEqual(t, p.sign(), []string{"still at it after 3m29s: 0 questions ended", "  for 2m00s: TestTask_X: look at x"})
	p.write("something")
	assert.DeepEqual(t, p.sign(), []string(nil))
}
