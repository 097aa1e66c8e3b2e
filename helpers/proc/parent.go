//go:build linux

package proc

import (
	"testing"

	"github.com/prometheus/procfs"
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

// Parents maps the name of each process that is alive to the name of its parent. Both are keys of names. A process whose parent
// has no name is left out.
func Parents(tb testing.TB, names map[string]PID) map[string]string {
	tb.Helper()
	nameOf := map[PID]string{}
	for name, pid := range names {
		nameOf[pid] = name
	}
	out := map[string]string{}
	for name, pid := range names {
		p, err := procfs.NewProc(int(pid))
		if err != nil {
			continue // it is dead
		}
		stat, err := p.Stat()
		if parent := nameOf[PID(stat.PPID)]; err == nil && !hasEnded(stat) && parent != "" {
			out[name] = parent
		}
	}
	return out
}
