//go:build linux

package proc

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
)

// BoundTo calls act while the calling thread is bound to one CPU. Commands that act starts inherit the binding.
func BoundTo(tb testing.TB, cpu int, act func()) {
	tb.Helper()
	runtime.LockOSThread() // fork(2) copies the affinity of the thread that calls it
	defer runtime.UnlockOSThread()
	var before, one unix.CPUSet
	one.Set(cpu)
	assert.NilError(tb, unix.SchedGetaffinity(0, &before))
	assert.NilError(tb, unix.SchedSetaffinity(0, &one))
	defer func() { assert.Check(tb, unix.SchedSetaffinity(0, &before)) }()
	act()
}
