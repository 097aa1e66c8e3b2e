//go:build linux

package lab

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/host"
	"cdblab/helpers/tools"
)

// recorder is a testing.TB that records errors instead of failing the test.
type recorder struct {
	testing.TB
	errors []string
}

func (r *recorder) Failed() bool { return len(r.errors) > 0 }

func (r *recorder) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}

// recordedQuestion returns a question without a run. Its errors and its attr events ("key value") are recorded.
func recordedQuestion(t *testing.T) (q *Q, errors *recorder, attrs *[]string) {
	errors, attrs = &recorder{TB: t}, new([]string)
	q = &Q{TB: errors, session: &Session{}, notes: &notes{
		taken: true, emit: func(key, value string) { *attrs = append(*attrs, key+" "+value) },
		out: &output{to: io.Discard, direct: true}, facts: newFacts(host.NewOwner("1", "q1"), nil), steps: &steps{},
		transcript: io.Discard,
	}}
	return q, errors, attrs
}

func TestFact_HasTheNumberOfItsStepOrControl(t *testing.T) {
	q, _, attrs := recordedQuestion(t)
	q.Fact("host: mounts", 3)
	q.Step("Create %s", "a container")
	q.Fact("container: pid", 1)
	q.Control("Do not create it")
	q.Step("Delete it")
	q.Fact("container: status", "two\nlines")
	assert.DeepEqual(t, *attrs, []string{
		`fact {"name":"host: mounts","value":"3","step":0}`,
		`step {"number":1,"text":"Create a container"}`,
		`fact {"name":"container: pid","value":"1","step":1}`,
		`control {"number":2,"text":"Do not create it"}`,
		`step {"number":3,"text":"Delete it"}`,
		`fact {"name":"container: status","value":"two ⏎ lines","step":3}`,
	})
}

// Two runs of the same stack have the same facts.json, whatever number a run and a question have. The reader sees the paths as they are.
func TestStep_HasTheSameTextInEachRun(t *testing.T) {
	var runs [2][]string
	for i, owner := range []host.Owner{host.NewOwner("1", "q48"), host.NewOwner("2", "q117")} {
		q, _, attrs := recordedQuestion(t)
		var shown bytes.Buffer
		q.notes.out.to = &shown
		q.notes.facts = newFacts(owner, map[string]tools.Program{"runc": {Name: "runc", Path: fmt.Sprintf("/home/reader/lab%d/bin/runc", i)}})
		image := "sha256:" + strings.Repeat(fmt.Sprint(i), 64)
		q.Step("mount %s/source on /data", owner.Dir())
		q.Control("without it, %s/bin/runc makes %s of %s", fmt.Sprintf("/home/reader/lab%d", i), owner.Cgroup(), image)
		q.Fact("image", image)
		runs[i] = *attrs
		assert.Check(t, cmp.Contains(shown.String(), "mount "+owner.Dir()+"/source on /data"))
	}
	assert.DeepEqual(t, runs[0], []string{
		`step {"number":1,"text":"mount $Q/source on /data"}`,
		`control {"number":2,"text":"without it, runc makes $CGROUP of <digest 1>"}`,
		`fact {"name":"image","value":"<digest 1>","step":2}`,
	})
	assert.DeepEqual(t, runs[1], runs[0])
}

// A fact may be recorded after a check that does not end the question. If the check has failed, the value may be wrong.
func TestFact_AfterAFailureIsInDoubt(t *testing.T) {
	q, errors, attrs := recordedQuestion(t)
	q.Fact("the program", "runs")
	errors.Errorf("the other program does not run")
	q.Fact("the other program", "runs")
	assert.DeepEqual(t, *attrs, []string{
		`fact {"name":"the program","value":"runs","step":0}`,
		`fact {"name":"the other program","value":"runs","step":0,"doubt":true}`,
	})
}

func TestFact_FailsAQuestionThatUsesANameTwice(t *testing.T) {
	q, errors, _ := recordedQuestion(t)
	q.Fact("container: pid", 1)
	q.Fact("container: status", "running")
	assert.Check(t, cmp.Len(errors.errors, 0))
	q.Fact("container: pid", 1)
	assert.Assert(t, cmp.Len(errors.errors, 1))
	assert.Check(t, cmp.Contains(errors.errors[0], `two facts of this question are named "container: pid"`))
}

// Subtests are part of their question: the names of their facts and the numbers of their steps continue those of the question.
func TestFact_SubtestsContinueTheNotesOfTheQuestion(t *testing.T) {
	q, errors, attrs := recordedQuestion(t)
	q.Step("Create a container")
	q.Fact("container: pid", 1)
	t.Run("subtest", func(t *testing.T) {
		sub := *q
		sub.notes = q.notes.subtest(t)
		sub.notes.emit = q.notes.emit
		sub.Step("Delete it")
		sub.Fact("container: pid", 1)
	})
	assert.Check(t, cmp.Len(errors.errors, 1))
	assert.Check(t, cmp.Contains(*attrs, `step {"number":2,"text":"Delete it"}`))
}

func TestClause_FailsThePinnedRuntimeUnlessItIsKnownToDeviate(t *testing.T) {
	q, errors, attrs := recordedQuestion(t)
	q.Clause("Kill: It MUST.", MetIf(false, "it does not"))
	assert.Check(t, cmp.Len(errors.errors, 0), "a runtime that is not pinned may deviate")

	q.session.tools = map[string]tools.Program{"runc": {Pinned: true}}
	q.Clause("Kill: It MUST.", DeviatesUnless(false, "it does not"))
	assert.Check(t, cmp.Len(errors.errors, 0), "this deviation is known")
	q.Clause("Kill: It MUST.", MetIf(false, "it does not"))
	assert.Check(t, cmp.Len(errors.errors, 1))
	assert.Check(t, cmp.Contains(*attrs, `clause {"text":"Kill: It MUST.","met":false,"seen":"it does not"}`))
}

func TestQuote_CanBePasted(t *testing.T) {
	assert.Equal(t, quote([]string{"ctr", "-n", "cdb-lab", "sh", "-c", "echo $X; it's"}), `ctr -n cdb-lab sh -c 'echo $X; it'"'"'s'`)
}
