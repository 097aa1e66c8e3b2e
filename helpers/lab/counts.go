//go:build linux

package lab

import (
	"flag"
	"fmt"
	"strings"
	"sync"
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
	subtests                         int             // of all questions
	// selected has the questions of which -run selects subtests, and whether one of these was answered. If all were skipped, so was the
	// question: the rest of it was asked only on the way to them.
	selected map[string]bool
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
	t.Cleanup(func() { c.ended(t.Name(), t.Failed(), t.Skipped()) })
}

// ended counts a question that has ended.
func (c *counts) ended(question string, failed, skipped bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	answered, asked := c.selected[question]
	switch {
	case failed:
		c.failed++
	case skipped, asked && !answered:
		c.skipped++
	default:
		c.answered++
	}
}

// subtest counts a subtest that has ended.
func (c *counts) subtest(name string, skipped bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.subtests++
	if depth := selectedDepth(); depth > 0 && strings.Count(name, "/") >= depth {
		if c.selected == nil {
			c.selected = map[string]bool{}
		}
		question, _, _ := strings.Cut(name, "/")
		c.selected[question] = c.selected[question] || !skipped
	}
}

// selectedDepth returns how many slashes the names of the subtests have at least that -run selects. It is 0 if -run has no pattern for
// subtests. In a pattern such as A/x|B/y/z each alternative has its own depth: then it is 1, so that no answer is overlooked.
func selectedDepth() int {
	pattern := flag.Lookup("test.run").Value.String()
	if strings.Contains(pattern, "|") {
		return min(1, strings.Count(pattern, "/"))
	}
	return strings.Count(pattern, "/")
}

// verify returns an error if a run answered no question, or if a run without a filter did not ask all questions.
func (c *counts) verify(all []syllabus.Question) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if isSet("test.bench") && isSet("test.run") && c.asked == 0 {
		return nil // -run '^$' is how a user asks for nothing but benchmarks
	}
	if c.asked > 0 && c.asked == c.skipped {
		what := "that were asked"
		if selectedDepth() > 0 {
			what += ", or their subtests that -run selects,"
		}
		return fmt.Errorf("no question was answered: all %d %s were skipped. The reasons are above", c.asked, what)
	}
	if isSet("test.run") || isSet("test.skip") {
		if c.asked == 0 {
			return fmt.Errorf("no question was asked: none of the %d matches -run %q.\n  See the list:   %s",
				len(all), flag.Lookup("test.run").Value, howto.Syllabus())
		}
		if selectedDepth() > 0 && c.subtests == 0 && c.failed == 0 {
			return fmt.Errorf("no subtest was asked: -run %q has a pattern after the /, which matches none of the subtests.\n"+
				"  See their names:   the same command with -v, and without what begins with /", flag.Lookup("test.run").Value)
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
