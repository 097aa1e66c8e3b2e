//go:build linux

package lab

import (
	"flag"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cdblab/helpers/howto"
	"cdblab/helpers/syllabus"
)

// counts counts the questions of a run, so that a run that asked no question is not green.
type counts struct {
	mu                               sync.Mutex
	asked, answered, failed, skipped int
	names                            map[string]bool // of the tests of asked questions
	subtests                         atomic.Int32    // of all questions
}

// count counts a question as asked at once, and as answered, failed or skipped when it has ended.
func (c *counts) count(t *testing.T) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked++
	if c.names == nil {
		c.names = map[string]bool{}
	}
	c.names[t.Name()] = true
	t.Cleanup(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		switch {
		case t.Failed():
			c.failed++
		case t.Skipped():
			c.skipped++
		default:
			c.answered++
		}
	})
}

// verify returns an error if a run answered no question, or if a run without a filter did not ask all questions.
func (c *counts) verify(all []syllabus.Question) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if isSet("test.bench") && isSet("test.run") && c.asked == 0 {
		return nil // -run '^$' is how a user asks for nothing but benchmarks
	}
	if c.asked > 0 && c.asked == c.skipped {
		return fmt.Errorf("no question was answered: all %d that were asked were skipped. The reasons are above", c.asked)
	}
	if isSet("test.run") || isSet("test.skip") {
		if c.asked == 0 {
			return fmt.Errorf("no question was asked: none of the %d matches -run %q.\n  See the list:   %s",
				len(all), flag.Lookup("test.run").Value, howto.Syllabus())
		}
		if pattern := flag.Lookup("test.run").Value.String(); strings.Contains(pattern, "/") && c.subtests.Load() == 0 && c.failed == 0 {
			return fmt.Errorf("no subtest was asked: -run %q has a pattern after the /, which matches none of the subtests.\n"+
				"  See their names:   the same command with -v, and without what begins with /", pattern)
		}
		return nil
	}
	var missing []string
	for _, q := range all {
		if !c.names[q.Test] {
			missing = append(missing, q.Test)
		}
	}
	// With -failfast, go test does not ask the questions after the first failure.
	if len(missing) > 0 && (c.failed == 0 || !isSet("test.failfast")) {
		return fmt.Errorf("%d of the %d questions were not asked: %s", len(missing), len(all), strings.Join(missing, ", "))
	}
	return nil
}

func (c *counts) print(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Printf("cdblab: %d questions asked: %d answered, %d failed, %d skipped, in %.1f s\n",
		c.asked, c.answered, c.failed, c.skipped, d.Seconds())
}
