package results

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
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
	stopped string // the signal that has stopped the run
	open    int    // packages that have begun, and have no verdict
	garbage int    // lines that are no events
	broken  int    // values of attr events that are incomplete
	limit   int    // bytes of the stream that the run may hold
	kept    int    // bytes that it holds
	dropped int    // lines and notes that it does not hold, because the limit is reached
	ofLab   bool   // the last line of output was the lab's or the VM's, whatever test it was printed in
}

// Bounds, so that no stream takes more memory than a machine has. A whole run has 15 MB of stream and no line of 10 kB.
const (
	maxLine = 1 << 20
	maxKept = 64 << 20
)

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
	return &Reader{run: &Run{Verdict: Unfinished}, tests: map[string]*test{}, partial: map[string]string{}, limit: maxKept}
}

// Read reads a whole stream. The error is an error of the input; what is wrong with the stream is in Run.Problems.
func Read(in io.Reader) (*Run, error) {
	r := NewReader()
	err := EachLine(in, func(line []byte) { r.Line(line) })
	return r.Close(), err
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
	if isCopyOfAttr(line) {
		return Change{}
	}
	var e event
	if err := json.Unmarshal(line, &e); err != nil || e.Action == "" {
		r.garbage++
		return r.printed(plainText(string(line)))
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
	case "start":
		r.open++
	case "attr":
		if e.Key == stoppedKey {
			r.stopped = plainText(e.Value)
		}
	case "output", "build-output":
		line, complete := r.output("", e.Output)
		if !complete || line == "" {
			return Change{}
		}
		return r.printed(line)
	case "pass", "fail", "skip":
		r.open--
		// A stream of several packages has several verdicts. A package without tests is skipped.
		if v := verdicts[e.Action]; r.run.Verdict == Unfinished || r.run.Verdict == Skipped || v == Failed {
			r.run.Verdict = v
		}
		return Change{Kind: Finished}
	}
	return Change{}
}

// stoppedKey is the key of the event that says that a run was stopped. It belongs to no test.
const stoppedKey = "stopped"

// Stopped returns the line of a stream that says that a signal has stopped the run. Without it, a question that failed after the signal
// looks like one that failed by itself.
func Stopped(signal string) []byte {
	line, _ := json.Marshal(map[string]string{"Action": "attr", "Key": stoppedKey, "Value": signal}) // strings can always be encoded
	return append(line, '\n')
}

// Print adds a line that was printed beside the stream, by go itself.
func (r *Reader) Print(line string) Change { return r.printed(plainText(line)) }

// printed adds a line that was printed outside of the questions.
func (r *Reader) printed(line string) Change {
	if r.keep(len(line)) {
		r.run.Lines = append(r.run.Lines, line)
		r.run.LastWords = append(r.run.LastWords, line)
	}
	return Change{Kind: Printed, Line: line}
}

// keep reports whether the run may hold so many more bytes.
func (r *Reader) keep(bytes int) bool {
	const overhead = 64 // of a string in a slice
	if r.kept+bytes+overhead > r.limit {
		r.dropped++
		return false
	}
	r.kept += bytes + overhead
	return true
}

var verdicts = map[string]Verdict{"pass": Answered, "fail": Failed, "skip": Skipped}

// test returns the test of an event, which may be a new one.
func (r *Reader) test(e event) *test {
	if t := r.tests[e.Test]; t != nil {
		return t
	}
	top, path, isSubtest := strings.Cut(e.Test, "/")
	t := &test{path: plainText(path)}
	keep := r.keep(len(e.Test) + 512)
	if isSubtest {
		parent := r.test(event{Test: top, Time: e.Time})
		t.question = parent.question
		t.subtest = &Subtest{Name: t.path, Verdict: Unfinished}
		if keep {
			t.question.Subtests = append(t.question.Subtests, t.subtest)
		}
	} else {
		t.question = &Question{Test: plainText(top), Verdict: Unfinished, Begin: e.Time, Steps: []*Step{{}}}
		if keep {
			r.run.Questions = append(r.run.Questions, t.question)
		}
	}
	if keep {
		r.tests[e.Test] = t
	}
	return t
}

// ofTest reads an event of a test or subtest.
func (r *Reader) ofTest(e event, t *test) Change {
	q := t.question
	if e.Action != "output" {
		r.run.LastWords = nil
	}
	if e.Action == "attr" {
		return r.attr(e, t)
	}
	switch e.Action {
	case "run", "cont":
		if t.subtest != nil {
			return Change{}
		}
		q.Begin = e.Time
		return Change{Kind: Began, Question: q}
	case "output":
		line, complete := r.output(e.Test, e.Output)
		if !complete || isFrame(line) {
			return Change{}
		}
		if r.ofLab = isOfLab(line) || r.ofLab && strings.HasPrefix(line, "  "); r.ofLab {
			return r.printed(line)
		}
		r.run.LastWords = nil
		if r.keep(len(line)) {
			q.Output = append(q.Output, line)
		}
		return Change{Kind: Noted, Question: q, Line: line}
	case "artifacts":
		if t.subtest == nil {
			q.Artifact = plainText(e.Path)
		}
	case "pass", "fail", "skip":
		elapsed := time.Duration(e.Elapsed * float64(time.Second))
		if t.subtest != nil {
			t.subtest.Verdict, t.subtest.Elapsed = verdicts[e.Action], elapsed
			return Change{}
		}
		q.Verdict, q.Elapsed = verdicts[e.Action], elapsed
		if q.Verdict == Answered && q.showedNothing() {
			// go test lets a test pass of which all subtests were skipped.
			q.Verdict, q.Answer = Skipped, ""
			q.Logs = append(q.Logs, Log{Kind: "skip", Text: "all its parts were skipped, and it asserts nothing besides them"})
		}
		return Change{Kind: Ended, Question: q}
	}
	return Change{}
}

// output adds a piece of output, and returns the line that is complete with it, without its newline. go test cuts long lines
// into several events.
func (r *Reader) output(test, piece string) (line string, complete bool) {
	line = r.partial[test] + piece
	if !strings.HasSuffix(line, "\n") && len(line) < maxLine {
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

// isCopyOfAttr reports whether a line is the output that go test writes besides an attr event. More than half of a stream is that,
// and reading it takes long. A copy that has several lines is dropped later: see isFrame.
func isCopyOfAttr(line []byte) bool {
	return bytes.HasSuffix(line, []byte(`\n"}`)) && bytes.Contains(line, []byte(`,"Output":"=== ATTR  `))
}

// isOfLab reports whether the lab or the VM has written a line, and not a test. Where a machine fails in the middle of a
// question, go test takes what is said about it for output of this question.
func isOfLab(line string) bool {
	return strings.HasPrefix(line, "lab: ") || strings.HasPrefix(line, "cdblab: ") || strings.HasPrefix(line, "FAIL\t") ||
		strings.HasPrefix(line, "exit status ") || strings.HasPrefix(line, "signal: ")
}

// Close ends the reading, and notes what is missing at the end of the stream.
func (r *Reader) Close() *Run {
	if rest := r.partial[""]; rest != "" {
		r.printed(plainText(rest))
		delete(r.partial, "")
	}
	for _, t := range r.tests {
		r.endNote(t)
	}
	events, run := r.lines-r.garbage, r.run
	if run.Verdict == Answered && r.open > 0 {
		run.Verdict = Unfinished
	}
	run.FailedAtEnd = run.failedAtEnd() || r.stopped != "" || r.broken+r.dropped > 0
	asked := slices.ContainsFunc(run.Questions, func(q *Question) bool { return q.Text != "" })
	switch {
	case r.lines == 0:
		r.problem("The stream is empty.")
	case events == 0:
		r.problem("This is no stream of `go test -json`: no line of it is an event.")
	case r.garbage > 0:
		r.problem("%d of the %d lines are no events of `go test -json`.", r.garbage, r.lines)
	}
	if events > 0 && run.Verdict == Unfinished {
		r.problem("The stream ends before the run does: %d questions have no verdict, and %d were not begun.",
			run.Count(Unfinished), run.NotBegun())
	}
	if r.stopped != "" {
		r.problem("The run was stopped (%s). What failed after that says nothing.", r.stopped)
	}
	if len(run.Questions) > 0 && !asked {
		r.problem("The stream has %d tests, and none is a question of the lab. Go before 1.25 writes no attr events.", len(run.Questions))
	}
	if r.broken > 0 {
		r.problem("%d notes are incomplete, and are left out.", r.broken)
	}
	if r.dropped > 0 {
		r.problem("The stream has more than a run can hold (%d bytes): %d lines and notes are left out.", r.limit, r.dropped)
	}
	return run
}

func (r *Reader) problem(format string, args ...any) {
	r.run.Problems = append(r.run.Problems, fmt.Sprintf(format, args...))
}
