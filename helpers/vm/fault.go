package vm

import (
	"fmt"
	"strings"
)

// FaultCode is the exit code that says: the machine failed, and nothing is known about the command. It is none that
// go test's binaries use, and the one that env(1), timeout(1) and docker run take for the same.
const FaultCode = 125

// A Fault is a failure of the machine or of its making, never of the command that ran in it.
type Fault struct {
	Tried   string // what was being done
	Seen    string // what was seen instead
	Do      string // what the reader can do about it
	Console string // the last lines of the guest's console, where there was a guest
}

func (f *Fault) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", f.Tried, f.Seen)
	if c := strings.TrimSpace(f.Console); c != "" {
		fmt.Fprintf(&b, "\n  the last lines of the guest's console:\n    | %s", strings.ReplaceAll(c, "\n", "\n    | "))
	}
	if f.Do != "" {
		fmt.Fprintf(&b, "\n  what to do: %s", f.Do)
	}
	return b.String()
}

// tail is the last n lines, without the control characters with which a serial console clears screens.
func tail(console string, n int) string {
	console = strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' {
			return -1
		}
		return r
	}, console)
	lines := strings.Split(strings.TrimSpace(console), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
