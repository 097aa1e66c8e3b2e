//go:build linux

package host

import (
	"os"
	"testing"
)

// parseStat returns a state for every stat file that it accepts, whatever characters the name of the process has.
func FuzzStat(f *testing.F) {
	own, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(own))
	f.Add("7 (a) b (c)) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 1234 0 0")
	f.Add(") (")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parseStat(text)
		if err == nil && p.State == "" {
			t.Errorf("no state in %q", text)
		}
	})
}
