//go:build linux

package lab

import (
	"fmt"
	"maps"
	"slices"
	"sync"
)

// Proves notes that the question has shown that a demand of the runtime specification (runtime.md) is met. The clause is
// written "Heading: sentence", as the specification has it. It counts if the question does not fail.
func (q *Q) Proves(clause string) { q.clause(clause, "") }

// Deviates notes that a demand of the specification is not met by the runtime under test, and what was seen instead.
// The question does not fail for it: it is a fact about the runtime.
func (q *Q) Deviates(clause, seen string) { q.clause(clause, seen) }

// Demands is [Q.Proves] where the demand is met, as the pinned runtime does; of another runtime it may be [Q.Deviates].
func (q *Q) Demands(clause string, met bool, otherwise string) {
	q.Helper()
	if met {
		q.Proves(clause)
		return
	}
	if UnderTest("runc").Pinned {
		q.Errorf("the specification says: %s\nseen: %s", clause, otherwise)
	}
	q.Deviates(clause, otherwise)
}

// DeviatesUnless is [Q.Deviates] for a demand that the pinned runtime is known not to meet, and [Q.Proves] for a runtime
// that meets it.
func (q *Q) DeviatesUnless(met bool, clause, seen string) {
	q.Helper()
	if met {
		q.Proves(clause)
	} else {
		q.Deviates(clause, seen)
	}
}

func (q *Q) clause(clause, seen string) {
	q.Helper()
	if seen == "" {
		q.notes.attr("proves", clause)
	} else {
		q.notes.attr("deviates", clause+" Seen: "+seen)
		q.notes.line("     ! the specification says: %s\n       seen: %s", clause, seen)
	}
	q.TB.Cleanup(func() {
		if !q.Failed() {
			theClauses.note(clause, seen)
		}
	})
}

// clauses are the demands of the specification that this run has put to the test.
type clauses struct {
	mu   sync.Mutex
	seen map[string]string // "" where it is kept
}

var theClauses = &clauses{seen: map[string]string{}}

func (c *clauses) note(clause, seen string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if seen != "" || c.seen[clause] == "" {
		c.seen[clause] = seen
	}
}

// say tells what this run found of the specification's demands.
func (c *clauses) say() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.seen) == 0 {
		return
	}
	kept := 0
	for _, seen := range c.seen {
		if seen == "" {
			kept++
		}
	}
	fmt.Printf("cdblab: of what the runtime specification demands (runtime.md), %d of %d clauses asked about are kept\n", kept, len(c.seen))
	for _, clause := range slices.Sorted(maps.Keys(c.seen)) {
		if seen := c.seen[clause]; seen != "" {
			fmt.Printf("  not kept: %s\n            seen: %s\n", clause, seen)
		}
	}
}
