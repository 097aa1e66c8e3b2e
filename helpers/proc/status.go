//go:build linux

package proc

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Status returns a field of /proc/PID/status by its name (proc_pid_status(5)), with one space between its words.
func Status(tb testing.TB, pid PID, key string) string {
	tb.Helper()
	data, err := os.ReadFile(path(pid, "status"))
	if err != nil {
		tb.Fatalf("read the status of process %d: %v", pid, err)
	}
	v, ok := statusField(string(data), key)
	if !ok {
		tb.Fatalf("/proc/%d/status has no field %q", pid, key)
	}
	return v
}

func statusField(status, key string) (string, bool) {
	for line := range strings.Lines(status) {
		if k, v, ok := strings.Cut(line, ":"); ok && k == key {
			return strings.Join(strings.Fields(v), " "), true
		}
	}
	return "", false
}

// Mask is a set of bits, which /proc/PID/status shows in hexadecimal. A signal has the bit of its number minus one, a
// capability has the bit of its number.
type Mask uint64

// Bits returns a field of /proc/PID/status that is a mask, such as SigCgt or CapEff.
func Bits(tb testing.TB, pid PID, key string) Mask {
	tb.Helper()
	m, err := mask(pid, key)
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

// SelfMask is Bits of this process.
func SelfMask(key string) (Mask, error) { return mask(PID(os.Getpid()), key) }

func mask(pid PID, key string) (Mask, error) {
	data, err := os.ReadFile(path(pid, "status"))
	if err != nil {
		return 0, err
	}
	field, _ := statusField(string(data), key)
	m, err := strconv.ParseUint(field, 16, 64)
	if err != nil {
		return 0, fmt.Errorf("%s of process %d: %w", key, pid, err)
	}
	return Mask(m), nil
}

// Has reports whether the bit of this number is set.
func (m Mask) Has(bit int) bool { return m&(1<<bit) != 0 }

// Signal reports whether the signal is in the mask.
func (m Mask) Signal(s unix.Signal) bool { return m.Has(int(s) - 1) }

func (m Mask) String() string { return fmt.Sprintf("%016x", uint64(m)) }

// InnerPID returns the process's pid in its own pid namespace (NSpid).
func InnerPID(tb testing.TB, pid PID) int {
	tb.Helper()
	f := strings.Fields(Status(tb, pid, "NSpid"))
	n, err := strconv.Atoi(f[len(f)-1])
	if err != nil {
		tb.Fatalf("NSpid of process %d: %v", pid, err)
	}
	return n
}

// Cwd returns the process's working directory, by its name in the process's mount namespace.
func Cwd(tb testing.TB, pid PID) string {
	tb.Helper()
	dir, err := os.Readlink(path(pid, "cwd"))
	if err != nil {
		tb.Fatalf("working directory of process %d: %v", pid, err)
	}
	return dir
}

// File returns the content of a file of /proc/PID, such as oom_score_adj, without the white space around it.
func File(tb testing.TB, pid PID, name string) string {
	tb.Helper()
	data, err := os.ReadFile(path(pid, name))
	if err != nil {
		tb.Fatalf("read /proc/%d/%s: %v", pid, name, err)
	}
	return strings.TrimSpace(string(data))
}

// Limit returns a resource limit, soft and hard, by its name in /proc/PID/limits ("Max open files").
func Limit(tb testing.TB, pid PID, name string) [2]string {
	tb.Helper()
	for line := range strings.Lines(File(tb, pid, "limits")) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			f := strings.Fields(rest)
			return [2]string{f[0], f[1]}
		}
	}
	tb.Fatalf("/proc/%d/limits has no line %q", pid, name)
	return [2]string{}
}

// IDs returns a field of /proc/PID/status that has four ids, such as Uid: real, effective, saved set, file system.
func IDs(tb testing.TB, pid PID, key string) []string {
	tb.Helper()
	return slices.Clip(strings.Fields(Status(tb, pid, key)))
}
