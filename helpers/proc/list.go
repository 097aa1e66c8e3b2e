//go:build linux

package proc

import (
	"cmp"
	"slices"
	"testing"

	"github.com/prometheus/procfs"
	"gotest.tools/v3/poll"
)

// Children lists the direct children of a process that have not ended, in the order in which they began. That is not always the order of
// their pids, which begin at a low number again when the highest one was used.
func Children(tb testing.TB, pid PID) []PID {
	tb.Helper()
	all, err := procfs.AllProcs()
	if err != nil {
		tb.Fatalf("list processes: %v", err)
	}
	var out []PID
	begin := map[PID]uint64{}
	for _, p := range all {
		if stat, err := p.Stat(); err == nil && PID(stat.PPID) == pid && !hasEnded(stat) {
			out = append(out, PID(p.PID))
			begin[PID(p.PID)] = stat.Starttime
		}
	}
	slices.SortFunc(out, func(a, b PID) int { return cmp.Or(cmp.Compare(begin[a], begin[b]), cmp.Compare(a, b)) })
	return out
}

// ChildStates returns the state (field 3 of stat) of each direct child of a process. A child in state Z has ended, and the process has not
// waited for it.
func ChildStates(tb testing.TB, pid PID) map[PID]string {
	tb.Helper()
	all, err := procfs.AllProcs()
	if err != nil {
		tb.Fatalf("list processes: %v", err)
	}
	out := map[PID]string{}
	for _, p := range all {
		if stat, err := p.Stat(); err == nil && PID(stat.PPID) == pid {
			out[PID(p.PID)] = stat.State
		}
	}
	return out
}

// Find lists the live processes for which match reports true, sorted. match gets only what is cheap to read.
func Find(tb testing.TB, match func(pid PID, comm string, args []string) bool) []PID {
	tb.Helper()
	var out []PID
	for _, id := range FindIdentities(tb, match) {
		out = append(out, id.PID)
	}
	return out
}

// FindIdentities is [Find] for processes that are sent a signal: by [Signal], not to another process that has the pid in the meantime. The
// identities have the pid and the start time, and nothing else.
func FindIdentities(tb testing.TB, match func(pid PID, comm string, args []string) bool) []Identity {
	tb.Helper()
	all, err := procfs.AllProcs()
	if err != nil {
		tb.Fatalf("list processes: %v", err)
	}
	var out []Identity
	for _, p := range all {
		stat, err1 := p.Stat()
		args, err2 := p.CmdLine()
		if err1 == nil && err2 == nil && !hasEnded(stat) && match(PID(p.PID), stat.Comm, args) {
			out = append(out, Identity{PID: PID(p.PID), Start: Ticks(stat.Starttime)})
		}
	}
	slices.SortFunc(out, func(a, b Identity) int { return int(a.PID - b.PID) })
	return out
}

// Alive reports whether a process has this pid and has not ended. A zombie has ended.
func Alive(pid PID) bool {
	p, err := procfs.NewProc(int(pid))
	if err != nil {
		return false
	}
	stat, err := p.Stat()
	return err == nil && !hasEnded(stat)
}

// hasEnded reports whether all threads of a process have ended. The state is that of the first thread. When a process with
// several threads is killed, that thread may be a zombie while others still run: they keep descriptors open, and are the
// parent of the process's children.
func hasEnded(stat procfs.ProcStat) bool {
	return stat.State == "X" || stat.State == "Z" && stat.NumThreads <= 1
}

// HasNoChildren returns a check that succeeds when a process has no children, not even dead ones that it has not waited for.
func HasNoChildren(pid PID) poll.Check {
	return func(poll.LogT) poll.Result {
		all, err := procfs.AllProcs()
		if err != nil {
			return poll.Error(err)
		}
		for _, p := range all {
			if stat, err := p.Stat(); err == nil && PID(stat.PPID) == pid {
				return poll.Continue("process %d still has the child %d (%s), in state %s", pid, stat.PID, stat.Comm, stat.State)
			}
		}
		return poll.Success()
	}
}

// FirstExcept returns the first pid of a list that is not this one, or 0 if there is none.
func FirstExcept(pid PID, all []PID) PID {
	for _, p := range all {
		if p != pid {
			return p
		}
	}
	return 0
}
