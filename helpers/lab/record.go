//go:build linux

package lab

import "fmt"

// LogCommand notes what the lab did by itself, as the command that a reader would type for it.
func (q *Q) LogCommand(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	q.notes.command(line, line)
}

// LogCommandAs is [Q.LogCommand] for a command that is too long to show. The reader sees shown, and the transcript has script.
func (q *Q) LogCommandAs(shown, script string) { q.notes.command(shown, script) }

// logSetUp notes a command that later commands need.
func (q *Q) logSetUp(shown, script string) {
	q.notes.setup = append(q.notes.setup, shown)
	q.LogCommandAs(shown, script)
}

// step is the attr event of a step or a control.
type step struct {
	Number int    `json:"number"` // of the steps and controls of the question; facts refer to it
	Text   string `json:"text"`   // the same in each run, as the values of facts are: facts.json has both
}

// Step begins a step of the experiment. Its text says what is done now, and what is expected.
func (q *Q) Step(format string, args ...any) {
	q.Helper()
	if !q.notes.taken {
		return
	}
	text, s := fmt.Sprintf(format, args...), q.notes.steps
	s.last++
	q.notes.attrJSON("step", step{s.last, q.notes.facts.normalizeText(text)})
	q.notes.line("\n  %d. %s", s.last-s.controls, text)
	q.stopBefore(fmt.Sprintf("step %d", s.last-s.controls))
}

// Control begins a step in which the cause is removed, so that the effect must go.
func (q *Q) Control(format string, args ...any) {
	q.Helper()
	if !q.notes.taken {
		return
	}
	text, s := fmt.Sprintf(format, args...), q.notes.steps
	s.last++
	s.controls++
	q.notes.attrJSON("control", step{s.last, q.notes.facts.normalizeText(text)})
	q.notes.line("\n  C. control: %s", text)
	q.stopBefore("this control")
}

// Answer ends the question with its answer, in one to three sentences.
func (q *Q) Answer(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if q.notes.taken && !q.notes.steps.tornDown {
		q.stop("before the answer; afterwards, what the question made is taken down")
	}
	if q.Failed() {
		q.notes.line("\nA  not supported by the facts above: %s\n", text)
		return
	}
	q.notes.attr("answer", q.notes.facts.normalizeText(text))
	q.notes.line("\nA  %s\n", text)
}

// Fact records what was observed. The name is "subject: attribute", and unique within the question, because two runs are
// compared by the names of their facts. Paths of the run and volatile values (see [Volatile]) are recorded under names that do
// not change from run to run, while the reader sees them as they are. A fact has the number of the step, or control, in which
// it was observed. Once an assertion of the question has failed, facts are marked as in doubt: a check that does not end the
// question may be what their value rests on.
func (q *Q) Fact(name string, value any) {
	q.Helper()
	if !q.notes.taken {
		return
	}
	name = q.notes.facts.paths.Replace(name)
	if !q.notes.facts.isNew(name) {
		q.Errorf("two facts of this question are named %q: a fact is found by its name, so give each its own", name)
	}
	q.notes.attrJSON("fact", struct {
		Name  string `json:"name"`
		Value string `json:"value"`
		Step  int    `json:"step"`           // number of the step or control; 0 before the first
		Data  any    `json:"data,omitempty"` // the value of a map or a slice, for the pictures of the notebook
		Doubt bool   `json:"doubt,omitempty"`
	}{name, q.notes.facts.normalize(value), q.notes.steps.last, q.notes.facts.data(value), q.Failed()})
	shown := plain(value)
	if q.Failed() {
		shown += "   (in doubt: an assertion before it has failed)"
	}
	q.notes.line("     · %-34s %s", name, shown)
}

// Clause records whether the runtime under test meets a clause of the runtime specification (runtime.md or runtime-linux.md). The
// clause is written "Heading: sentence", in the words of the specification. The record counts only if the question does not fail.
func (q *Q) Clause(clause string, o Outcome) {
	q.Helper()
	if o.met {
		o.seen = ""
	} else {
		if !o.known && q.UnderTest("runc").Pinned {
			q.Errorf("the specification says: %s\nseen: %s", clause, o.seen)
		}
		q.notes.line("     ! the specification says: %s\n       seen: %s", clause, o.seen)
	}
	q.notes.attrJSON("clause", struct {
		Text string `json:"text"`
		Met  bool   `json:"met"`
		Seen string `json:"seen,omitempty"`
	}{clause, o.met, q.notes.facts.normalizeText(o.seen)})
	q.TB.Cleanup(func() {
		if !q.Failed() {
			q.session.clauses.add(clause, o.seen)
		}
	})
}

// Covers records that the assertions before it have followed these fields of config.json to the kernel. A field is given
// by its path, such as process.scheduler.flags, with [] for the elements of a list. The arguments are literals, or a
// [Fields] of literals, because the tests of the documentation read them in the source.
func (q *Q) Covers(fields ...string) {
	for _, f := range fields {
		q.notes.attr("covers", f)
	}
}

// Fields are paths of fields of config.json, for a table whose rows call [Q.Covers].
type Fields []string
