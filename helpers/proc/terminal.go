//go:build linux

package proc

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/poll"
)

// TTYNumber returns the device number of a process's controlling terminal, or 0:0.
func TTYNumber(tb testing.TB, pid PID) string {
	tb.Helper()
	tty := uint64(Stat(tb, pid).TTY)
	return fmt.Sprintf("%d:%d", unix.Major(tty), unix.Minor(tty))
}

// TerminalSize returns the size of the terminal that a process has as its stdout, "rows columns", or an error in words. A shell that executes
// read <&3 has another stdin meanwhile.
func TerminalSize(pid PID) string {
	f, err := os.OpenFile(path(pid, "fd/1"), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprint(size.Row, " ", size.Col)
}

// HasTerminalSize returns a check that succeeds when the terminal of a process has this size. The kernel sends SIGWINCH to a client whose
// own terminal has a new size. A client that did not listen yet gets the signal again, once in a while; 0 is no client.
func HasTerminalSize(pid PID, want string, client PID) poll.Check {
	looks := 0
	return func(poll.LogT) poll.Result {
		got := TerminalSize(pid)
		if got == want {
			return poll.Success()
		}
		if looks++; client != 0 && looks%100 == 0 {
			_ = unix.Kill(int(client), unix.SIGWINCH)
		}
		return poll.Continue("the program's terminal has the size %s, not yet %s", got, want)
	}
}

// Masters returns the numbers of the pseudo terminals of which a process has the master, and which are in this devpts: the file system of a
// container's terminals, named by its device number. The kernel shows the number of the terminal in /proc/PID/fdinfo.
func Masters(tb testing.TB, pid PID, devpts uint64) []string {
	tb.Helper()
	numbers := []string{}
	for fd := range Snapshot(tb, pid).FDs {
		var stat unix.Stat_t
		if unix.Stat(filepath.Join(path(pid, "fd"), strconv.Itoa(fd)), &stat) != nil || stat.Dev != devpts {
			continue // it may be closed by now
		}
		info, _ := os.ReadFile(filepath.Join(path(pid, "fdinfo"), strconv.Itoa(fd)))
		if _, number, found := strings.Cut(string(info), "tty-index:"); found {
			numbers = append(numbers, strings.Fields(number)[0])
		}
	}
	slices.Sort(numbers)
	return numbers
}
