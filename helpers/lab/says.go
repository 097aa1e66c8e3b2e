//go:build linux

package lab

// What a test says interrupts its notes: those taken before it are shown before it. Assertions say what they saw by
// Log, and fail by FailNow.

// Log shows the notes taken so far, then its arguments.
func (q *Q) Log(args ...any) { q.TB.Helper(); q.notes.out.flush(); q.TB.Log(args...) }

// Logf shows the notes taken so far, then its arguments.
func (q *Q) Logf(format string, args ...any) {
	q.TB.Helper()
	q.notes.out.flush()
	q.TB.Logf(format, args...)
}

// Error is [Q.Log], and the question has failed.
func (q *Q) Error(args ...any) { q.TB.Helper(); q.notes.out.flush(); q.TB.Error(args...) }

// Errorf is [Q.Logf], and the question has failed.
func (q *Q) Errorf(format string, args ...any) {
	q.TB.Helper()
	q.notes.out.flush()
	q.TB.Errorf(format, args...)
}

// Fatal is [Q.Error], and the question ends.
func (q *Q) Fatal(args ...any) { q.TB.Helper(); q.notes.out.flush(); q.TB.Fatal(args...) }

// Fatalf is [Q.Errorf], and the question ends.
func (q *Q) Fatalf(format string, args ...any) {
	q.TB.Helper()
	q.notes.out.flush()
	q.TB.Fatalf(format, args...)
}

// Skip is [Q.Log], and the question ends unanswered.
func (q *Q) Skip(args ...any) { q.TB.Helper(); q.notes.out.flush(); q.TB.Skip(args...) }

// Skipf is [Q.Logf], and the question ends unanswered.
func (q *Q) Skipf(format string, args ...any) {
	q.TB.Helper()
	q.notes.out.flush()
	q.TB.Skipf(format, args...)
}
