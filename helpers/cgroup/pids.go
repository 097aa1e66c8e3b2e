//go:build linux

package cgroup

import (
	"strconv"

	"gotest.tools/v3/poll"

	"cdblab/helpers/proc"
)

// HasProcesses returns a check that succeeds when the group has n processes and threads (pids.current).
func (g Group) HasProcesses(n int) poll.Check {
	return func(poll.LogT) poll.Result {
		got, err := g.Try("pids", "pids.current")
		if err != nil {
			return poll.Error(err)
		}
		if got != strconv.Itoa(n) {
			return poll.Continue("pids.current of %s is %s, want %d", g.Path, got, n)
		}
		return poll.Success()
	}
}

// HasMoreProcessesThan returns a check that succeeds when cgroup.procs has more than n processes.
func (g Group) HasMoreProcessesThan(n int) poll.Check {
	return func(poll.LogT) poll.Result {
		if members := g.Procs(); len(members) <= n {
			return poll.Continue("cgroup %s has the processes %v, not yet more than %d", g.Path, members, n)
		}
		return poll.Success()
	}
}

// WaitForProgram waits until a process of the group runs the program comm, and returns it. It does not look at the process except.
func (g Group) WaitForProgram(comm string, except proc.PID) (found proc.Process) {
	g.tb.Helper()
	proc.WaitFor(g.tb, func(poll.LogT) poll.Result {
		members := g.Procs()
		for _, pid := range members {
			p, err := proc.Read(pid)
			if err != nil || pid == except || p.Comm != comm || !proc.Runs(pid, comm)(nil).Done() {
				continue
			}
			if found, err = proc.Read(pid); err == nil {
				return poll.Success()
			}
		}
		return poll.Continue("no process of cgroup %s besides %d runs %s; its processes are %v", g.Path, except, comm, members)
	})
	return found
}
