//go:build linux

package failure

import (
	"context"
	"fmt"
	"sync"

	containerd "github.com/containerd/containerd/v2/client"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/poll"

	"cdblab/helpers/lab"
)

// PendingWait is a call of Wait by a client of containerd, which returns when the process has ended.
type PendingWait struct {
	mu     sync.Mutex
	result string // "" until the call has returned
	err    error
}

// waitInBackground calls Wait for a process of a task. The call is cancelled when the question ends.
func waitInBackground(q *lab.Q, p containerd.Process) *PendingWait {
	q.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	q.TB.Cleanup(cancel)
	ended, err := p.Wait(ctx)
	assert.NilError(q, err)
	w := &PendingWait{}
	go func() {
		exit := <-ended
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.result, w.err = fmt.Sprint(exit.ExitCode()), exit.Error(); w.err != nil {
			w.result = errorKind(w.err)
		}
	}()
	return w
}

// Result returns the exit status that the call has returned, "137", or the kind of its error, "error (Unavailable)". It
// is "waiting" until the call has returned, and "none" where there is no call.
func (w *PendingWait) Result() string {
	if w == nil {
		return "none"
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.result == "" {
		return "waiting"
	}
	return w.result
}

// Returned returns a check that succeeds when the call has returned.
func (w *PendingWait) Returned() poll.Check {
	return func(poll.LogT) poll.Result {
		if w.Result() == "waiting" {
			return poll.Continue("a client's Wait has not returned")
		}
		return poll.Success()
	}
}

// Err returns the error that the call has returned: nil for an exit status, and until the call has returned.
func (w *PendingWait) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}
