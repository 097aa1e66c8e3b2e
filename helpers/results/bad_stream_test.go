package results

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

func TestRead_SaysWhatIsWrongWithAStream(t *testing.T) {
	data, err := os.ReadFile("testdata/stream.json")
	assert.NilError(t, err)
	whole := string(data)
	lines := strings.SplitAfter(whole, "\n")
	for name, test := range map[string]struct{ stream, want string }{
		"empty":       {"", "The stream is empty."},
		"no stream":   {"=== RUN TestX\n--- PASS: TestX\n", "no line of it is an event"},
		"cut":         {whole[:len(whole)/2], "The stream ends before the run does: 2 questions have no verdict, and 0 were not begun."},
		"cut early":   {strings.Join(lines[:30], ""), "The stream ends before the run does: 0 questions have no verdict, and 3 were not begun."},
		"interleaved": {lines[0] + "warning: moon\n" + strings.Join(lines[1:], "") + "\x00\xff\n", "2 of the 308 lines are no events"},
		"old Go":      {withoutAttrs(lines), "3 tests, and none is a question of the lab. Go before 1.25 writes no attr events."},
		"broken note": {strings.Replace(whole, `"Key":"fact","Value":"{`, `"Key":"fact","Value":"`, 1), "1 notes are incomplete"},
		"lost part":   {strings.Replace(whole, `"Key":"command+"`, `"Key":"other"`, 1), "1 notes are incomplete"},
	} {
		t.Run(name, func(t *testing.T) {
			run, err := Read(strings.NewReader(test.stream))
			assert.NilError(t, err)
			assert.Assert(t, cmp.Contains(strings.Join(run.Problems, "\n"), test.want))
			for _, write := range []func(io.Writer, *Run) error{WriteFacts, WriteSummary, WriteJUnit} {
				assert.NilError(t, write(io.Discard, run))
			}
			var b bytes.Buffer
			assert.NilError(t, WriteJUnit(&b, run))
			assert.Check(t, !strings.Contains(b.String(), ` failures="0" errors="0"`), "the report is green, although the stream is incomplete")
		})
	}
}

func withoutAttrs(lines []string) string {
	var out []string
	for _, l := range lines {
		if !strings.Contains(l, `"Action":"attr"`) {
			out = append(out, l)
		}
	}
	return strings.Join(out, "")
}

// A newer Go may write further actions, fields and keys.
func TestRead_LeavesOutWhatItDoesNotKnow(t *testing.T) {
	data, err := os.ReadFile("testdata/stream.json")
	assert.NilError(t, err)
	stream := strings.ReplaceAll(string(data), `{"Time"`, `{"Moon":{"a":[1]},"Time"`) +
		`{"Action":"moon","Package":"cdblab","Test":"TestLifecycle_WhatDoesPauseStop","Output":7}` + "\n" +
		`{"Action":"moon","Package":"cdblab"}` + "\n" +
		`{"Action":"attr","Test":"TestLifecycle_WhatDoesPauseStop","Key":"moon","Value":"{"}` + "\n"
	run, err := Read(strings.NewReader(stream))
	assert.NilError(t, err)
	assert.DeepEqual(t, run.Problems, []string{"1 of the 309 lines are no events of `go test -json`."}) // Output is no number
	assert.DeepEqual(t, facts(t, run), facts(t, sample(t)))
}

// Nothing that a test prints can change a terminal, a page or a report.
func TestRead_ReplacesControlCharacters(t *testing.T) {
	const evil = `\u001b[2J\u0000\u202e<script>alert(1)</script>]]>&` + "`\\r\\n```"
	run := read(t,
		`"Action":"run","Test":"T`+evil+`"`,
		`"Action":"attr","Test":"T`+evil+`","Key":"question","Value":"`+evil+`"`,
		`"Action":"attr","Test":"T`+evil+`","Key":"log","Value":"{\"kind\":\"error\",\"text\":\"\\u001b[2J</testcase>\"}"`,
		`"Action":"output","Test":"T`+evil+`","Output":"`+evil+`\n"`,
		`"Action":"fail","Test":"T`+evil+`"`,
		`"Action":"fail"`,
	)
	var all bytes.Buffer
	for _, write := range []func(io.Writer, *Run) error{WriteFacts, WriteSummary, WriteJUnit} {
		assert.NilError(t, write(&all, run))
	}
	for _, c := range []string{"\x1b", "\x00", "\u202e", "\r"} {
		assert.Check(t, !strings.Contains(all.String(), c), "%q is in the results", c)
		for _, q := range run.Questions {
			assert.Check(t, !strings.Contains(q.Test+q.Text+strings.Join(q.Output, ""), c), "%q is in the run", c)
		}
	}
	var summary bytes.Buffer
	assert.NilError(t, WriteSummary(&summary, run))
	assert.Check(t, cmp.Contains(summary.String(), `\<script\>`))
}

// A run holds only so much, and says how much it has left out.
func TestRead_HoldsABoundedPartOfALongStream(t *testing.T) {
	r := NewReader()
	r.limit = 1 << 20
	line := []byte(`{"Action":"output","Test":"TestX","Output":"` + strings.Repeat("x", 1000) + `\n"}`)
	for range 10_000 {
		r.Line(line)
	}
	for i := range 10_000 {
		r.Line([]byte(`{"Action":"attr","Test":"TestX","Key":"command` + []string{"", "+"}[min(i, 1)] + `","Value":"` + strings.Repeat("x", 1000) + `"}`))
	}
	r.Line([]byte(`{"Action":"pass","Test":"TestX"}`))
	run := r.Close()
	held := 0
	for _, l := range run.Questions[0].Output {
		held += len(l)
	}
	assert.Check(t, held <= 1<<20, held)
	assert.Check(t, len(r.tests["TestX"].value) <= maxLine)
	assert.Check(t, cmp.Contains(strings.Join(run.Problems, "\n"), "lines and notes are left out"))
	assert.Equal(t, run.Questions[0].Verdict, Answered) // what counts is still read
}

// A line without an end does not fill the memory.
func TestEachLine_CutsALongLine(t *testing.T) {
	var got []int
	long := strings.Repeat("x", 3*maxLine)
	assert.NilError(t, EachLine(strings.NewReader("a\n"+long+"\nbc"), func(l []byte) { got = append(got, len(bytes.TrimSpace(l))) }))
	assert.DeepEqual(t, got, []int{1, maxLine, 2})
}
