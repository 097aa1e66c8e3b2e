//go:build linux

package proc

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"testing"
)

// ExeDigest is the sha256 of the program that the process runs, read through /proc/PID/exe: the very bytes, whatever
// name they have in the process's mount namespace, or if they have none any more.
func ExeDigest(tb testing.TB, pid PID) string {
	tb.Helper()
	f, err := os.Open(path(pid, "exe"))
	if err != nil {
		tb.Fatalf("read the program of process %d: %v", pid, err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		tb.Fatalf("read the program of process %d: %v", pid, err)
	}
	return fmt.Sprintf("sha256:%x", h.Sum(nil))
}
