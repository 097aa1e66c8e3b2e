//go:build linux

package vm

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
)

// FaultCode is the exit code for a failure of the machine: nothing is known about the command. No test binary of go
// test uses this code, and env(1), timeout(1) and docker run use it for the same purpose.
const FaultCode = 125

// A Fault is a failure of the machine, or of a step that prepares it. It is never a failure of the command that ran in
// the machine.
type Fault struct {
	Tried   string // what was tried
	Seen    string // what was seen instead
	Do      string // what the reader can do about it
	Console string // the last lines of the guest's console, if there was a guest
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

// diskFault returns a Fault for a file in dir that could not be written. It names a remedy for the usual reasons: the
// disk is full, or the directory belongs to another user.
func diskFault(tried, dir string, err error) *Fault { return spaceNeeded(tried, dir, err, labSpace) }

// spaceNeeded is diskFault for a run that needs so many bytes.
func spaceNeeded(tried, dir string, err error, space int64) *Fault {
	f := &Fault{Tried: tried, Seen: err.Error()}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		free, _ := freeSpace(dir)
		f.Do = fmt.Sprintf("make room on the disk of %s: %d MB are free, %d MB are enough. Everything in this directory may be removed; "+
			"the lab fetches and builds it again", dir, free>>20, space>>20)
	} else if strings.Contains(err.Error(), "permission") {
		f.Do = makeWritable(dir)
	}
	return f
}

func makeWritable(dir string) string {
	return "make " + dir + " writable for you (a run as root may have created it)"
}

// asFault returns err if it is a Fault, and otherwise a [diskFault].
func asFault(tried, dir string, err error) error {
	if _, ok := errors.AsType[*Fault](err); ok {
		return err
	}
	return diskFault(tried, dir, err)
}
