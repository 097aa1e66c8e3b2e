//go:build linux

package trial

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"cdblab/helpers/results"
	"cdblab/helpers/tools"
)

// A Lab asks the questions, confined.
type Lab struct {
	Binary    string   // the test binary of the questions
	Confine   []string // the command and its first arguments that confine a run: see lab confine
	Test2JSON string   // the program that go tool -n test2json prints
	Jobs      int      // runs at once
}

// A Trial is one run of the questions.
type Trial struct {
	Questions string   // a regular expression; "" for all
	Env       []string // besides the variables of this process; those that name programs count only if they are here
	Args      []string // of the test binary
	Log       string   // the file that gets the output
	Deadline  time.Duration
}

// An Outcome is how a run ended, and what it observed.
type Outcome struct {
	Run    *results.Run
	Code   int
	CutOff string // why the run was cut off; "" if it ended by itself
	Took   time.Duration
}

// Whole reports whether the run has come to its end: it was not cut off, and the lab has printed last how many questions were asked.
func (o Outcome) Whole() bool {
	return o.CutOff == "" && slices.ContainsFunc(o.Run.Lines, isCount)
}

func isCount(line string) bool {
	return strings.HasPrefix(line, "cdblab: ") && strings.Contains(line, " questions asked: ")
}

// ErrNotConfined is the error of a run that could not be confined, or whose leftovers could not be removed.
var ErrNotConfined = errors.New("the questions could not be confined")

// Ask runs the questions. An error says nothing about the program under test.
func (l *Lab) Ask(ctx context.Context, t Trial) (Outcome, error) {
	log, err := os.Create(t.Log)
	if err != nil {
		return Outcome{}, err
	}
	defer log.Close()
	why := t.Log + ".why"
	if err := os.Remove(why); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a run that was killed: it says nothing about this one
		return Outcome{}, err
	}
	defer os.Remove(why)
	argv := append(append([]string(nil), l.Confine...), "-deadline", t.Deadline.String(), "-jobs", fmt.Sprint(l.Jobs), "-why", why, "--",
		l.Binary, "-test.v=test2json", "-test.timeout=0")
	if t.Questions != "" {
		argv = append(argv, "-test.run", t.Questions)
	}
	cmd := exec.CommandContext(ctx, argv[0], append(argv[1:], t.Args...)...)
	cmd.Env = environ(t.Env)
	out := &capped{w: log, left: 64 << 20} // a program may print without end
	cmd.Stdout, cmd.Stderr = out, out
	stop, err := cmd.StdinPipe()
	if err != nil {
		return Outcome{}, err
	}
	cmd.Cancel = stop.Close // the command and its processes end, and the lab cleans up
	cmd.WaitDelay = 2 * time.Minute
	begin := time.Now()
	err = cmd.Run()
	o := Outcome{Took: time.Since(begin)}
	if ctx.Err() != nil {
		return Outcome{}, context.Cause(ctx)
	}
	if _, isExit := errors.AsType[*exec.ExitError](err); err != nil && !isExit {
		return Outcome{}, fmt.Errorf("start %s: %w", argv[0], err)
	}
	cutOff, err := os.ReadFile(why)
	if err != nil {
		return Outcome{}, fmt.Errorf("%w: look at %s", ErrNotConfined, t.Log)
	}
	o.Code, o.CutOff = cmd.ProcessState.ExitCode(), strings.TrimSpace(string(cutOff))
	if o.Run, err = l.read(ctx, t.Log); err != nil {
		return Outcome{}, fmt.Errorf("read what the questions printed: %w", err)
	}
	// The lab asks no question of a machine that it refuses, or whose disk is full. What is under test runs in questions only.
	if o.CutOff == "" && len(o.Run.Asked()) == 0 {
		return Outcome{}, fmt.Errorf("no question was asked: the run ended with exit code %d: %s\n  what to do: look at %s, and run "+
			"the same command again", o.Code, LastWord(o.Run.Lines), t.Log)
	}
	return o, nil
}

// environ returns the environment of a run. Whatever the caller tests, a program that env does not name is the pinned one.
func environ(env []string) []string {
	all := os.Environ()
	for _, t := range tools.All {
		if t.Build != nil {
			all = append(all, t.Env+"=")
		}
	}
	return append(all, env...)
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

// LastWord returns what the lab said last, which is why it failed where no question did.
func LastWord(lines []string) string {
	last := ""
	for _, line := range lines {
		if text, ok := strings.CutPrefix(line, "cdblab: "); ok && !isCount(line) {
			last = text
		}
		if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") {
			return line
		}
		if strings.HasPrefix(line, "lab: the machine failed") { // lab exec. What was said in the machine before is not the reason
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
