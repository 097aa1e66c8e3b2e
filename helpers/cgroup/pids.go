//go:build linux

package cgroup

import (
	"strconv"

	"gotest.tools/v3/poll"
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
