//go:build linux

package mutants

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"cdblab/helpers/results"
	"cdblab/helpers/tools"
)

// A Lab runs the questions against a program.
type Lab struct {
	Binary    string   // the test binary of the questions
	Questions string   // a regular expression; "" for all
	Confine   []string // the command and its first arguments that confine a run: see lab confine
	Test2JSON string   // the program that go tool -n test2json prints
	Target    Target
	Jobs      int // runs at once
}

// An Outcome is what became of a mutant.
type Outcome string

// The outcomes.
const (
	Killed   Outcome = "killed"         // a question failed, or the run did
	Hung     Outcome = "hung"           // the run was cut off: it did not end, or took all memory or processes
	Survived Outcome = "survived"       // all questions passed
	NoBuild  Outcome = "does not build" // it does not count
)

// A Result is what became of a mutant, and what showed it.
type Result struct {
	Outcome   Outcome       `json:"outcome"`
	Question  string        `json:"question,omitempty"` // the test that failed first; "" if no test did
	Message   string        `json:"message,omitempty"`
	Took      time.Duration `json:"took"`
	Source    string        `json:"source"`              // digest of the questions
	Questions string        `json:"questions,omitempty"` // Q; "" for all
}

// A labRun is one run of the questions.
type labRun struct {
	program  string
	log      string // file of the output
	deadline time.Duration
	env      []string
	args     []string
}

// run runs the questions against a program, confined. An error says nothing about the program.
func (l *Lab) run(ctx context.Context, r labRun) (Result, error) {
	log, err := os.Create(r.log)
	if err != nil {
		return Result{}, err
	}
	defer log.Close()
	why := r.log + ".why"
	defer os.Remove(why)
	argv := append(append([]string(nil), l.Confine...), "-deadline", r.deadline.String(), "-jobs", fmt.Sprint(l.Jobs), "-why", why, "--",
		l.Binary, "-test.v=test2json", "-test.timeout=0")
	if l.Questions != "" {
		argv = append(argv, "-test.run", l.Questions)
	}
	cmd := exec.CommandContext(ctx, argv[0], append(argv[1:], r.args...)...)
	cmd.Env = l.environ(r)
	out := &capped{w: log, left: 64 << 20} // a program may print without end
	cmd.Stdout, cmd.Stderr = out, out
	stop, err := cmd.StdinPipe()
	if err != nil {
		return Result{}, err
	}
	cmd.Cancel = stop.Close // the command and its processes end, and the lab cleans up
	cmd.WaitDelay = 2 * time.Minute
	begin := time.Now()
	err = cmd.Run()
	took := time.Since(begin)
	if ctx.Err() != nil {
		return Result{}, context.Cause(ctx)
	}
	if _, isExit := errors.AsType[*exec.ExitError](err); err != nil && !isExit {
		return Result{}, fmt.Errorf("start %s: %w", argv[0], err)
	}
	cutOff, err := os.ReadFile(why)
	if err != nil {
		return Result{}, fmt.Errorf("the questions could not be confined: look at %s", r.log)
	}
	run, err := l.read(ctx, r.log)
	if err != nil {
		return Result{}, fmt.Errorf("read what the questions printed: %w", err)
	}
	result := judge(run, cmd.ProcessState.ExitCode(), strings.TrimSpace(string(cutOff)))
	result.Took = took
	return result, nil
}

// environ returns the environment of a run. The program counts as the pinned one: no assertion is weaker than it is for the release,
// and the golden files hold.
func (l *Lab) environ(r labRun) []string {
	env := os.Environ()
	for _, t := range tools.All {
		if t.Build != nil {
			env = append(env, t.Env+"=") // whatever the caller tests, the others are the pinned ones
		}
	}
	env = append(env, l.Target.Tool.Env+"="+r.program, tools.PinnedEnv+"="+l.Target.Tool.Env)
	return append(env, r.env...)
}

// read reads what the test binary printed.
func (l *Lab) read(ctx context.Context, log string) (*results.Run, error) {
	f, err := os.Open(log)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	convert := exec.CommandContext(ctx, l.Test2JSON, "-t")
	convert.Stdin = f
	stream, err := convert.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", convert, err)
	}
	return results.Read(bytes.NewReader(stream))
}

// judge says what became of a program under test.
func judge(run *results.Run, code int, cutOff string) Result {
	r := Result{Outcome: Survived}
	switch {
	case cutOff != "":
		r.Outcome = Hung
		r.Message = cutOff
	case code == 0 && run.Count(results.Answered) > 0:
		return r
	default:
		r.Outcome = Killed
		r.Message = fmt.Sprintf("the run ended with exit code %d", code)
	}
	if q := firstFailed(run); q != nil {
		r.Question = q.Test
		if m := failure(q); r.Outcome == Killed {
			r.Message = m
		} else {
			r.Message += ". " + m
		}
	} else if line := lastWord(run.Lines); line != "" {
		r.Message += ": " + line
	}
	return r
}

// firstFailed returns the question that failed first. If none did, it returns the first one that did not end.
func firstFailed(run *results.Run) *results.Question {
	var first *results.Question
	for _, q := range run.Questions {
		end := q.Begin.Add(q.Elapsed)
		if q.Verdict == results.Failed && (first == nil || end.Before(first.Begin.Add(first.Elapsed))) {
			first = q
		}
	}
	if first != nil {
		return first
	}
	for _, q := range run.Questions {
		if last := q.Steps[len(q.Steps)-1]; q.Verdict == results.Unfinished && last.Number > 0 {
			return q
		}
	}
	return nil
}

// failure returns the message of a question that failed. A message that begins like an assertion's is preferred to what the
// question has only logged.
func failure(q *results.Question) string {
	messages := q.Messages()
	for _, m := range messages {
		if strings.Contains(m, "assertion failed") || strings.Contains(m, "timeout hit") {
			return m
		}
	}
	for _, l := range q.Logs {
		if l.Kind == "error" {
			return l.At + ": " + l.Text
		}
	}
	if len(messages) > 0 {
		return messages[len(messages)-1]
	}
	return "it printed no message"
}

// lastWord returns what the lab said last, which is why it failed where no question did.
func lastWord(lines []string) string {
	last := ""
	for _, line := range lines {
		if text, ok := strings.CutPrefix(line, "cdblab: "); ok && !strings.Contains(text, " questions asked: ") {
			last = text
		}
		if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") {
			return line
		}
	}
	return cmp.Or(last, lastNonEmpty(lines))
}

func lastNonEmpty(lines []string) string {
	for i := len(lines) - 1; i >= 0; i-- {
		if s := strings.TrimSpace(lines[i]); s != "" && s != "FAIL" && s != "PASS" {
			return s
		}
	}
	return ""
}

// capped writes to a file until it has written enough, and drops the rest.
type capped struct {
	w    io.Writer
	left int
}

func (c *capped) Write(p []byte) (int, error) {
	n := min(len(p), c.left)
	c.left -= n
	if n > 0 {
		if _, err := c.w.Write(p[:n]); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// BuildLab builds the test binary of the questions, and returns its path.
func BuildLab(ctx context.Context, s *Source) (string, error) {
	out := filepath.Join(s.dir, "lab.test")
	_, stderr, err := s.run(ctx, nil, "test", "-c", "-tags", "vmlab", "-o", out, ".")
	if err != nil {
		return "", fmt.Errorf("build the questions: %w\n%s", err, lastLines(string(stderr)))
	}
	return out, nil
}
