//go:build linux

package lab

import (
	"fmt"
	"runtime/debug"
)

// Recover turns a panic into a failure of the question, with the stack. Without it, a panic ends the run, and the questions after
// it are not asked. Use it as `defer q.Recover()`, in the line after [Session.Question].
//
// It cannot be done for a question from outside: only a function that the panicking function has deferred can recover (go.dev/ref/spec,
// Handling panics). When testing calls the t.Cleanup functions after a panic, it has recovered already, and it panics again
// after them.
func (q *Q) Recover() {
	if value := recover(); value != nil {
		q.TB.Helper()
		q.Errorf("the question panicked: %v\n%s", value, debug.Stack())
	}
}

// Catch calls do, and returns a panic as an error, with the stack. It is for a goroutine: a panic in one ends the run, because [Q.Recover]
// is deferred by another. The question asserts the error, and so it fails, as if it had panicked itself.
func Catch(do func() error) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = fmt.Errorf("a goroutine of the question panicked: %v\n%s", value, debug.Stack())
		}
	}()
	return do()
}

// Go calls do in a goroutine, as [Catch] does. The channel receives the error when do has returned.
func Go(do func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- Catch(do) }()
	return done
}
