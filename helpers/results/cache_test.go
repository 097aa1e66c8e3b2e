package results

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

func TestCache_ReadsWhatWriteFactsHasWritten(t *testing.T) {
	want := facts(t, sample(t))
	run, err := new(Cache).Read([]byte(want))
	assert.NilError(t, err)
	assert.Equal(t, facts(t, run), want)
}

// Where two files differ in white space alone, or in one question, the questions are the same pointers.
func TestCache_KeepsOnceWhatIsTheSame(t *testing.T) {
	whole := facts(t, sample(t))
	var compact bytes.Buffer
	assert.NilError(t, json.Compact(&compact, []byte(whole)))
	var c Cache
	first, err := c.Read([]byte(whole))
	assert.NilError(t, err)
	same, err := c.Read(compact.Bytes())
	assert.NilError(t, err)
	for i, q := range same.Questions {
		assert.Check(t, q == first.Questions[i], "%s is there twice, and differs in white space alone", q.Test)
	}
	again, err := c.Read([]byte(whole))
	assert.NilError(t, err)
	assert.Check(t, first == again, "the same bytes are two runs")

	assert.Equal(t, strings.Count(whole, `"created"`), 1)
	other, err := c.Read([]byte(strings.Replace(whole, `"created"`, `"stopped"`, 1)))
	assert.NilError(t, err)
	var differ []string
	for i, q := range other.Questions {
		if q != first.Questions[i] {
			differ = append(differ, q.Test)
		}
	}
	assert.DeepEqual(t, differ, []string{"TestLifecycle_WhatIsTheDifferenceBetweenCreateAndStart"})
}

func TestCache_SaysWhatIsWrong(t *testing.T) {
	whole := facts(t, sample(t))
	for want, data := range map[string]string{
		"it is no JSON, or it is cut short":          whole[:len(whole)/2],
		"it has format 2, and this lab reads format": `{"format":2}`,
		"names with strings, and not 7":              strings.Replace(whole, `"created"`, `7`, 1),
		"it is no JSON, or it is cut short: ":        "404 page not found",
	} {
		_, err := new(Cache).Read([]byte(data))
		assert.Check(t, cmp.ErrorContains(err, want))
	}
}

// A facts.json may come from anywhere.
func TestCache_NothingChangesATerminal(t *testing.T) {
	run, err := new(Cache).Read([]byte(`{"format":1,"stack":{"kernel":"6\u001b[2J"},"questions":[{"test":"T\u001b","question":"Q\u202e",
		"steps":[{"number":1,"text":"s\u001b","facts":{"n\u001b":"v\u001b"}}]}]}`))
	assert.NilError(t, err)
	q := run.Questions[0]
	assert.DeepEqual(t, []string{run.Stack.Kernel, q.Test, q.Text, q.Steps[1].Text, q.Facts()[0].Name, q.Facts()[0].Value},
		[]string{"6\ufffd[2J", "T\ufffd", "Q\ufffd", "s\ufffd", "n\ufffd", "v\ufffd"})
}
