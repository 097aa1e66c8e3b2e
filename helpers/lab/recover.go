//go:build linux

package lab

import "runtime/debug"

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
