//go:build linux

package proc

import (
	"testing"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/poll"
)

// ticksPerSecond is USER_HZ. /proc counts time in it on every architecture that the lab runs on.
const ticksPerSecond = 100

// At returns the wall-clock time of a time after boot. It is as exact as a tick: 10 ms, rounded down.
func (t Ticks) At(tb testing.TB) time.Time {
	tb.Helper()
	return BootTime(tb).Add(time.Duration(t) * time.Second / ticksPerSecond)
}

// BootTime returns the wall-clock time of the boot. It is another one when the wall clock has been set.
func BootTime(tb testing.TB) time.Time {
	tb.Helper()
	var boot time.Time
	for range 5 {
		var sinceBoot unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &sinceBoot); err != nil {
			tb.Fatalf("read the time since boot: %v", err)
		}
		now := time.Now().Round(0) // without the monotonic reading, which does not notice that the clock is set
		// Between the two readings this thread may have to wait, and then the time is too late: the earliest one is the best.
		if at := now.Add(-time.Duration(sinceBoot.Nano())); boot.IsZero() || at.Before(boot) {
			boot = at
		}
	}
	return boot
}

// UsedTicks returns the processor time that the process has used, in user and kernel mode, in ticks of 1/100 s (utime and
// stime of proc(5)).
func UsedTicks(tb testing.TB, pid PID) uint64 {
	tb.Helper()
	n, err := usedTicks(pid)
	if err != nil {
		tb.Fatalf("processor time of process %d: %v", pid, err)
	}
	return n
}

func usedTicks(pid PID) (uint64, error) {
	p, err := procfs.NewProc(int(pid))
	if err != nil {
		return 0, err
	}
	stat, err := p.Stat()
	return uint64(stat.UTime + stat.STime), err
}

// HasUsed returns a check that succeeds when the process has used at least this processor time, in ticks.
func HasUsed(pid PID, ticks uint64) poll.Check {
	return func(poll.LogT) poll.Result {
		n, err := usedTicks(pid)
		if err != nil {
			return poll.Error(err)
		}
		if n < ticks {
			return poll.Continue("process %d has used %d ticks of processor time, not yet %d", pid, n, ticks)
		}
		return poll.Success()
	}
}
