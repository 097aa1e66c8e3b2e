//go:build linux

package proc

import (
	"os"
	"strings"
	"testing"
)

// statusField returns only fields that the file has, on one line, whatever the file contains.
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
			t.Errorf("no field was found, but its value is %q", value)
		}
		if ok && (strings.ContainsAny(value, "\n") || !strings.Contains(text, key+":")) {
			t.Errorf("field %q is %q in %q", key, value, text)
		}
	})
}

// parseSyscall never returns both a system call and an error, whatever the file contains.
func FuzzSyscall(f *testing.F) {
	for _, s := range []string{"running\n", "-1 0x7ffd 0x7f\n", "257 0xffffff9c 0x7f 0x80001 0x0 0x0 0x0 0x7ffd 0x7f\n", "", "257 0x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		call, ok, err := parseSyscall(text)
		if err != nil && ok {
			t.Errorf("got both the system call %v and the error %v", call, err)
		}
		if ok && call.Number < 0 && call.Number != -1 {
			t.Logf("system call %d", call.Number)
		}
	})
}
