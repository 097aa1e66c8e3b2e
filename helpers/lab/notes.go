//go:build linux

package lab

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"al.essio.dev/pkg/shellescape"

	"cdblab/helpers/host"
)

// notes are the lab notes of a question. `go test -v` shows them as text for a reader. In `go test -json` each note is an attr
// event of the test as well. With -artifacts, a file has the commands, so that they can be run again.
type notes struct {
	taken      bool                    // false for a benchmark, which takes no notes
	emit       func(key, value string) // writes an attr event; nil if no program reads them
	out        *output
	facts      *facts
	steps      *steps
	transcript io.Writer // the commands, with the other notes as comments
	setup      []string  // commands that the others need: cd, export
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
	n := &notes{
		taken: true, emit: attrWriter(t), out: &output{to: t.Output(), direct: oneByOne}, steps: &steps{}, facts: newFacts(owner),
	}
	f, err := createTranscript(t)
	if err != nil {
		t.Fatalf("open the transcript: %v", err)
	}
	t.Cleanup(func() { f.Close() })
	n.transcript = f
	return n
}

// subtest returns the notes of a subtest, which continue those of the question.
func (n *notes) subtest(t *testing.T) *notes {
	sub := *n
	sub.emit = attrWriter(t)
	if sub.out.direct {
		sub.out = &output{to: t.Output(), direct: true}
	}
	return &sub
}

// attrWriter returns the function that writes attr events of t, or nil if go test does not run with -json: with -v alone they
// would repeat the notes.
func attrWriter(t *testing.T) func(key, value string) {
	if flag.Lookup("test.v").Value.String() != "test2json" {
		return nil
	}
	return t.Attr
}

// maxAttr is the length of a value that go test keeps whole: with the names around it, a line has less than 4096 bytes.
const maxAttr = 3500

// attr emits an attr event for programs that read go test -json. go test loses an attr with a longer line than 4096 bytes. So a
// long value is cut into several events, and the key of the second and later ones ends with a plus sign.
func (n *notes) attr(key, value string) {
	if n.emit == nil {
		return
	}
	value = strings.ReplaceAll(value, "\n", " ")
	for len(value) > maxAttr {
		end := maxAttr
		for !utf8.RuneStart(value[end]) {
			end--
		}
		n.emit(key, value[:end])
		value = value[end:]
		key = strings.TrimSuffix(key, "+") + "+"
	}
	n.emit(key, value)
}

// attrJSON is [notes.attr] for a value that has several fields.
func (n *notes) attrJSON(key string, value any) {
	if n.emit == nil {
		return
	}
	var data bytes.Buffer
	encoder := json.NewEncoder(&data)
	encoder.SetEscapeHTML(false) // the stream is read by people as well
	if err := encoder.Encode(value); err != nil {
		panic(err) // the values are strings, numbers and booleans
	}
	n.attr(key, strings.TrimSuffix(data.String(), "\n"))
}

// message is the attr event of what a test logs besides its notes.
type message struct {
	Kind string `json:"kind"` // log, error or skip
	Text string `json:"text"`
	At   string `json:"at"` // lifecycle_test.go:63
}

// message notes a message of the test. An assertion logs its message, and then fails the test.
func (n *notes) message(kind, text string) {
	n.out.flush()
	if n.emit != nil {
		n.attrJSON("log", message{kind, n.facts.paths.Replace(strings.TrimSpace(text)), caller()})
	}
}

// caller returns the file and line of the question that logs a message. It is the innermost place in a file of tests: helpers
// are no place that a reader looks for.
func caller() string {
	pcs := make([]uintptr, 50)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs)])
	for {
		frame, more := frames.Next()
		if strings.HasSuffix(frame.File, "_test.go") {
			return fmt.Sprintf("%s:%d", filepath.Base(frame.File), frame.Line)
		}
		if !more {
			return ""
		}
	}
}

// line writes a line for the reader, and a comment into the transcript.
func (n *notes) line(format string, args ...any) {
	if !n.taken {
		return
	}
	text := fmt.Sprintf(format, args...)
	fmt.Fprintln(n.out, text)
	for l := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		fmt.Fprintln(n.transcript, strings.TrimSpace("# "+strings.TrimSpace(l)))
	}
}

// question notes which question is asked, and what is tested: a program that reads the attr events of any question knows it.
func (n *notes) question(scope, text string, stack any) {
	n.attr("question", text)
	n.attr("scope", scope)
	n.attr("source", caller())
	n.attrJSON("stack", stack)
	n.line("\nQ  %s   (%s)", text, scope)
}

// command is the attr event of a command.
type command struct {
	Shown  string `json:"shown,omitempty"` // what the reader sees, if it is shorter
	Script string `json:"script"`
}

// command notes a command. The reader sees shown; the transcript has script, which can be pasted into a shell.
func (n *notes) command(shown, script string) {
	if !n.taken {
		return
	}
	c := command{Script: n.facts.paths.Replace(script)}
	if shown != script {
		c.Shown = n.facts.paths.Replace(shown)
	}
	n.attrJSON("command", c)
	fmt.Fprintf(n.out, "     $ %s\n", shown)
	fmt.Fprintln(n.transcript, script)
}

// quote returns a command in the form that can be pasted into a shell.
func quote(argv []string) string { return shellescape.QuoteCommand(argv) }

// output prints the notes of a question. The notes of questions that are asked at the same time would be mixed. So the notes
// of a question are held back, and printed in one piece: when the question ends, or before the test prints a line by Log, Error
// or Skip.
type output struct {
	mu     sync.Mutex
	to     io.Writer
	held   bytes.Buffer
	direct bool // no other question is asked now: print each note at once
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
