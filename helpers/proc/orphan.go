//go:build linux

package proc

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"gotest.tools/v3/poll"
)

// OrphanReaper returns the process that becomes the parent of orphans below this process: the nearest ancestor that is a child
// subreaper (PR_SET_CHILD_SUBREAPER(2const)), or else pid 1. The kernel does not show which processes are subreapers. So
// OrphanReaper tries it: a shell leaves a child behind, and the child's new parent is the result. The child reads from a pipe, so it
// ends also when this process is killed.
func OrphanReaper(tb testing.TB) PID {
	tb.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		tb.Fatalf("make a pipe for an orphan: %v", err)
	}
	defer r.Close()
	defer w.Close()
	// The child's output is redirected, so that Output sees the end of the shell's output when the shell ends. The child is a program:
	// for a built-in command such as read, dash keeps the output open.
	cmd := exec.Command("/bin/sh", "-c", "cat <&3 > /dev/null 2>&1 & echo $$ $!")
	cmd.ExtraFiles = []*os.File{r}
	out, err := cmd.Output()
	if err != nil {
		tb.Fatalf("run a shell that leaves an orphan: %v", err)
	}
	var shell, orphan PID
	if _, err := fmt.Sscan(string(out), &shell, &orphan); err != nil {
		tb.Fatalf("the shell has to print its pid and the orphan's, but printed %q", out)
	}
	p := Snapshot(tb, orphan)
	defer func() {
		if err := Kill(p.Identity); err != nil {
			tb.Error(err)
		}
		WaitFor(tb, Dead(p.Identity))
	}()
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
