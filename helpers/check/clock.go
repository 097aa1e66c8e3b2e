//go:build linux

package check

import (
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"cdblab/helpers/proc"
)

// Clock compares times of different sources. The kernel counts the start of a process from boot, and shows it in ticks of
// 10 ms. An event has the time of the wall clock, which may be set while the question is asked, for instance by NTP.
type Clock struct{ boot time.Time }

// StartClock notes how both clocks stand. Call it before the first of the times.
func StartClock(tb testing.TB) Clock {
	tb.Helper()
	return Clock{proc.BootTime(tb)}
}

// InOrder asserts that the first moment is not later than the second. It may seem to be later by one tick, and by as much as
// the wall clock was set since StartClock.
func (c Clock) InOrder(tb testing.TB, first string, firstTime time.Time, second string, secondTime time.Time) {
	tb.Helper()
	const tick = 10 * time.Millisecond
	wasSet := proc.BootTime(tb).Sub(c.boot).Abs()
	assert.Check(tb, !firstTime.After(secondTime.Add(tick+wasSet)), "%s (%v) is later than %s (%v); meanwhile the wall clock was set by %v",
		first, firstTime, second, secondTime, wasSet)
}
