//go:build linux

package proc

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

// Bytes is an amount of memory. It is volatile: it is different in each run.
type Bytes int64

// Volatile returns the kind "size" (see lab.Volatile).
func (Bytes) Volatile() string { return "size" }

// Measured marks an amount as measured: two amounts may be equal by chance.
func (Bytes) Measured() {}

func (b Bytes) String() string { return fmt.Sprintf("%.1f MB", float64(b)/(1<<20)) }

// Anonymous returns the memory of a process that has no file behind it, such as its heap: unlike [PSS], it does not change when another
// process maps the same program, or ends.
func Anonymous(tb testing.TB, pid PID) Bytes { tb.Helper(); return rollup(tb, pid, "Anonymous") }

// PSS returns the process's proportional share of memory (proc_pid_smaps(5), smaps_rollup). A page that n processes share
// counts as 1/n of a page for each of them, so the sum over all processes is the memory that is really used.
func PSS(tb testing.TB, pid PID) Bytes { tb.Helper(); return rollup(tb, pid, "Pss") }

// rollup returns a value of smaps_rollup.
func rollup(tb testing.TB, pid PID, key string) Bytes {
	tb.Helper()
	data, err := os.ReadFile(path(pid, "smaps_rollup"))
	if err != nil {
		tb.Fatalf("read the memory usage of process %d: %v", pid, err)
	}
	return kilobytes(tb, string(data), key)
}

// kilobytes returns the value of a line "key: N kB".
func kilobytes(tb testing.TB, text, key string) Bytes {
	tb.Helper()
	field, ok := statusField(text, key)
	n, err := strconv.ParseInt(strings.TrimSuffix(field, " kB"), 10, 64)
	if !ok || err != nil {
		tb.Fatalf("expected a line \"%s: N kB\" in:\n%s", key, text)
	}
	return Bytes(n << 10)
}
