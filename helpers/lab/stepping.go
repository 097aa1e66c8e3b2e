//go:build linux

package lab

import (
	"context"
	"fmt"
	"os/exec"
	"sync/atomic"

	"cdblab/helpers/howto"
	"cdblab/helpers/prompt"
)

// stepping is a run that stops at each step, so that a reader at the terminal can look at what exists then.
type stepping struct {
	terminal *prompt.Terminal
	ended    atomic.Bool // the reader has ended the run
}

// openStepping opens the terminal for a run that stops at each step.
func openStepping() (*stepping, error) {
	terminal, err := prompt.Open()
	if err != nil {
		return nil, fmt.Errorf("%s=1 stops at each step until the reader presses a key, and there is no terminal for it: %w\n"+
			"  At a terminal:                       %s\n"+
			"  To look at the state afterwards:     %s", stepEnv, err,
			howto.With(stepEnv+"=1", howto.RunHereOnly("Lifecycle_WhatIsTheDifference")), howto.With(keepEnv+"=1", howto.RunHere()))
	}
	return &stepping{terminal: terminal}, nil
}

// hasEnded reports whether the reader has ended the run.
func (s *stepping) hasEnded() bool { return s != nil && s.ended.Load() }

// stop shows what exists now and waits for the reader. It returns at once in a run that does not stop, and after the reader has
// ended the run. where says at which place the question is. stop reports whether to go on.
func (q *Q) stop(where string) (goOn bool) {
	s := q.session.stepping
	if s == nil || !q.notes.taken || s.hasEnded() {
		return !s.hasEnded()
	}
	q.notes.out.flush()
	fmt.Fprintf(s.terminal, "\n     -- stopped %s\n%s", where, q.describeState())
	fmt.Fprint(s.terminal, "     Enter goes on, q ends the run, and anything else is a shell command that runs here:\n")
	goOn = s.terminal.Wait("     > ", func(argv ...string) *exec.Cmd { return q.Cmd(context.Background(), argv...) })
	s.ended.Store(!goOn)
	return goOn
}

// stopBefore stops before a step. If the reader ends the run, the question ends without an answer, unless only the step that
// takes its state down was left.
func (q *Q) stopBefore(where string) {
	q.Helper()
	if !q.stop("before "+where) && !q.notes.steps.tornDown {
		q.Skipf("the reader ended the run before %s", where)
	}
}

// endIfEnded ends the question if the reader has ended the run in a subtest of it.
func (q *Q) endIfEnded() {
	q.Helper()
	if q.session.stepping.hasEnded() && !q.notes.steps.tornDown {
		q.Skip("the reader ended the run")
	}
}

// stopFailed stops after a failure, before the state is taken down.
func (q *Q) stopFailed() {
	q.stop("because the question has failed; what it made is taken down when you go on")
}

// FailNow is the end of a question that has failed: assertions call it.
func (q *Q) FailNow() {
	q.Helper()
	q.stopFailed()
	q.TB.FailNow()
}
