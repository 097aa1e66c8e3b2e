//go:build linux

package proc

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

// Bytes is an amount of memory. It is volatile: two runs never agree on it.
type Bytes int64

// Volatile is the word that stands for a size where two runs are compared.
func (Bytes) Volatile() string { return "size" }

func (b Bytes) String() string { return fmt.Sprintf("%.1f MB", float64(b)/(1<<20)) }

// PSS is the process's proportional share of memory (proc_pid_smaps(5), smaps_rollup): a page that n processes share
// counts as 1/n of a page in each, so that the shares of all processes add up to what is really used.
func PSS(tb testing.TB, pid PID) Bytes {
	tb.Helper()
	data, err := os.ReadFile(path(pid, "smaps_rollup"))
	if err != nil {
		tb.Fatalf("memory of process %d: %v", pid, err)
	}
	return kilobytes(tb, string(data), "Pss")
}

// Available is the memory that programs could still be given without swapping (proc_meminfo(5), MemAvailable).
func AvailableMemory(tb testing.TB) Bytes {
	tb.Helper()
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		tb.Fatalf("memory of this machine: %v", err)
	}
	return kilobytes(tb, string(data), "MemAvailable")
}

func kilobytes(tb testing.TB, text, key string) Bytes {
	tb.Helper()
	field, ok := statusField(text, key)
	n, err := strconv.ParseInt(strings.TrimSuffix(field, " kB"), 10, 64)
	if !ok || err != nil {
		tb.Fatalf("no line \"%s: N kB\" in:\n%s", key, text)
	}
	return Bytes(n << 10)
}
