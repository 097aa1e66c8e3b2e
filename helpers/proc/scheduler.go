//go:build linux

package proc

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
)

// Scheduler is the scheduling policy of a process, with its numbers (sched_setattr(2)).
type Scheduler struct {
	Policy, Priority          uint32
	Flags                     uint64
	Runtime, Deadline, Period uint64 // in nanoseconds
}

func (s Scheduler) String() string {
	return fmt.Sprintf("policy %d, flags %d, priority %d, %d ns before %d of %d",
		s.Policy, s.Flags, s.Priority, s.Runtime, s.Deadline, s.Period)
}

// SchedulerOf returns the scheduling policy of a process, as sched_getattr(2) returns it.
func SchedulerOf(tb testing.TB, pid PID) Scheduler {
	tb.Helper()
	a, err := unix.SchedGetAttr(int(pid), 0)
	assert.NilError(tb, err)
	s := Scheduler{a.Policy, a.Priority, a.Flags, a.Runtime, a.Deadline, a.Period}
	if s.Policy == unix.SCHED_NORMAL {
		s.Runtime = 0 // newer kernels have a run time for ordinary programs too: their slice
	}
	return s
}

// TryScheduler gives a process a scheduling policy, and then the ordinary one again. It returns the error of the kernel, which
// refuses some policies to a process of some cgroups.
func TryScheduler(pid PID, s Scheduler) error {
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: s.Policy, Flags: s.Flags, Priority: s.Priority,
		Runtime: s.Runtime, Deadline: s.Deadline, Period: s.Period}
	if err := unix.SchedSetAttr(int(pid), &attr, 0); err != nil {
		return err
	}
	return unix.SchedSetAttr(int(pid), &unix.SchedAttr{Size: unix.SizeofSchedAttr}, 0)
}
