package display

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"cdblab/helpers/results"
)

// progress is how far a run is. It has copies of what it needs of the run, because the run changes while it is drawn.
type progress struct {
	expected map[string]float64
	now      func() time.Time
	begin    time.Time

	preparing string // what is being prepared; "" if nothing is
	since     time.Time

	known    map[string]bool // the tests that go test has named so far
	complete bool            // go test has named all tests: they begin to run after that
	running  []*running      // in the order in which they have begun
	peak     int             // the largest number of questions that were running at the same time
	ended    map[string]bool
	failed   int
	skipped  int

	took, wasExpected float64 // seconds, of the ended questions that the last run had as well
}

// running is a question that is being asked.
type running struct {
	test, section, text, step string
	begin                     time.Time
}

func newProgress(expected map[string]float64, now func() time.Time) *progress {
	return &progress{expected: expected, now: now, begin: now(), known: map[string]bool{}, ended: map[string]bool{}}
}

// prepare begins to prepare something. It returns what was prepared until now, and how long that took.
func (p *progress) prepare(what string) (before string, took time.Duration) {
	before, took = p.preparing, p.now().Sub(p.since)
	p.preparing, p.since = what, p.now()
	return before, took
}

// update notes what a line of the stream has changed.
func (p *progress) update(c results.Change) {
	q := c.Question
	if q == nil {
		return
	}
	if c.Kind == results.Began && q.Text == "" {
		// go test names a test when it comes to it. The test of a question then waits, until all other tests are named.
		p.complete = p.complete || p.known[q.Test]
		p.known[q.Test] = true
		return
	}
	if c.Kind == results.Ended {
		p.end(q)
		return
	}
	r := p.of(q)
	if r == nil {
		return
	}
	if last := q.Steps[len(q.Steps)-1]; last.Text != "" {
		r.step = oneLine(last.Text)
	}
}

// of returns the question that is being asked, which may have begun right now. It is nil for a test that asks no question.
func (p *progress) of(q *results.Question) *running {
	i := slices.IndexFunc(p.running, func(r *running) bool { return r.test == q.Test })
	if i >= 0 {
		return p.running[i]
	}
	if q.Text == "" || p.ended[q.Test] {
		return nil
	}
	p.known[q.Test] = true
	r := &running{test: q.Test, section: q.Section(), text: oneLine(q.Text), begin: p.now()}
	p.running = append(p.running, r)
	p.peak = max(p.peak, len(p.running))
	return r
}

func (p *progress) end(q *results.Question) {
	p.running = slices.DeleteFunc(p.running, func(r *running) bool { return r.test == q.Test })
	if q.Text == "" && q.Verdict == results.Answered {
		delete(p.known, q.Test) // a test that asks no question
		return
	}
	p.known[q.Test], p.ended[q.Test] = true, true
	switch q.Verdict {
	case results.Failed:
		p.failed++
	case results.Skipped:
		p.skipped++
	}
	if e, ok := p.expected[q.Test]; ok && q.Verdict == results.Answered {
		p.took += q.Elapsed.Seconds()
		p.wasExpected += e
	}
}

// only reports whether go test has named one question only.
func (p *progress) only() bool { return len(p.known) == 1 }

// left returns how long the rest of the run takes, as the times of the last run suggest. It returns false if that cannot be known.
func (p *progress) left() (time.Duration, bool) {
	if !p.complete || len(p.expected) == 0 || len(p.running) == 0 {
		return 0, false
	}
	speed := 1.0 // how much slower this run is than the last one
	if p.wasExpected > 0 {
		speed = min(max(p.took/p.wasExpected, 0.2), 5)
	}
	sum, longest := 0.0, 0.0 // seconds
	for test := range p.known {
		if p.ended[test] {
			continue
		}
		rest := p.expectedOf(test) * speed
		if i := slices.IndexFunc(p.running, func(r *running) bool { return r.test == test }); i >= 0 {
			rest = max(rest-p.now().Sub(p.running[i].begin).Seconds(), 0)
		}
		sum += rest
		longest = max(longest, rest)
	}
	rest := max(sum/float64(p.peak), longest)
	return time.Duration(rest * float64(time.Second)), true
}

// expectedOf returns the time of a question in the last run, or the mean of all if the last run did not have it.
func (p *progress) expectedOf(test string) float64 {
	if e, ok := p.expected[test]; ok {
		return e
	}
	sum := 0.0
	for _, e := range p.expected {
		sum += e
	}
	return sum / float64(len(p.expected))
}

// counts returns how many questions have ended, of how many.
func (p *progress) counts(short bool) []string {
	out := []string{count(len(p.ended), "question") + " ended"}
	switch {
	case p.complete && short:
		out[0] = fmt.Sprintf("%d/%d", len(p.ended), len(p.known))
	case p.complete:
		out[0] = fmt.Sprintf("%d of %s ended", len(p.ended), count(len(p.known), "question"))
	}
	if p.failed > 0 {
		out = append(out, fmt.Sprintf("%d failed", p.failed))
	}
	if p.skipped > 0 {
		out = append(out, fmt.Sprintf("%d skipped", p.skipped))
	}
	return out
}

// status returns the line below the running questions. The short one is for a narrow terminal.
func (p *progress) status(short bool) string {
	parts := p.counts(short)
	switch left, ok := p.left(); {
	case ok && short:
		parts = append(parts, about(left)+" left")
	case ok:
		parts = append(parts, duration(p.now().Sub(p.begin)), "about "+about(left)+" left")
	default:
		parts = append(parts, duration(p.now().Sub(p.begin)))
	}
	return strings.Join(parts, ", ")
}
