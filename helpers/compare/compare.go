// Package compare says what differs between two runs of the lab, in the words of the lab: each difference has the question
// and the step in which it was seen.
package compare

import (
	"errors"
	"fmt"
	"slices"

	"cdblab/helpers/results"
)

// A Comparison is what differs between two runs, A and B.
type Comparison struct {
	A, B      Side
	OnlyA     []string   // questions that only A has asked
	OnlyB     []string   // questions that only B has asked
	Both      int        // number of questions that both runs have asked
	Facts     int        // number of facts that both runs have observed
	Questions []Question // those in which something differs
}

// A Side is one of the two runs.
type Side struct {
	Name string // as the user named it: RUNC=1.3.4, or a path
	Run  *results.Run
}

// A Question is a question in which something differs.
type Question struct {
	Test, Text  string
	Differences []Difference
	// Unobserved says in a sentence why facts of one run were not observed in the other one. Such facts are no differences:
	// a question that failed says nothing about the facts after the failure.
	Unobserved []string
}

// A Difference is one thing that differs.
type Difference struct {
	Kind Kind
	Step Step   // where it was observed; the zero value for a difference of the whole question
	Name string // of the fact or the subtest, text of the clause; "" for a verdict or an answer
	A, B string // what was seen; "" if Change is Appeared or Vanished
	Change
}

// A Step is the step or control in which something was observed.
type Step struct {
	Control bool
	Text    string // "" for the set-up
}

// Kind says what differs.
type Kind string

// The kinds of differences.
const (
	Verdict Kind = "verdict"
	Fact    Kind = "fact"
	Clause  Kind = "clause"
	Answer  Kind = "answer"
)

// Change says in which run a thing is.
type Change string

// The kinds of changes.
const (
	Changed  Change = "changed"
	Appeared Change = "appeared" // only B has it
	Vanished Change = "vanished" // only A has it
)

// Runs compares two runs. The error says why they cannot be compared.
func Runs(a, b Side) (*Comparison, error) {
	for _, s := range []Side{a, b} {
		if len(s.Run.Questions) == 0 {
			return nil, fmt.Errorf("%s has no questions%s.\n  Name results of a run that has begun", s.Name, problems(s.Run))
		}
	}
	c := &Comparison{A: a, B: b}
	for _, qa := range a.Run.Questions {
		qb := b.Run.Question(qa.Test)
		if qb == nil {
			c.OnlyA = append(c.OnlyA, qa.Test)
			continue
		}
		c.Both++
		c.add(qa, qb)
	}
	if c.Both == 0 {
		return nil, errors.New(nothingInCommon(a, b))
	}
	for _, qb := range b.Run.Questions {
		if a.Run.Question(qb.Test) == nil {
			c.OnlyB = append(c.OnlyB, qb.Test)
		}
	}
	return c, nil
}

// Equal reports whether nothing differs: also not that one run failed for a reason that is not in its questions.
func (c *Comparison) Equal() bool {
	return len(c.Questions)+len(c.OnlyA)+len(c.OnlyB) == 0 && c.A.Run.FailedAtEnd == c.B.Run.FailedAtEnd
}

// Whole reports whether both runs came to their end. If one did not, what is equal in them may only be their beginning.
func (c *Comparison) Whole() bool {
	for _, run := range []*results.Run{c.A.Run, c.B.Run} {
		if run.Verdict == results.Unfinished || run.Count(results.Unfinished) > 0 {
			return false
		}
	}
	return true
}

func problems(r *results.Run) string {
	if len(r.Problems) == 0 {
		return ""
	}
	return ": " + r.Problems[0]
}

func nothingInCommon(a, b Side) string {
	return fmt.Sprintf("the two runs have no question in common: %s asks %d questions (%s …), %s asks %d (%s …).\n"+
		"  Compare runs that ask the same questions",
		a.Name, len(a.Run.Questions), a.Run.Questions[0].Test, b.Name, len(b.Run.Questions), b.Run.Questions[0].Test)
}

// add adds what differs in a question that both runs have asked.
func (c *Comparison) add(a, b *results.Question) {
	q, facts := Questions(a, b)
	c.Facts += facts
	if len(q.Differences) > 0 {
		c.Questions = append(c.Questions, q)
	}
}

// Questions compares a question of two runs. It returns what differs, and the number of facts that both runs have.
func Questions(a, b *results.Question) (q Question, facts int) {
	q = Question{Test: b.Test, Text: b.Text}
	q.verdicts(a, b)
	facts = q.facts(a, b)
	q.clauses(a, b)
	if a.Answer != b.Answer && a.Answer != "" && b.Answer != "" {
		q.Differences = append(q.Differences, Difference{Kind: Answer, Change: Changed, A: a.Answer, B: b.Answer})
	}
	return q, facts
}

// verdicts compares the verdicts of a question and of its subtests.
func (q *Question) verdicts(a, b *results.Question) {
	va, vb := verdict(a), verdict(b)
	// A facts.json has no reasons.
	otherReason := a.Verdict == results.Skipped && va != vb && len(a.Logs) > 0 && len(b.Logs) > 0
	if a.Verdict != b.Verdict || otherReason {
		q.Differences = append(q.Differences, Difference{Kind: Verdict, Change: Changed, A: va, B: vb})
	}
	for _, name := range subtests(a, b) {
		sa, knownA := subtest(a, name)
		sb, knownB := subtest(b, name)
		if knownA && knownB && sa != sb {
			q.Differences = append(q.Differences, Difference{Kind: Verdict, Change: Changed, Name: name, A: string(sa), B: string(sb)})
		}
	}
}

// subtests returns the names of the subtests of all questions, each once. A question may be nil.
func subtests(questions ...*results.Question) []string {
	var out []string
	known := map[string]bool{}
	for _, q := range questions {
		if q == nil {
			continue
		}
		for _, s := range q.Subtests {
			if !known[s.Name] {
				known[s.Name] = true
				out = append(out, s.Name)
			}
		}
	}
	return out
}

// subtest returns the verdict of a subtest. It returns false if the question does not tell it. A facts.json lists only the subtests
// that were not answered: there, the other subtests of an answered question were answered.
func subtest(q *results.Question, name string) (results.Verdict, bool) {
	fromFacts := q.Verdict == results.Answered
	for _, s := range q.Subtests {
		if s.Name == name {
			return s.Verdict, true
		}
		fromFacts = fromFacts && s.Verdict != results.Answered
	}
	return results.Answered, fromFacts
}

// verdict returns the verdict of a question with its reason.
func verdict(q *results.Question) string { return string(q.Verdict) + reason(q) }

// reason returns why a question was skipped or failed, as the rest of a sentence that begins with its verdict. It may be "".
func reason(q *results.Question) string {
	kinds := map[results.Verdict][]string{results.Skipped: {"skip"}, results.Failed: {"error", "log"}}
	for _, kind := range kinds[q.Verdict] {
		logs := slices.DeleteFunc(slices.Clone(q.Logs), func(l results.Log) bool { return l.Kind != kind })
		if len(logs) == 0 {
			continue
		}
		l := logs[0]
		if kind == "log" {
			l = logs[len(logs)-1] // an assertion logs its message last
		}
		if l.At != "" && q.Verdict == results.Failed {
			return fmt.Sprintf(": %s: %s", l.At, l.Text)
		}
		return ": " + l.Text
	}
	return ""
}

// facts compares the facts of a question and returns the number of facts that both runs have.
func (q *Question) facts(a, b *results.Question) (both int) {
	fromA, fromB := factsOf(a), factsOf(b)
	lostA, lostB := 0, 0
	for _, name := range fromA.names {
		fa := fromA.facts[name]
		fb, ok := fromB.facts[name]
		switch {
		case !ok && !complete(b, fa):
			lostB++
		case !ok:
			q.Differences = append(q.Differences, Difference{Kind: Fact, Change: Vanished, Step: fa.step, Name: name, A: fa.value + fa.doubt})
		default:
			both++
			if fa.value != fb.value {
				q.Differences = append(q.Differences,
					Difference{Kind: Fact, Change: Changed, Step: fb.step, Name: name, A: fa.value + fa.doubt, B: fb.value + fb.doubt})
			}
		}
	}
	for _, name := range fromB.names {
		fb := fromB.facts[name]
		if _, ok := fromA.facts[name]; ok {
			continue
		}
		if !complete(a, fb) {
			lostA++
			continue
		}
		q.Differences = append(q.Differences, Difference{Kind: Fact, Change: Appeared, Step: fb.step, Name: name, B: fb.value + fb.doubt})
	}
	q.unobserved(lostB, "A", "B", b)
	q.unobserved(lostA, "B", "A", a)
	return both
}

func (q *Question) unobserved(n int, in, missing string, of *results.Question) {
	if n == 0 {
		return
	}
	why := "a part of the question has no answer there"
	if of.Verdict != results.Answered {
		why = fmt.Sprintf("there the question is %s", of.Verdict)
	}
	q.Unobserved = append(q.Unobserved, fmt.Sprintf("%d of %s's facts were not observed in %s: %s.", n, in, missing, why))
}

// complete reports whether q observes a fact of the other run if there is one: neither q nor the subtest has ended early.
func complete(q *results.Question, f fact) bool {
	if q.Verdict != results.Answered {
		return false
	}
	for _, s := range q.Subtests {
		if s.Name == f.subtest && s.Verdict != results.Answered {
			return false
		}
	}
	return true
}

// fact is a fact with the step in which it was observed.
type fact struct {
	value   string
	step    Step
	subtest string
	doubt   string // what is shown after the value of a fact that is in doubt; "" for others
}

const inDoubt = " (in doubt: an assertion before it has failed)"

// observed are the facts or the clauses of a question, by name. The names are in the order in which the question observes them.
type observed struct {
	names []string
	facts map[string]fact
}

func factsOf(q *results.Question) observed {
	out := observed{facts: map[string]fact{}}
	for _, s := range q.Steps {
		for _, item := range s.Items {
			if f := item.Fact; f != nil {
				if _, twice := out.facts[f.Name]; !twice {
					out.names = append(out.names, f.Name)
				}
				seen := fact{value: f.Value, step: Step{s.Control, s.Text}, subtest: s.Subtest}
				if f.Doubt {
					seen.doubt = inDoubt
				}
				out.facts[f.Name] = seen
			}
		}
	}
	return out
}

// clauses compares the outcomes of the clauses of the specification.
func (q *Question) clauses(a, b *results.Question) {
	fromA, fromB := clausesOf(a), clausesOf(b)
	for _, text := range fromA.names {
		ca := fromA.facts[text]
		cb, ok := fromB.facts[text]
		switch {
		case !ok && complete(b, ca):
			q.Differences = append(q.Differences, Difference{Kind: Clause, Change: Vanished, Step: ca.step, Name: text, A: ca.value})
		case ok && ca.value != cb.value:
			q.Differences = append(q.Differences, Difference{Kind: Clause, Change: Changed, Step: cb.step, Name: text, A: ca.value, B: cb.value})
		}
	}
	for _, text := range fromB.names {
		cb := fromB.facts[text]
		if _, ok := fromA.facts[text]; !ok && complete(a, cb) {
			q.Differences = append(q.Differences, Difference{Kind: Clause, Change: Appeared, Step: cb.step, Name: text, B: cb.value})
		}
	}
}

// clausesOf returns the clauses of a question. A clause that a question tests several times is met if it is met each time.
func clausesOf(q *results.Question) observed {
	const met = "met"
	out := observed{facts: map[string]fact{}}
	for _, s := range q.Steps {
		for _, item := range s.Items {
			c := item.Clause
			if c == nil {
				continue
			}
			o := fact{value: met, step: Step{s.Control, s.Text}, subtest: s.Subtest}
			if !c.Met {
				o.value = "not met: " + c.Seen
			}
			known, twice := out.facts[c.Text]
			if !twice {
				out.names = append(out.names, c.Text)
			}
			if !twice || known.value == met {
				out.facts[c.Text] = o
			}
		}
	}
	return out
}

// Count returns how many differences have a kind and a change.
func (c *Comparison) Count(kind Kind, change Change) int {
	n := 0
	for _, q := range c.Questions {
		for _, d := range q.Differences {
			if d.Kind == kind && d.Change == change {
				n++
			}
		}
	}
	return n
}
