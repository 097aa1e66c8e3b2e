//go:build linux

package lab

import (
	"fmt"
	"maps"
	"slices"
	"sync"
)

// Outcome is what a question found of a clause of the runtime specification.
type Outcome struct {
	met   bool
	seen  string // what was seen where the clause is not met
	known bool   // the pinned runtime is known not to meet it
}

// Met is the outcome of a clause that the assertions before it have shown to be met.
var Met = Outcome{met: true}

// MetIf is the outcome of a clause that the pinned runtime meets. Where the pinned runtime does not, the question fails.
// Where another runtime does not, that is recorded as a deviation: it is a fact about that runtime.
func MetIf(met bool, seen string) Outcome { return Outcome{met: met, seen: seen} }

// DeviatesUnless is the outcome of a clause that the pinned runtime is known not to meet. The question does not fail for
// it.
func DeviatesUnless(met bool, seen string) Outcome { return Outcome{met: met, seen: seen, known: true} }

// Clause records whether the runtime under test meets a clause of the runtime specification (runtime.md). The clause is
// written "Heading: sentence", as the specification has it. The record counts if the question does not fail.
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
	}{clause, o.met, o.seen})
	q.TB.Cleanup(func() {
		if !q.Failed() {
			q.session.clauses.add(clause, o.seen)
		}
	})
}

// clauses are the clauses of the specification that this run has put to the test.
type clauses struct {
	mu   sync.Mutex
	seen map[string]string // clause → what was seen where it is not met, "" where it is met
}

func (c *clauses) add(clause, seen string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen == nil {
		c.seen = map[string]string{}
	}
	if seen != "" || c.seen[clause] == "" {
		c.seen[clause] = seen
	}
}

// print prints how many clauses the runtime meets, and each that it does not meet.
func (c *clauses) print() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.seen) == 0 {
		return
	}
	met := 0
	for _, seen := range c.seen {
		if seen == "" {
			met++
		}
	}
	fmt.Printf("cdblab: the runtime meets %d of the %d clauses of the runtime specification (runtime.md) that were put to the test\n", met, len(c.seen))
	for _, clause := range slices.Sorted(maps.Keys(c.seen)) {
		if seen := c.seen[clause]; seen != "" {
			fmt.Printf("  not met: %s\n           seen: %s\n", clause, seen)
		}
	}
}
