//go:build linux

package lab

import (
	"fmt"
	"maps"
	"slices"
	"sync"
)

// Outcome is whether the runtime under test meets a clause of the runtime specification, as a question observed it.
type Outcome struct {
	met   bool
	seen  string // what was seen if the clause is not met
	known bool   // the pinned runtime is known not to meet it
}

// Met is the outcome of a clause that the assertions before it have shown to be met.
var Met = Outcome{met: true}

// MetIf is the outcome of a clause that the pinned runtime meets. If the pinned runtime does not meet it, the question fails.
// If another runtime does not meet it, that is recorded as a deviation: it is a fact about that runtime.
func MetIf(met bool, seen string) Outcome { return Outcome{met: met, seen: seen} }

// DeviatesUnless is the outcome of a clause that the pinned runtime is known not to meet. It does not fail the question.
func DeviatesUnless(met bool, seen string) Outcome { return Outcome{met: met, seen: seen, known: true} }

// clauses are the clauses of the specification that this run has tested.
type clauses struct {
	mu   sync.Mutex
	seen map[string]string // clause → what was seen if it is not met, "" if it is met
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

// print prints how many clauses the runtime meets, and each clause that it does not meet.
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
	fmt.Printf("cdblab: the runtime meets %d of the %d clauses of the runtime specification that were tested\n",
		met, len(c.seen))
	for _, clause := range slices.Sorted(maps.Keys(c.seen)) {
		if seen := c.seen[clause]; seen != "" {
			fmt.Printf("  not met: %s\n           seen: %s\n", clause, seen)
		}
	}
}
