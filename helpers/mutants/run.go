//go:build linux

package mutants

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"cdblab/helpers/results"
	"cdblab/helpers/tools"
	"cdblab/helpers/trial"
)

// An Outcome is what became of a mutant.
type Outcome string

// The outcomes.
const (
	Killed   Outcome = "killed"         // a question failed, or the run did
	Hung     Outcome = "hung"           // the run was cut off: it did not end, or took all memory or processes
	Survived Outcome = "survived"       // all questions passed
	NoBuild  Outcome = "does not build" // it does not count
	NotRun   Outcome = ""               // not yet, or nothing is known: it could not be confined, or the machine had no memory
)

// A Result is what became of a mutant, and what showed it.
type Result struct {
	Outcome  Outcome       `json:"outcome"`
	Question string        `json:"question,omitempty"` // the test that failed first; "" if no test did
	Message  string        `json:"message,omitempty"`
	Took     time.Duration `json:"took"`
	Deadline time.Duration `json:"deadline"` // after which the run was, or would have been, cut off
	Source   string        `json:"source"`   // digest of the questions
}

// ask asks the questions of a program. The program counts as the pinned one: no assertion is weaker than it is for the release, and the
// golden files hold.
func (c *Campaign) ask(ctx context.Context, program string, t trial.Trial) (trial.Outcome, error) {
	t.Questions = c.Questions
	t.Env = append(t.Env, c.Target.Tool.Env+"="+program, tools.PinnedEnv+"="+c.Target.Tool.Env)
	return c.Ask(ctx, t)
}

// run runs the questions against a program, and says what became of it.
func (c *Campaign) run(ctx context.Context, program string, t trial.Trial) (Result, error) {
	o, err := c.ask(ctx, program, t)
	if err != nil {
		return Result{}, err
	}
	result := judge(o.Run, o.Code, o.CutOff)
	result.Took, result.Deadline, result.Source = o.Took, t.Deadline, c.Digest
	return result, nil
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
	if q := trial.FirstFailed(run); q != nil {
		r.Question = q.Test
		if m := trial.Failure(q); r.Outcome == Killed {
			r.Message = m
		} else {
			r.Message += ". " + m
		}
	} else if line := trial.LastWord(run.Lines); line != "" {
		r.Message += ": " + line
	}
	return r
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
