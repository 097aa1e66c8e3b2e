package trial

import (
	"regexp"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/results"
)

func question(test string, v results.Verdict, kind, message string) *results.Question {
	q := &results.Question{Test: test, Text: "?", Verdict: v, Steps: []*results.Step{{}, {Number: 1, Text: "wait"}}}
	if message != "" {
		q.Logs = []results.Log{{Kind: kind, Text: message}}
	}
	return q
}

func TestExpect_EachFinding(t *testing.T) {
	run := &results.Run{Questions: []*results.Question{
		question("TestTask_Red", results.Failed, "error", "still alive"),
		question("TestTask_Green", results.Answered, "", ""),
		question("TestTask_Skipped", results.Skipped, "skip", "no criu"),
		question("TestTask_Hangs", results.Unfinished, "", ""),
	}}
	for _, c := range []struct {
		tests   []string
		message string
		want    Finding
		why     string
	}{
		{[]string{"TestTask_Green", "TestTask_Red"}, "alive", Noticed, "still alive"},
		{[]string{"TestTask_Hangs"}, "last step: wait", Noticed, "It did not end. Its last step: wait"},
		{[]string{"TestTask_Red"}, "dead", Otherwise, `expected a failure that matches "dead", and these are others: still alive`},
		{[]string{"TestTask_Green"}, "", Green, ""},
		{[]string{"TestTask_Green", "TestTask_Skipped"}, "", NotShown, "no criu"},
		{[]string{"TestTask_Skipped", "TestTask_Green"}, "", NotShown, "no criu"},
		{[]string{"TestTask_Skipped", "TestTask_Red"}, "alive", Noticed, "still alive"},
		{[]string{"TestTask_Skipped", "TestTask_Red"}, "dead", Otherwise,
			`expected a failure that matches "dead", and these are others: still alive`},
		{[]string{"TestTask_Absent"}, "", Missing, "no question has the name TestTask_Absent"},
	} {
		finding, why := Expect(run, c.tests, regexp.MustCompile(c.message))
		assert.Check(t, cmp.Equal(finding, c.want), "%q", c.tests)
		assert.Check(t, cmp.Equal(why, c.why), "%q", c.tests)
	}
}

func TestShort(t *testing.T) {
	assert.Equal(t, Short("a\n  b"), "a b")
	assert.Equal(t, len([]rune(Short(string(make([]rune, 500))))), 120)
}
