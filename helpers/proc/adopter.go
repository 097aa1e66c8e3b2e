//go:build linux

package proc

import (
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"gotest.tools/v3/poll"
)

// Adopter returns the process that takes in orphans made below this one: the nearest ancestor that is a child subreaper
// (PR_SET_CHILD_SUBREAPER(2const)), else pid 1. The kernel does not show which processes are subreapers, so it is tried:
// a shell leaves a child behind, and who is its parent then?
func OrphanReaper(tb testing.TB) PID {
	tb.Helper()
	// Its output is closed for the child, so that Output sees the end of it when the shell ends.
	out, err := exec.Command("/bin/sh", "-c", "sleep 60 > /dev/null 2>&1 & echo $$ $!").Output()
	if err != nil {
		tb.Fatalf("leave an orphan: %v", err)
	}
	f := strings.Fields(string(out))
	shell, err1 := strconv.Atoi(f[0])
	orphan, err2 := strconv.Atoi(f[1])
	if err1 != nil || err2 != nil {
		tb.Fatalf("leave an orphan: the shell printed %q", out)
	}
	p := Snapshot(tb, PID(orphan))
	defer kill(tb, p.Identity)
	WaitFor(tb, func(poll.LogT) poll.Result {
		var err error
		if p, err = Read(PID(orphan)); err != nil {
			return poll.Error(err)
		}
		if p.Parent == PID(shell) {
			return poll.Continue("process %d is still a child of the shell %d", orphan, shell)
		}
		return poll.Success()
	})
	return p.Parent
}
