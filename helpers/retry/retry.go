// Package retry waits for a condition where no test is at hand. Where one is, use gotest.tools/v3/poll.
package retry

import "time"

const interval = 5 * time.Millisecond

// Until calls done until it reports true, and reports whether it did so within the timeout. It calls done at least once.
// The caller keeps in a variable what done has seen last, for its error message.
func Until(timeout time.Duration, done func() bool) bool {
	for deadline := time.Now().Add(timeout); ; time.Sleep(interval) {
		late := time.Now().After(deadline) // before the look: the machine may stand still during it
		if done() {
			return true
		}
		if late {
			return false
		}
	}
}
