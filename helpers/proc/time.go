//go:build linux

package proc

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ticksPerSecond is USER_HZ, in which /proc counts time on every architecture that the lab runs on.
const ticksPerSecond = 100

// At turns a time after boot into a time of the day. It is as exact as a tick: 10 ms, rounded down.
func (t Ticks) At(tb testing.TB) time.Time {
	tb.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		tb.Fatalf("read the time since boot: %v", err)
	}
	boot := time.Now().Add(-time.Duration(now.Nano()))
	return boot.Add(time.Duration(t) * time.Second / ticksPerSecond)
}
