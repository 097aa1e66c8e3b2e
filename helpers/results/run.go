package results

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Run is one run of the lab, as its stream tells it.
type Run struct {
	Stack       *Stack      // what was tested; nil before the first question has begun
	Questions   []*Question // in the order in which they were begun
	Lines       []string    // what was printed outside of questions: by go, by the VM, by the lab itself
	Verdict     Verdict     // of the test binary
	FailedAtEnd bool        // the run failed for a reason that is not in its questions: it changed the host, was stopped, or lost facts
	Begin       time.Time   // of the first event
	End         time.Time   // of the last event
	LastWords   []string    // those of Lines that were printed after the last question: why the run ended, if it ended before a question did
	Problems    []string    // what is wrong with the stream, in sentences
	Remarks     []string    // what is missing beside the stream, in sentences. The run itself is complete
}

// A Verdict says how a question or a run has ended.
type Verdict string

// The verdicts. A question that has a verdict but Unfinished does not change any more.
const (
	Unfinished Verdict = "unfinished" // it has not ended, or the stream ends before it
	Answered   Verdict = "answered"   // of a run: it passed
	Failed     Verdict = "failed"
	Skipped    Verdict = "skipped"
)

// A Stack is what was tested, and on what.
type Stack struct {
	Kernel   string    `json:"kernel"`  // release: 6.1.0-48-cloud-amd64
	Machine  string    `json:"machine"` // x86_64
	Cgroup   string    `json:"cgroup"`  // v1, v2 or hybrid
	Chapter  string    `json:"chapter"` // sha256:…, of the source of the questions; "" from a lab that did not record it
	Programs []Program `json:"programs"`

	Node []Property `json:"node"` // what else the machine is
}

// A Property of a machine: its name and value.
type Property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// A Program is a program under test.
type Program struct {
	Name    string `json:"name"`    // as the chapter types it
	Version string `json:"version"` // the first line that it prints of itself
	Path    string `json:"path"`
	Digest  string `json:"digest"`  // sha256:…, of the file
	Pinned  bool   `json:"pinned"`  // it is the one that go.mod pins
	Package string `json:"package"` // of the distribution, with its version; "" if it is not known
}

// A Question is a question of a run.
type Question struct {
	Test     string // name of the test: TestLifecycle_WhatDoesKillDo
	Text     string // "" for a test that is no question
	Scope    string
	Source   string // where the question is: lifecycle_kill_test.go:63; "" if it is not known
	Answer   string // "" if it was not answered
	Verdict  Verdict
	Begin    time.Time // when it first ran: not when it began to wait for its turn
	Elapsed  time.Duration
	Steps    []*Step // the first one is the set-up: its number is 0
	Logs     []Log   // what the test printed besides its notes; of a failed question they have the failure
	Output   []string
	Subtests []*Subtest
	Covers   []string // fields of config.json that it has followed to the kernel
	Artifact string   // directory of its transcript; "" without -artifacts
}

// A Subtest is a part of a question that has a verdict of its own.
type Subtest struct {
	Name    string // below the question's: "sub" of TestX/sub
	Verdict Verdict
	Reason  string // why it was skipped
	Elapsed time.Duration
}

// A Step is a step of a question, or a control.
type Step struct {
	Number  int // steps and controls are numbered in one sequence
	Control bool
	Text    string // "" for the set-up
	Subtest string // in which the step was done; "" for the question itself
	Items   []Item // in the order of the stream
}

// An Item is what happened in a step. One of the fields is set.
type Item struct {
	Command *Command
	Fact    *Fact
	Clause  *Clause
	Log     *Log
}

// A Command was executed, or is what a reader would type for what the lab did.
type Command struct {
	Shown  string `json:"shown,omitempty"` // a shorter form for the reader; "" if Script is short enough
	Script string `json:"script"`          // can be pasted into a shell
}

// A Fact was observed and asserted.
type Fact struct {
	Name  string `json:"name"` // "subject: attribute", unique within the question
	Value string `json:"value"`
	Step  int    `json:"step"`            // number of its step
	Data  any    `json:"data,omitempty"`  // of a map or a slice: map[string]any or []any, of these and strings
	Doubt bool   `json:"doubt,omitempty"` // an assertion of the question had failed before: the value may be wrong
}

// A Clause is a sentence of the runtime specification that a question has put to the test.
type Clause struct {
	Text string `json:"text"` // "Heading: sentence"
	Met  bool   `json:"met"`
	Seen string `json:"seen,omitempty"` // what was seen if it is not met
}

// A Log is a message of a test: an error, the reason of a skip, or something else.
type Log struct {
	Kind string `json:"kind"` // log, error or skip. An assertion logs its message before it fails
	Text string `json:"text"`
	At   string `json:"at"` // lifecycle_test.go:63; "" if it is not known
}

// Section returns the section of the chapter: Lifecycle for TestLifecycle_WhatDoesKillDo, "" for a test that has none.
func (q *Question) Section() string {
	section, _, ok := strings.Cut(strings.TrimPrefix(q.Test, "Test"), "_")
	if !ok {
		return ""
	}
	return section
}

// Facts returns the facts of a question, in the order in which they were observed.
func (q *Question) Facts() []*Fact {
	var out []*Fact
	for _, s := range q.Steps {
		for _, item := range s.Items {
			if item.Fact != nil {
				out = append(out, item.Fact)
			}
		}
	}
	return out
}

// Clauses returns the clauses that a question has put to the test.
func (q *Question) Clauses() []*Clause {
	var out []*Clause
	for _, s := range q.Steps {
		for _, item := range s.Items {
			if item.Clause != nil {
				out = append(out, item.Clause)
			}
		}
	}
	return out
}

// Messages returns what a question that failed, or did not end, says about it, each message with its place.
func (q *Question) Messages() []string {
	var out []string
	if last := q.Steps[len(q.Steps)-1]; q.Verdict == Unfinished && last.Number > 0 {
		out = append(out, "It did not end. Its last step: "+last.Text)
	}
	for _, l := range q.Logs {
		if l.Kind != "skip" {
			out = append(out, strings.TrimPrefix(l.At+": "+l.Text, ": "))
		}
	}
	// A panic in a cleanup comes after other logs, which are not the reason.
	if q.Verdict == Failed || q.Verdict == Unfinished {
		out = append(out, q.panicked()...)
	}
	return out
}

// panicked returns what the test binary printed when it panicked in a question.
func (q *Question) panicked() []string {
	const shown = 20 // lines; they have the first goroutine, which panicked
	i := slices.IndexFunc(q.Output, func(line string) bool {
		return strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ")
	})
	if i < 0 {
		return nil
	}
	return []string{strings.Join(q.Output[i:min(len(q.Output), i+shown)], "\n")}
}

// Skips returns why a question was skipped, or its parts: the name of the test or subtest, and the reason, with the remedy.
func (q *Question) Skips() []Skip {
	var out []Skip
	for _, s := range q.Subtests {
		if s.Verdict == Skipped {
			out = append(out, Skip{q.Test + "/" + s.Name, s.Reason})
		}
	}
	if q.Verdict == Skipped {
		reason := ""
		for _, l := range q.Logs {
			if l.Kind == "skip" {
				reason = l.Text
			}
		}
		out = append(out, Skip{q.Test, reason})
	}
	return out
}

// showedNothing reports whether all subtests of a question were skipped, and the question has recorded neither a fact nor a clause
// nor a control. A subtest that has subtests itself counts by these.
func (q *Question) showedNothing() bool {
	for _, s := range q.Subtests {
		hasParts := slices.ContainsFunc(q.Subtests, func(o *Subtest) bool { return strings.HasPrefix(o.Name, s.Name+"/") })
		if s.Verdict != Skipped && !hasParts {
			return false
		}
	}
	return len(q.Subtests) > 0 && len(q.Facts())+len(q.Clauses())+q.Controls() == 0
}

// A Skip is a question, or a subtest of one, that was skipped.
type Skip struct{ Test, Reason string }

// Controls returns the number of controls of a question.
func (q *Question) Controls() int {
	n := 0
	for _, s := range q.Steps {
		if s.Control {
			n++
		}
	}
	return n
}

// Step returns the step with a number, or nil.
func (q *Question) Step(number int) *Step {
	for _, s := range slices.Backward(q.Steps) { // nearly always it is the last one
		if s.Number == number {
			return s
		}
	}
	return nil
}

// Question returns the question of a test, or nil.
func (r *Run) Question(test string) *Question {
	for _, q := range r.Questions {
		if q.Test == test {
			return q
		}
	}
	return nil
}

// Count returns how many questions have a verdict. Tests that are no questions do not count.
func (r *Run) Count(v Verdict) int {
	n := 0
	for _, q := range r.Questions {
		if q.Text != "" && q.Verdict == v {
			n++
		}
	}
	return n
}

// SkippedParts returns how many subtests were skipped of questions that were not skipped as a whole.
func (r *Run) SkippedParts() int {
	n := 0
	for _, q := range r.Asked() {
		for _, s := range q.Subtests {
			if q.Verdict != Skipped && s.Verdict == Skipped {
				n++
			}
		}
	}
	return n
}

// Sort sorts the questions in the order of the names of their tests. Tests that it does not name come last, by their names.
func (r *Run) Sort(tests []string) {
	place := map[string]int{}
	for i, t := range tests {
		place[t] = i - len(tests)
	}
	slices.SortStableFunc(r.Questions, func(a, b *Question) int {
		return cmp.Or(place[a.Test]-place[b.Test], strings.Compare(a.Test, b.Test))
	})
}

// Asked returns the questions of a run, without the tests that are no questions.
func (r *Run) Asked() []*Question {
	return slices.DeleteFunc(slices.Clone(r.Questions), func(q *Question) bool { return q.Text == "" })
}

// Headline says how a run has ended, in one line.
func (r *Run) Headline() string {
	word := map[Verdict]string{Answered: "passed", Failed: "failed", Skipped: "skipped", Unfinished: "did not end"}[r.Verdict]
	line := fmt.Sprintf("%s: %d questions, %d answered, %d failed, %d skipped", word, len(r.Asked()),
		r.Count(Answered), r.Count(Failed), r.Count(Skipped))
	if n := r.SkippedParts(); n > 0 {
		line += fmt.Sprintf(", %d parts skipped", n)
	}
	if n := r.Count(Unfinished); n > 0 {
		line += fmt.Sprintf(", %d without a verdict", n)
	}
	if n := r.NotBegun(); n > 0 {
		line += fmt.Sprintf(", %d not begun", n)
	}
	if d := r.End.Sub(r.Begin); d > 0 {
		line += fmt.Sprintf(", in %.1f s", d.Seconds())
	}
	return line
}

// NotBegun returns how many tests wait for their turn. What they ask is not known yet.
func (r *Run) NotBegun() int {
	n := 0
	for _, q := range r.Questions {
		if q.Text == "" && q.Verdict == Unfinished {
			n++
		}
	}
	return n
}

// failedAtEnd reports whether a run failed, or has no verdict, for a reason that is not in its questions: none of them tells why, or a
// test failed, or still waited, before it told what it asks.
func (r *Run) failedAtEnd() bool {
	if r.Verdict != Failed && r.Verdict != Unfinished {
		return false
	}
	told, untold := false, false
	for _, q := range r.Questions {
		if q.Verdict == Failed || q.Verdict == Unfinished {
			told, untold = told || q.Text != "", untold || q.Text == ""
		}
	}
	return untold || !told
}

// lastOutput returns what may say why a run failed if its questions do not: the output of the tests that failed before they told what
// they ask, and the last lines that were printed outside of the questions.
func (r *Run) lastOutput() []string {
	var out []string
	for _, q := range r.Questions {
		if q.Text == "" && q.Verdict == Failed && len(out) < 20 { // all of them may fail, and for one reason
			out = append(append(out, q.Test+" failed before it told what it asks:"), q.Output[:min(10, len(q.Output))]...)
		}
	}
	return append(out, r.Lines[max(0, len(r.Lines)-30):]...)
}

// NotMet returns the clauses that some question has not seen met, each once, in the order of the run.
func (r *Run) NotMet() []Clause {
	var out []Clause
	for _, q := range r.Asked() {
		for _, c := range q.Clauses() {
			if !c.Met && !slices.ContainsFunc(out, func(o Clause) bool { return o.Text == c.Text }) {
				out = append(out, *c)
			}
		}
	}
	return out
}
