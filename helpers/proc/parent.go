//go:build linux

package proc

import (
	"testing"

	"gotest.tools/v3/poll"
)

// Ancestry returns a process, its parent, the parent of that one, and so on, up to pid 1.
func Ancestry(tb testing.TB, pid PID) []PID {
	tb.Helper()
	out := []PID{pid}
	for pid > 1 {
		pid = PID(Stat(tb, pid).PPID)
		out = append(out, pid)
	}
	return out
}

// IsChildOf returns a check that succeeds when the process is a child of parent.
func IsChildOf(id Identity, parent PID) poll.Check {
	return func(poll.LogT) poll.Result {
		p, err := Read(id.PID)
		if err != nil {
			return poll.Error(err)
		}
		if p.Parent != parent {
			return poll.Continue("process %d (%s) is a child of %d, not yet of %d", id.PID, p.Comm, p.Parent, parent)
		}
		return poll.Success()
	}
}
