//go:build linux

package proc

import (
	"os"
	"strings"
	"testing"
)

// Whatever a status file says, a field that is found has no line break, and stands in the file.
func FuzzStatus(f *testing.F) {
	own, err := os.ReadFile("/proc/self/status")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(own), "CapEff")
	f.Add("Name:\ta b\nUid:\t0\t0\t0\t0\n", "Uid")
	f.Add("Name", "Name")
	f.Fuzz(func(t *testing.T, text, key string) {
		value, ok := statusField(text, key)
		if !ok && value != "" {
			t.Errorf("no field, and yet %q", value)
		}
		if ok && (strings.ContainsAny(value, "\n") || !strings.Contains(text, key+":")) {
			t.Errorf("field %q is %q in %q", key, value, text)
		}
	})
}

// Whatever /proc/PID/syscall says, it is read or refused, and never both.
func FuzzSyscall(f *testing.F) {
	for _, s := range []string{"running\n", "-1 0x7ffd 0x7f\n", "257 0xffffff9c 0x7f 0x80001 0x0 0x0 0x0 0x7ffd 0x7f\n", "", "257 0x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		call, ok, err := parseSyscall(text)
		if err != nil && ok {
			t.Errorf("both %v and an error: %v", call, err)
		}
		if ok && call.Number < 0 && call.Number != -1 {
			t.Logf("system call %d", call.Number)
		}
	})
}
