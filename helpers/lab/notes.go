//go:build linux

package lab

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"al.essio.dev/pkg/shellescape"

	"cdblab/helpers/host"
)

// notes writes down a question as lab notes. `go test -v` shows them as a person reads them. In `go test -json` each note is
// an attr event of the test as well. With -artifacts the commands are a file that can be run again.
type notes struct {
	t     *testing.T // nil for a benchmark, which takes no notes
	out   *output
	facts *facts
	steps *steps
	file  *os.File
	setup []string // commands without which the others cannot be pasted: cd, export
}

// steps numbers the steps and controls of a question, in one sequence.
type steps struct {
	last     int // number of the last step or control; 0 before the first
	controls int
}

func newNotes(tb testing.TB, owner host.Owner, oneByOne bool) *notes {
	t, ok := tb.(*testing.T)
	if !ok {
		return &notes{out: &output{to: io.Discard, direct: true}}
	}
	n := &notes{t: t, out: &output{to: t.Output(), direct: oneByOne}, steps: &steps{}, facts: newFacts(owner)}
	f, err := os.Create(filepath.Join(t.ArtifactDir(), "transcript.sh"))
	if err != nil {
		t.Fatalf("open the transcript: %v", err)
	}
	t.Cleanup(func() { f.Close() })
	n.file = f
	return n
}

// subtest returns the notes of a subtest, which continue those of the question.
func (n *notes) subtest(t *testing.T) *notes {
	sub := *n
	sub.t = t
	if sub.out.direct {
		sub.out = &output{to: t.Output(), direct: true}
	}
	return &sub
}

// attr emits an attr event for the readers of go test -json. In a plain -v it would only repeat the notes.
func (n *notes) attr(key, value string) {
	if n.t != nil && flag.Lookup("test.v").Value.String() == "test2json" {
		n.t.Attr(key, strings.ReplaceAll(value, "\n", "\\n"))
	}
}

// attrJSON is [notes.attr] for a value with several parts.
func (n *notes) attrJSON(key string, value any) {
	data, err := json.Marshal(value)
	if err != nil {
		panic(err) // the values are strings, numbers and booleans
	}
	n.attr(key, string(data))
}

// line writes a line for the reader, and a comment into the transcript.
func (n *notes) line(format string, args ...any) {
	if n.t == nil {
		return
	}
	text := fmt.Sprintf(format, args...)
	fmt.Fprintln(n.out, text)
	for l := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		fmt.Fprintln(n.file, strings.TrimSpace("# "+strings.TrimSpace(l)))
	}
}

func (n *notes) question(scope Scope, text string) {
	n.attr("question", text)
	n.attr("scope", string(scope))
	n.line("\nQ  %s   (%s)", text, scope)
}

// command notes a command. The reader sees shown; the transcript has script, which can be pasted into a shell.
func (n *notes) command(shown, script string) {
	if n.t == nil {
		return
	}
	n.attr("command", n.facts.paths.Replace(script))
	fmt.Fprintf(n.out, "     $ %s\n", shown)
	fmt.Fprintln(n.file, script)
}

// quote writes a command as a shell reads it back.
func quote(argv []string) string { return shellescape.QuoteCommand(argv) }

// LogCommand notes, as a reader would type it, what the lab did by itself.
func (q *Q) LogCommand(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	q.notes.command(line, line)
}

// LogCommandAs is [Q.LogCommand] for what is too long to show: the reader sees shown, and the transcript has script.
func (q *Q) LogCommandAs(shown, script string) { q.notes.command(shown, script) }

// logSetUp notes a command that those after it need.
func (q *Q) logSetUp(shown, script string) {
	q.notes.setup = append(q.notes.setup, shown)
	q.LogCommandAs(shown, script)
}

// step is the attr event of a step or a control.
type step struct {
	Number int    `json:"number"` // in the question; facts refer to it
	Text   string `json:"text"`
}

// Step begins a step of the experiment: what is done now, and what it is expected to show.
func (q *Q) Step(format string, args ...any) {
	if q.notes.t == nil {
		return
	}
	text, s := fmt.Sprintf(format, args...), q.notes.steps
	s.last++
	q.notes.attrJSON("step", step{s.last, text})
	q.notes.line("\n  %d. %s", s.last-s.controls, text)
}

// Control begins a step in which the cause is taken away, so that the effect must go.
func (q *Q) Control(format string, args ...any) {
	if q.notes.t == nil {
		return
	}
	text, s := fmt.Sprintf(format, args...), q.notes.steps
	s.last++
	s.controls++
	q.notes.attrJSON("control", step{s.last, text})
	q.notes.line("\n  C. control: %s", text)
}

// Answer ends the question with its answer, as short as it can be said.
func (q *Q) Answer(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if q.Failed() {
		q.notes.line("\nA  not borne out by the facts above: %s\n", text)
		return
	}
	q.notes.attr("answer", text)
	q.notes.line("\nA  %s\n", text)
}

// Covers records that the assertions before it have followed these fields of config.json to the kernel. A field is named
// by its path, such as process.scheduler.flags, with [] for the elements of a list. The arguments are literals, or a
// [Fields] of literals, because the tests of the documentation read them in the source.
func (q *Q) Covers(fields ...string) {
	for _, f := range fields {
		q.notes.attr("covers", f)
	}
}

// Fields are paths of fields of config.json, for a table whose rows end in a call of [Q.Covers].
type Fields []string

// output is where a question's notes go. Where questions are asked at the same time, their notes would be mixed. So the
// notes of a question are held back, and written in one piece: when the question ends, or before the test prints a line of its
// own.
type output struct {
	mu     sync.Mutex
	to     io.Writer
	held   bytes.Buffer
	direct bool // no other question is asked now: write each note at once
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.direct {
		return o.to.Write(p)
	}
	return o.held.Write(p)
}

func (o *output) flush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, _ = o.held.WriteTo(o.to)
}

// What a test prints is shown after the notes taken before it. Assertions print what they saw by Log, and fail by
// FailNow, so these methods of testing.TB flush the notes.

// Log shows the notes taken so far, then its arguments.
func (q *Q) Log(args ...any) { q.TB.Helper(); q.notes.out.flush(); q.TB.Log(args...) }

// Logf shows the notes taken so far, then its arguments.
func (q *Q) Logf(format string, args ...any) {
	q.TB.Helper()
	q.notes.out.flush()
	q.TB.Logf(format, args...)
}

// Error is [Q.Log], and the question has failed.
func (q *Q) Error(args ...any) { q.TB.Helper(); q.notes.out.flush(); q.TB.Error(args...) }

// Errorf is [Q.Logf], and the question has failed.
func (q *Q) Errorf(format string, args ...any) {
	q.TB.Helper()
	q.notes.out.flush()
	q.TB.Errorf(format, args...)
}

// Fatal is [Q.Error], and the question ends.
func (q *Q) Fatal(args ...any) { q.TB.Helper(); q.notes.out.flush(); q.TB.Fatal(args...) }

// Fatalf is [Q.Errorf], and the question ends.
func (q *Q) Fatalf(format string, args ...any) {
	q.TB.Helper()
	q.notes.out.flush()
	q.TB.Fatalf(format, args...)
}

// Skip is [Q.Log], and the question ends unanswered.
func (q *Q) Skip(args ...any) { q.TB.Helper(); q.notes.out.flush(); q.TB.Skip(args...) }

// Skipf is [Q.Logf], and the question ends unanswered.
func (q *Q) Skipf(format string, args ...any) {
	q.TB.Helper()
	q.notes.out.flush()
	q.TB.Skipf(format, args...)
}
