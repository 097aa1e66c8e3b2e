//go:build linux

package failure

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// What is killed: a value of [Death].Killed.
const (
	Containerd = "containerd" // the daemon; the question kills it, because one daemon serves several victims
	Shim       = "shim"       // the shim of the task
	Init       = "init"       // the task's own process, pid 1 of its pid namespace
	Exec       = "exec"       // a second process in the task
)

// Adopter is the process that adopts orphans: the nearest subreaper above the shim, or pid 1.
const Adopter = "adopter of orphans"

// When it is killed: a value of [Death].When.
const (
	Running = "running" // the task runs
	Stopped = "stopped" // the task has ended, with exit status 7, and is not deleted
	Down    = "down"    // the task runs, and containerd does not
)

// Death is a column of the table: the death of one process.
type Death struct {
	Killed string      // [Containerd], [Shim], [Init] or [Exec]
	Signal unix.Signal // SIGKILL or SIGTERM
	When   string      // [Running], [Stopped] or [Down]
	Name   string      // of the column, if what is killed does not tell the columns apart
}

// String returns the name of the column: "shim KILL, running".
func (d Death) String() string {
	if d.Name != "" {
		return d.Name
	}
	return fmt.Sprintf("%s %s, %s", d.Killed, d.SignalName(), d.When)
}

// SignalName returns the name of the signal as kill(1) takes it: "KILL".
func (d Death) SignalName() string { return strings.TrimPrefix(unix.SignalName(d.Signal), "SIG") }
