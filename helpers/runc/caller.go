//go:build linux

package runc

import (
	"strings"

	"al.essio.dev/pkg/shellescape"

	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// MustAfter is [Container.Must] for a caller that has changed itself before, by a command of the shell such as "umask 077".
func (c *Container) MustAfter(change, operation string, args ...string) lab.Result {
	c.q.Helper()
	return c.q.Must("sh", "-c", change+"; exec "+shellescape.QuoteCommand(c.argv(operation, args)))
}

// TryAfter is [Container.MustAfter], and returns the result whatever the exit code is.
func (c *Container) TryAfter(change, operation string, args ...string) lab.Result {
	c.q.Helper()
	return c.q.Exec("sh", "-c", change+"; exec "+shellescape.QuoteCommand(c.argv(operation, args)))
}

// StartAfter creates and starts the container by a caller that has changed itself before. It waits until the program runs.
func (c *Container) StartAfter(change string) proc.Process {
	c.q.Helper()
	c.MustAfter(change, "create")
	pid := proc.PID(c.State().Pid)
	c.MustAfter(change, "start")
	proc.WaitFor(c.q, proc.Runs(pid, ProgramName(c.Bundle.Spec.Process.Args)))
	return proc.Snapshot(c.q, pid)
}

// ExecAfter runs a program in the container by a caller that has changed itself before, and returns what the program wrote.
func (c *Container) ExecAfter(change string, program ...string) string {
	c.q.Helper()
	argv := append([]string{"runc", "--root", c.Root, "exec", c.ID}, program...)
	return strings.TrimSpace(c.q.Must("sh", "-c", change+"; exec "+shellescape.QuoteCommand(argv)).Stdout)
}
