//go:build linux

package lab

import (
	"bytes"
	"flag"
	"io"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"cdblab/helpers/syllabus"
)

// gather keeps the notes of a question together. Questions that are asked at once would tell their stories through each
// other, so what a question notes is shown in one piece: when it ends, or before it says something else.
type gather struct {
	mu     sync.Mutex
	to     io.Writer
	held   bytes.Buffer
	stream bool // nobody else is talking: show each note at once
}

func (g *gather) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stream {
		return g.to.Write(p)
	}
	return g.held.Write(p)
}

func (g *gather) flush() {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, _ = g.held.WriteTo(g.to)
}

// matching is how many questions -run and -skip leave.
var matching int

// countMatching counts the questions that -run and -skip leave, by the part of the patterns that names tests.
func countMatching(all []syllabus.Question) int {
	n := 0
	for _, q := range all {
		if matches("test.run", q.Test, true) && !matches("test.skip", q.Test, false) {
			n++
		}
	}
	return n
}

func matches(name, test string, unset bool) bool {
	if !set(name) {
		return unset
	}
	pattern, _, _ := strings.Cut(flag.Lookup(name).Value.String(), "/")
	re, err := regexp.Compile(pattern)
	return err == nil && re.MatchString(test)
}

// oneByOne says whether the questions are asked one after the other.
func oneByOne() bool {
	n, err := strconv.Atoi(flag.Lookup("test.parallel").Value.String())
	return matching == 1 || err == nil && n == 1
}
