//go:build linux

package ctrd

import (
	"os"
	"path/filepath"
)

// ExecShell runs a script with a shell in a task, as `ctr tasks exec` does, and returns what the script printed.
func (d *Daemon) ExecShell(id, script string) string {
	d.q.Helper()
	return d.Ctr("tasks", "exec", "--fifo-dir", d.FifoDir, "--exec-id", "typed", id, "sh", "-c", script).Stdout
}

// ExecDetached types `ctr tasks exec -d`. ctr makes the FIFOs of the exec and ends, and no other program removes them:
// TestTask_WhatDoesAStoppedTaskStillHold observes that. So they are removed when the question ends.
func (d *Daemon) ExecDetached(id, execID string, args ...string) {
	d.q.Helper()
	d.q.Cleanup(func() { d.RemoveFIFOs(execID) })
	d.Ctr(append([]string{"tasks", "exec", "-d", "--fifo-dir", d.FifoDir, "--exec-id", execID, id}, args...)...)
}

// RemoveFIFOs removes the FIFOs for the standard streams of a task or an exec, by its id, if there are any. They belong to the client:
// ctr removes them when it deletes the task. A question calls this where no client deletes it: a detached exec, or a task that the
// daemon itself deletes when it starts again.
func (d *Daemon) RemoveFIFOs(id string) {
	d.q.Helper()
	fifos, err := filepath.Glob(filepath.Join(d.FifoDir, "*", id+"-std*"))
	if err != nil {
		d.q.Error(err)
	}
	for _, fifo := range fifos {
		if err := os.Remove(fifo); err != nil {
			d.q.Errorf("remove a FIFO of %s: %v", id, err)
		}
	}
}
