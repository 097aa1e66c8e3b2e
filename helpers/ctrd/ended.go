//go:build linux

package ctrd

import (
	"gotest.tools/v3/poll"
)

// Ended is a poll check: the subscription of the stream's Go client has ended with an error, as it does with the
// daemon.
func (s *Stream) Closed() poll.Check {
	return func(poll.LogT) poll.Result {
		if s.Err() == nil {
			return poll.Continue("the subscription to containerd's events goes on")
		}
		return poll.Success()
	}
}

// Err is the error with which the subscription of the stream's Go client has ended; nil while it goes on.
func (s *Stream) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}
