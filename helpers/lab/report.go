//go:build linux

package lab

import (
	"flag"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/host"
	"cdblab/helpers/syllabus"
	"cdblab/helpers/tools"
)

// counts counts the questions of a run, so that a run that asked none is not green.
type counts struct {
	mu                               sync.Mutex
	asked, answered, failed, skipped int
	names                            map[string]bool // of the tests
}

// count counts a question as asked, and when it has ended as answered, failed or skipped.
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

// verify returns an error where a run asked no question, or, without a filter, not all.
func (c *counts) verify(all []syllabus.Question) error {
	if isSet("test.bench") && isSet("test.run") {
		return nil // -run '^$' is how a user asks for nothing but benchmarks
	}
	if isSet("test.run") || isSet("test.skip") {
		if c.asked == 0 {
			return fmt.Errorf("no question was asked: none of the %d matches -run %q.\n  See the list:   make syllabus",
				len(all), flag.Lookup("test.run").Value)
		}
		return nil
	}
	var missing []string
	for _, q := range all {
		if !c.names[q.Test] {
			missing = append(missing, q.Test)
		}
	}
	// With -failfast, the questions after the first failure are rightly not asked.
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

// printUnderTest prints what is tested, so that a result can be understood a year later.
func (s *Session) printUnderTest() {
	tools.Describe(s.tools)
	var uts unix.Utsname
	_ = unix.Uname(&uts)
	hs, _ := cgroup.Hierarchies()
	virtual, ok := host.Virtual()
	if !ok {
		virtual = "not recognised as a VM; " + disposableEnv + "=yes"
	}
	fmt.Printf("cdblab: under test\n")
	fmt.Printf("  %-24s %s %s (%s)\n", "kernel", unix.ByteSliceToString(uts.Release[:]), unix.ByteSliceToString(uts.Machine[:]), virtual)
	fmt.Printf("  %-24s %s\n", "cgroup", cgroup.ModeOf(hs))
	for _, t := range tools.All {
		if p, ok := s.tools[t.Name]; ok {
			fmt.Printf("  %-24s %s\n  %-24s %s %s\n", p.Name, p.Version, "", p.Path, p.Digest)
		}
	}
	d, err := s.rootfs.Digest()
	if err != nil {
		d = err.Error()
	}
	fmt.Printf("  %-24s %s\n", "rootfs", d)
	ref, ours := s.Image()
	if !ours {
		ref += " (" + imageEnv + ")"
	}
	fmt.Printf("  %-24s %s\n  %-24s %s\n", "image", ref, "run", s.run.Dir())
}
