package results

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
)

// event is a line of `go test -json`: see `go doc test2json`. It is also a line of `go build -json`, which go test adds where
// the tests do not compile.
type event struct {
	Time       time.Time
	Action     string
	Package    string
	Test       string
	Elapsed    float64 // seconds
	Output     string
	Key, Value string // of an attr event
	Path       string // of an artifacts event
}

// A Change is what a line of the stream has changed.
type Change struct {
	Kind     ChangeKind
	Question *Question // nil for Printed and Finished
	Line     string    // of Printed and Noted
}

// ChangeKind says what a line has changed.
type ChangeKind int

// The kinds of changes.
const (
	Nothing  ChangeKind = iota
	Printed             // a line was printed outside of the questions
	Began               // a question has begun, or goes on after it waited for its turn
	Stepped             // a question has begun a step
	Noted               // a question has printed a line: its notes, or a message
	Ended               // a question has its verdict
	Finished            // the run has its verdict
)

// A Reader reads the stream of a run.
type Reader struct {
	run     *Run
	tests   map[string]*test
	partial map[string]string // test → a line of its output that is not complete yet; "" for the run
	lines   int
	garbage int
}

// test is a test or subtest of the stream.
type test struct {
	question *Question
	subtest  *Subtest // nil for a question itself
	path     string   // of the subtest, below the question
	key      string   // of the last attr event, which the next one may continue
	value    string
}

// NewReader returns a reader that has read nothing.
func NewReader() *Reader {
	return &Reader{run: &Run{Verdict: Unfinished}, tests: map[string]*test{}, partial: map[string]string{}}
}

// Read reads a whole stream. The error is an error of the input; what is wrong with the stream is in Run.Problems.
func Read(in io.Reader) (*Run, error) {
	r := NewReader()
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			r.Line(line)
		}
		if err == io.EOF {
			return r.Close(), nil
		}
		if err != nil {
			return r.Close(), err
		}
	}
}

// Run returns what was read so far. It changes with the next line.
func (r *Reader) Run() *Run { return r.run }

// Line reads a line of the stream, and returns what it has changed.
func (r *Reader) Line(line []byte) Change {
	line = bytes.TrimSpace(line)
	if len(line) == 0 {
		return Change{}
	}
	r.lines++
	var e event
	if err := json.Unmarshal(line, &e); err != nil || e.Action == "" {
		r.garbage++
		text := plainText(string(line))
		r.run.Lines = append(r.run.Lines, text)
		return Change{Kind: Printed, Line: text}
	}
	if !e.Time.IsZero() {
		if r.run.Begin.IsZero() {
			r.run.Begin = e.Time
		}
		r.run.End = e.Time
	}
	if e.Test == "" {
		return r.ofRun(e)
	}
	return r.ofTest(e, r.test(e))
}

// ofRun reads an event that belongs to no test.
func (r *Reader) ofRun(e event) Change {
	switch e.Action {
	case "output", "build-output":
		line, complete := r.output("", e.Output)
		if !complete || line == "" {
			return Change{}
		}
		r.run.Lines = append(r.run.Lines, line)
		return Change{Kind: Printed, Line: line}
	case "pass", "fail", "skip":
		r.run.Verdict = verdicts[e.Action]
		return Change{Kind: Finished}
	}
	return Change{}
}

var verdicts = map[string]Verdict{"pass": Answered, "fail": Failed, "skip": Skipped}

// test returns the test of an event, which may be a new one.
func (r *Reader) test(e event) *test {
	if t := r.tests[e.Test]; t != nil {
		return t
	}
	top, path, isSubtest := strings.Cut(e.Test, "/")
	t := &test{path: plainText(path)}
	if isSubtest {
		parent := r.test(event{Test: top, Time: e.Time})
		t.question = parent.question
		t.subtest = &Subtest{Name: t.path, Verdict: Unfinished}
		t.question.Subtests = append(t.question.Subtests, t.subtest)
	} else {
		t.question = &Question{Test: plainText(top), Verdict: Unfinished, Begin: e.Time, Steps: []*Step{{}}}
		r.run.Questions = append(r.run.Questions, t.question)
	}
	r.tests[e.Test] = t
	return t
}

// ofTest reads an event of a test or subtest.
func (r *Reader) ofTest(e event, t *test) Change {
	q := t.question
	if e.Action == "attr" {
		return r.attr(e, t)
	}
	t.key = ""
	switch e.Action {
	case "run":
		return Change{Kind: Began, Question: q}
	case "cont":
		if t.subtest == nil {
			q.Begin = e.Time
		}
		return Change{Kind: Began, Question: q}
	case "output":
		line, complete := r.output(e.Test, e.Output)
		if !complete || isFrame(line) {
			return Change{}
		}
		q.Output = append(q.Output, line)
		return Change{Kind: Noted, Question: q, Line: line}
	case "artifacts":
		if t.subtest == nil {
			q.Artifact = e.Path
		}
	case "pass", "fail", "skip":
		elapsed := time.Duration(e.Elapsed * float64(time.Second))
		if t.subtest != nil {
			t.subtest.Verdict, t.subtest.Elapsed = verdicts[e.Action], elapsed
			return Change{}
		}
		q.Verdict, q.Elapsed = verdicts[e.Action], elapsed
		return Change{Kind: Ended, Question: q}
	}
	return Change{}
}

// output adds a piece of output, and returns the line that is complete with it, without its newline. go test cuts long lines
// into several events.
func (r *Reader) output(test, piece string) (line string, complete bool) {
	line = r.partial[test] + piece
	if !strings.HasSuffix(line, "\n") {
		r.partial[test] = line
		return "", false
	}
	delete(r.partial, test)
	return plainText(strings.TrimSuffix(line, "\n")), true
}

// isFrame reports whether go test has written a line of output, and not the test: its events say the same.
func isFrame(line string) bool {
	return strings.HasPrefix(line, "=== ") || strings.HasPrefix(strings.TrimSpace(line), "--- PASS: ") ||
		strings.HasPrefix(strings.TrimSpace(line), "--- FAIL: ") || strings.HasPrefix(strings.TrimSpace(line), "--- SKIP: ")
}

// Close ends the reading, and notes what is missing at the end of the stream.
func (r *Reader) Close() *Run {
	if rest := r.partial[""]; rest != "" {
		r.run.Lines = append(r.run.Lines, plainText(rest))
		delete(r.partial, "")
	}
	switch {
	case r.lines == 0:
		r.problem("The stream is empty.")
	case r.garbage == r.lines:
		r.problem("This is no stream of `go test -json`: no line of it is an event.")
	case r.garbage > 0:
		r.problem("%d of the %d lines are no events of `go test -json`.", r.garbage, r.lines)
	}
	if r.lines > r.garbage && r.run.Verdict == Unfinished {
		r.problem("The stream ends before the run does: %d questions have no verdict.", r.run.Count(Unfinished))
	}
	return r.run
}

func (r *Reader) problem(format string, args ...any) {
	r.run.Problems = append(r.run.Problems, fmt.Sprintf(format, args...))
}
