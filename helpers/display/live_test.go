package display

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/golden"

	"cdblab/helpers/results"
)

// showLive shows a stream on a terminal. After each change it calls the function, if there is one, with the number of questions
// that have ended.
func showLive(term *terminal, stream string, o Options, after func(l *live, ended int)) {
	c := &clock{time: time.Date(2026, 11, 26, 17, 0, 50, 0, time.UTC)}
	l := newLive(&screen{out: term, size: term.size}, term.color, o, c.now)
	l.Prepare("building runc, containerd, the shim and ctr")
	c.time = c.time.Add(2 * time.Second)
	l.Prepare("compiling the tests")
	r := results.NewReader()
	for line := range strings.Lines(stream) {
		c.at([]byte(line))
		change := r.Line([]byte(line))
		if l.Update(r.Run(), change); change.Kind == results.Nothing {
			continue
		}
		l.draw()
		if after != nil {
			after(l, len(l.progress.ended))
		}
	}
	l.Done(r.Close(), ".lab/results/latest")
}

// The pictures in testdata have the terminal before the first question, while two questions run, and at the end.
func TestLive_ShowsARun(t *testing.T) {
	stream := read(t, "testdata/stream.json")
	for _, width := range []int{40, 80, 140} {
		term := &terminal{T: t, width: width, height: 50}
		var pictures []string
		rule := strings.Repeat("=", width) + "\n"
		showLive(term, stream, Options{Expected: expected(stream)}, func(l *live, ended int) {
			first := len(pictures) == 0
			asked := l.progress.running
			if first || len(pictures) == 1 && ended == 1 && len(asked) == 3 && asked[1].step != "" {
				pictures = append(pictures, term.text())
			}
		})
		pictures = append(pictures, term.text())
		golden.Assert(t, strings.Join(pictures, rule), fmt.Sprintf("live-%d.txt", width))
	}
}

func TestLive_ColoursOnlyRepeatWhatTheTextSays(t *testing.T) {
	stream := read(t, "testdata/stream.json")
	plain := &terminal{T: t, width: 80, height: 24}
	colored := &terminal{T: t, width: 80, height: 24, color: true}
	for _, term := range []*terminal{plain, colored} {
		showLive(term, stream, Options{}, nil)
	}
	assert.Equal(t, plain.text(), colored.text())
	assert.Check(t, cmp.Contains(colored.written.String(), "\x1b[32m✓"))
}

func TestLive_DrawsNothingAfterItsEnd(t *testing.T) {
	term := &terminal{T: t, width: 80, height: 24}
	l := newLive(&screen{out: term, size: term.size}, false, Options{}, (&clock{}).now)
	r := results.NewReader()
	l.Update(r.Run(), r.Line([]byte(`{"Action":"run","Test":"TestTask_X"}`)))
	l.Done(r.Close(), ".lab/results/latest")
	before := term.written.String()
	l.tick()
	assert.Equal(t, term.written.String(), before)
}

// A terminal of any size shows each question once at the end, and nothing of what was redrawn.
func TestLive_FitsIntoAnyTerminal(t *testing.T) {
	stream := read(t, "testdata/stream.json")
	stream = strings.ReplaceAll(stream, "the process: it is", "界界界界界界界界界界界界界界界界界界界界界界界界界界界界界")
	for _, width := range []int{20, 39, 40, 60, 80, 100, 113} {
		for _, height := range []int{1, 2, 5, 24} {
			term := &terminal{T: t, width: width, height: height}
			showLive(term, stream, Options{Expected: expected(stream)}, func(l *live, _ int) {
				rows, lines := l.screen.rows(width), l.screen.live
				assert.Check(t, rows < height, "%dx%d: the redrawn lines do not fit:\n%s", width, height, strings.Join(lines, "\n"))
				assert.Check(t, cmp.Len(lines, rows), "%dx%d: a redrawn line is too long", width, height)
			})
			text := term.text()
			redrawn := strings.ContainsAny(text, "▸"+strings.Join(spinner, ""))
			assert.Check(t, !redrawn, "%dx%d: a redrawn line is left:\n%s", width, height, text)
			assert.Check(t, cmp.Equal(strings.Count(text, "✓ Bundle"), 1), "%dx%d:\n%s", width, height, text)
		}
	}
}

// What was prepared when the run ended must stay on the screen: it is what failed.
func TestLive_FailsBeforeTheFirstQuestion(t *testing.T) {
	term := &terminal{T: t, width: 80, height: 24}
	showLive(term, `{"Action":"fail"}`+"\n", Options{}, nil)
	assert.Check(t, cmp.Contains(term.text(), "✓ building runc, containerd, the shim and ctr  2.0s\n✗ compiling the tests  0.0s\n"))
}

func TestLive_ManyQuestionsRunAtTheSameTime(t *testing.T) {
	var b strings.Builder
	for i := range 30 {
		fmt.Fprintf(&b, `{"Action":"run","Test":"TestTask_%d"}`+"\n", i)
	}
	for i := range 30 {
		fmt.Fprintf(&b, `{"Action":"cont","Test":"TestTask_%d"}`+"\n", i)
		fmt.Fprintf(&b, `{"Action":"attr","Test":"TestTask_%d","Key":"question","Value":"What is %d?"}`+"\n", i, i)
	}
	term := &terminal{T: t, width: 60, height: 10}
	var last string
	showLive(term, b.String(), Options{}, func(*live, int) { last = term.text() })
	assert.Check(t, cmp.Contains(last, "▸ Task      What is 6?"))
	assert.Check(t, cmp.Contains(last, "  and 23 more\n"))
	assert.Check(t, cmp.Contains(last, " 0 of 30 questions ended, "))
}

// What a test, a program under test or a name says must not move the cursor or colour the terminal.
func TestDisplay_NoEscapeSequenceOfATestReachesTheTerminal(t *testing.T) {
	const evil = `\u001b[2J\u001b[31m\u009b1A\u0007\b\u001b]0;title\u0007\u202e`
	const evilInJSON = `\\u001b[2J\\u001b]0;title\\u0007\\u009b1A`
	stream := strings.NewReplacer("E", evil, "J", evilInJSON).Replace(`{"Action":"start"}
{"Action":"output","Output":"lab: printed E\n"}
{"Action":"run","Test":"TestTask_X"}
{"Action":"attr","Test":"TestTask_X","Key":"question","Value":"What is E?"}
{"Action":"attr","Test":"TestTask_X","Key":"stack","Value":"{\"kernel\":\"6J\",\"machine\":\"J\",\"cgroup\":\"vJ\","}
{"Action":"attr","Test":"TestTask_X","Key":"stack+","Value":"\"programs\":[{\"name\":\"runcJ\",\"version\":\"1.2J\",\"path\":\"/J\"}]}"}
{"Action":"attr","Test":"TestTask_X","Key":"step","Value":"{\"number\":1,\"text\":\"look J\\nat\\tJ\"}"}
{"Action":"attr","Test":"TestTask_X","Key":"log","Value":"{\"kind\":\"skip\",\"text\":\"skipped J\",\"at\":\"J\"}"}
{"Action":"run","Test":"TestTask_X/sub E"}
{"Action":"output","Test":"TestTask_X/sub E","Output":"    1. notes E\n"}
{"Action":"output","Test":"TestTask_X","Output":"    x_test.go:1: message E\n"}
no event E
{"Action":"VERDICT","Test":"TestTask_X","Elapsed":1}
{"Action":"output","Output":"cdblab: skipped, with the reason:\n"}
{"Action":"output","Output":"  reason E\n"}
{"Action":"pass"}
`)
	for _, verdict := range []string{"pass", "fail", "skip", "output"} {
		stream := strings.Replace(stream, "VERDICT", verdict, 1)
		stream = strings.Replace(stream, "no event "+evil, "no event \x1b[2J\a", 1)
		term := &terminal{T: t, width: 80, height: 24}
		showLive(term, stream, Options{Verbose: true}, nil)
		assert.Check(t, cmp.Contains(term.text(), "What is �[2J�[31m"))
		log := showPlain(stream, Options{Verbose: true})
		_, err := (&terminal{T: t, width: 80, height: 24}).Write([]byte(log))
		assert.NilError(t, err)
		assert.Check(t, !strings.ContainsAny(log, "\x1b\a\b\u009b\u202e"), "%q", log)
	}
}
