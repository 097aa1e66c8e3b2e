//go:build linux

// Package lab asks the questions of a chapter. A question is a test function that notes what it does and observes: its
// steps, its commands, the facts that the kernel showed, the control, the answer. A session is a run of such questions: it
// checks that the machine may be used, finds the programs under test, and verifies that nothing stays behind.
//
// Read the files in this order: flags.go, settings.go, environ.go, guard.go, janitor.go, keep.go, clauses.go, counts.go, skips.go,
// facts.go, notes.go, session.go, undertest.go and run.go for the session; then question.go, recover.go, record.go, command.go,
// background.go, process.go, wrapper.go, teardown.go and ask.go for a question, and stepping.go and state.go for a run that stops at each
// step.
package lab
