//go:build linux

package proc

import (
	"fmt"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/poll"
)

// kill kills the process of this identity, and no other process that has its pid in the meantime. It waits until the process
// has ended.
func kill(tb testing.TB, id Identity) {
	tb.Helper()
	fd, err := unix.PidfdOpen(int(id.PID), 0)
	if err == unix.ESRCH {
		return
	}
	if err != nil {
		tb.Errorf("open a pidfd of process %d: %v", id.PID, err)
		return
	}
	defer unix.Close(fd)
	if now, err := Read(id.PID); err != nil || now.Start != id.Start {
		return
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
		tb.Errorf("kill process %d: %v", id.PID, err)
	}
	WaitFor(tb, Dead(id))
}

// OrphanReaper returns the process that becomes the parent of orphans below this process: the nearest ancestor that is a child
// subreaper (PR_SET_CHILD_SUBREAPER(2const)), or else pid 1. The kernel does not show which processes are subreapers. So
// OrphanReaper tries it: a shell leaves a child behind, and the child's new parent is the result.
func OrphanReaper(tb testing.TB) PID {
	tb.Helper()
	// The child's output is redirected, so that Output sees the end of the shell's output when the shell ends.
	out, err := exec.Command("/bin/sh", "-c", "sleep 600 > /dev/null 2>&1 & echo $$ $!").Output()
	if err != nil {
		tb.Fatalf("run a shell that leaves an orphan: %v", err)
	}
	var shell, orphan PID
	if _, err := fmt.Sscan(string(out), &shell, &orphan); err != nil {
		tb.Fatalf("the shell has to print its pid and the orphan's, but printed %q", out)
	}
	p := Snapshot(tb, orphan)
	defer kill(tb, p.Identity)
	WaitFor(tb, func(poll.LogT) poll.Result {
		var err error
		if p, err = Read(orphan); err != nil {
			return poll.Error(err)
		}
		if p.Parent == shell {
			return poll.Continue("process %d is still a child of the shell %d", orphan, shell)
		}
		return poll.Success()
	})
	return p.Parent
}
