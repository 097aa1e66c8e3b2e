//go:build linux

package vm

import (
	"bytes"
	"fmt"
	"io"
)

// Tally counts the tests on their way to r.Stdout. The function it returns says how many there were, after the run.
func Tally(r *Runner) func(code int) string {
	t := &tally{w: r.Stdout}
	if !sameFile(r.Stdout, r.Stderr) {
		r.Stdout = t
	} else {
		r.Stdout, r.Stderr = t, t
	}
	return t.String
}

// tally looks for the lines "--- PASS: " of tests at the top level, which go test prints with -v and for failures.
type tally struct {
	w                       io.Writer
	line                    []byte // the beginning of the line that is being written
	passed, failed, skipped int
}

func (t *tally) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		part, after, ended := bytes.Cut(rest, []byte{'\n'})
		if room := 16 - len(t.line); room > 0 {
			t.line = append(t.line, part[:min(room, len(part))]...)
		}
		if ended {
			t.count()
			t.line = t.line[:0]
		}
		rest = after
	}
	return t.w.Write(b)
}

func (t *tally) count() {
	// test2json's marker, with -json.
	l := bytes.TrimPrefix(t.line, []byte{0x16})
	switch {
	case bytes.HasPrefix(l, []byte("--- PASS: ")):
		t.passed++
	case bytes.HasPrefix(l, []byte("--- FAIL: ")):
		t.failed++
	case bytes.HasPrefix(l, []byte("--- SKIP: ")):
		t.skipped++
	}
}

func (t *tally) String(code int) string {
	asked := t.passed + t.failed + t.skipped
	if t.passed == 0 && code == 0 {
		return "no test was seen to run (go test names them only with -v)"
	}
	return fmt.Sprintf("%d asked, %d answered, %d failed, %d skipped", asked, t.passed, t.failed, t.skipped)
}
