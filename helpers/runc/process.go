//go:build linux

package runc

import (
	"golang.org/x/sys/unix"

	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// PID returns the pid of the container's process, as the runtime reports it. It is 0 for a stopped container.
func (c *Container) PID() proc.PID {
	c.q.Helper()
	return proc.PID(c.State().Pid)
}

// Process returns the container's process: `runc init` between create and start, the program afterwards.
func (c *Container) Process() proc.Process {
	c.q.Helper()
	return proc.Snapshot(c.q, c.PID())
}

// BlockedOpen waits until `runc init` sleeps in openat(2), and returns the file that it opens and the access mode, such
// as O_WRONLY.
func BlockedOpen(q *lab.Q, init proc.Process) (path string, mode uint64) {
	q.Helper()
	proc.WaitFor(q, proc.SleepsIn(init.PID, unix.SYS_OPENAT))
	const pathArg, flagsArg = 1, 2
	call := proc.CurrentSyscall(q, init.PID)
	opened := proc.CString(q, init.PID, call.Args[pathArg])
	return ResolveFD(init, opened), call.Args[flagsArg] & unix.O_ACCMODE
}
