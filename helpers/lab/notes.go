//go:build linux

package lab

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"al.essio.dev/pkg/shellescape"

	"cdblab/helpers/host"
)

// notes writes down a question as lab notes. `go test -v` shows them as a person reads them; in `go test -json` each is
// an attr event of the test besides, and with -artifacts the commands are a file that can be run again.
type notes struct {
	t     *testing.T // nil for a benchmark, which takes no notes
	out   *gather
	names *namer
	step  *int
	file  *os.File
	setup []string // commands without which the others cannot be pasted: cd, export
}

func newNotes(tb testing.TB, part host.Owner) *notes {
	t, ok := tb.(*testing.T)
	if !ok {
		return &notes{out: &gather{to: io.Discard, stream: true}}
	}
	n := &notes{t: t, out: &gather{to: t.Output(), stream: oneByOne()}, step: new(int), names: &namer{
		paths: strings.NewReplacer(part.Dir(), "$Q", part.Cgroup(), "$CGROUP", part.ID(""), "", filepath.Dir(part.Dir()), "$RUN"),
		seen:  map[string]map[string]int{},
	}}
	f, err := os.Create(filepath.Join(t.ArtifactDir(), "transcript.sh"))
	if err != nil {
		t.Fatalf("open the transcript: %v", err)
	}
	t.Cleanup(func() { f.Close() })
	n.file = f
	return n
}

// part is the notes of a subtest: the same story, told on.
func (n *notes) part(t *testing.T) *notes {
	sub := *n
	sub.t = t
	if sub.out.stream {
		sub.out = &gather{to: t.Output(), stream: true}
	}
	return &sub
}

// attr sends an event for the readers of go test -json. In a plain -v they would only say everything twice.
func (n *notes) attr(key, value string) {
	if n.t != nil && flag.Lookup("test.v").Value.String() == "test2json" {
		n.t.Attr(key, strings.ReplaceAll(value, "\n", "\\n"))
	}
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

// command notes a command as it can be pasted into a shell.
func (n *notes) command(line string) {
	if n.t == nil {
		return
	}
	n.attr("command", n.names.paths.Replace(line))
	fmt.Fprintf(n.out, "     $ %s\n", line)
	fmt.Fprintln(n.file, line)
}

// setUp notes a command that those after it need; in the transcript, long stands for it.
func (q *Q) setUp(short, long string) {
	q.notes.setup = append(q.notes.setup, short)
	q.LogCommandAs(short, long)
}

// Step begins a step of the experiment: what is done now, and what it is expected to show.
func (q *Q) Step(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	q.notes.attr("step", text)
	if q.notes.t != nil {
		*q.notes.step++
		q.notes.line("\n  %d. %s", *q.notes.step, text)
	}
}

// Control begins a step in which the cause is taken away, so that the effect must go.
func (q *Q) Control(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	q.notes.attr("control", text)
	q.notes.line("\n  C. control: %s", text)
}

// Fact records what was observed. Two runs can be compared by their facts: paths of the run and volatile values (see
// [Volatile]) are recorded by name, while the reader sees them as they are.
func (q *Q) Fact(name string, value any) {
	if q.notes.t == nil {
		return
	}
	normal, err := json.Marshal(struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}{name, q.notes.names.normal(value)})
	if err != nil {
		q.Fatalf("record fact %q: %v", name, err)
	}
	q.notes.attr("fact", string(normal))
	q.notes.line("     · %-34s %s", name, plain(value))
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

// Volatile is a value on which no two runs agree, such as a pid. Volatile returns what kind of value it is: the first
// pid of a question is recorded as <pid 1>, another one as <pid 2>, and the first one again as <pid 1>, so that "the
// same pid as before" is still seen.
type Volatile interface{ Volatile() string }

// Elapsed is a time that something took.
type Elapsed time.Duration

// Volatile is the word that stands for a duration where two runs are compared.
func (Elapsed) Volatile() string { return "duration" }

func (e Elapsed) String() string { return time.Duration(e).Round(100 * time.Microsecond).String() }

// Chance is an outcome that is one in this run and may be another in the next, without anything being wrong.
type Chance string

// Volatile is the word that stands for such an outcome where two runs are compared.
func (Chance) Volatile() string { return "chance" }

type namer struct {
	mu    sync.Mutex
	paths *strings.Replacer
	seen  map[string]map[string]int // kind → value → number
}

func (n *namer) normal(value any) string { return n.paths.Replace(render(value, n.name)) }

func (n *namer) name(v Volatile) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	kind, key := v.Volatile(), fmt.Sprint(v)
	if n.seen[kind] == nil {
		n.seen[kind] = map[string]int{}
	}
	if n.seen[kind][key] == 0 {
		n.seen[kind][key] = len(n.seen[kind]) + 1
	}
	return fmt.Sprintf("<%s %d>", kind, n.seen[kind][key])
}

func plain(value any) string { return render(value, func(v Volatile) string { return fmt.Sprint(v) }) }

// render writes a value on one line; slices and maps element by element, maps in the order of their keys.
func render(value any, volatile func(Volatile) string) string {
	if v, ok := value.(Volatile); ok {
		return volatile(v)
	}
	if s, ok := value.(fmt.Stringer); ok {
		return s.String()
	}
	rv := reflect.ValueOf(value)
	switch rv.Kind() {
	case reflect.Slice:
		var parts []string
		for i := range rv.Len() {
			parts = append(parts, render(rv.Index(i).Interface(), volatile))
		}
		if len(parts) == 0 {
			return "none"
		}
		return strings.Join(parts, " ")
	case reflect.Map:
		parts := map[string]string{}
		for _, k := range rv.MapKeys() {
			parts[fmt.Sprint(k)] = render(rv.MapIndex(k).Interface(), volatile)
		}
		var out []string
		for _, k := range slices.Sorted(maps.Keys(parts)) {
			out = append(out, k+"="+parts[k])
		}
		return strings.Join(out, " ")
	}
	return strings.ReplaceAll(fmt.Sprint(value), "\n", " ⏎ ")
}

// quote writes a command as a shell reads it back.
func quote(argv []string) string { return shellescape.QuoteCommand(argv) }

// Did notes, as one would type it, what the lab did by itself.
func (q *Q) LogCommand(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	q.LogCommandAs(line, line)
}

// DidLong is [Q.Did] for what is too long to show: the reader sees short, the transcript has long.
func (q *Q) LogCommandAs(short, long string) {
	if q.notes.t == nil {
		return
	}
	q.notes.attr("command", q.notes.names.paths.Replace(long))
	fmt.Fprintf(q.notes.out, "     $ %s\n", short)
	fmt.Fprintln(q.notes.file, long)
}
