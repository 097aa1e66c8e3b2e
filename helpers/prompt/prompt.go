//go:build linux

// Package prompt stops a program at its terminal until the person there says how to go on.
package prompt

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Terminal is the controlling terminal of this process. Standard input cannot be used: `go test` gives a test /dev/null as
// standard input, also where the reader sits at a terminal.
type Terminal struct {
	tty   *os.File
	lines *bufio.Reader
}

// Open opens the controlling terminal. It is an error if there is none.
func Open() (*Terminal, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("this process has no terminal: %w", err)
	}
	return &Terminal{tty: tty, lines: bufio.NewReader(tty)}, nil
}

// Write shows text.
func (t *Terminal) Write(text []byte) (int, error) { return t.tty.Write(text) }

// Close closes the terminal.
func (t *Terminal) Close() error { return t.tty.Close() }

// Wait shows the prompt and waits for a line. An empty line goes on, and q ends. Any other line is a shell command: it runs
// here, and then Wait asks again. command prepares a program such as sh with its directory and environment.
//
// Wait reports whether to go on. The end of the input (Ctrl-D) ends as q does.
func (t *Terminal) Wait(prompt string, command func(argv ...string) *exec.Cmd) (goOn bool) {
	for {
		fmt.Fprint(t, prompt)
		line, err := t.lines.ReadString('\n')
		switch line = strings.TrimSpace(line); {
		case err != nil:
			fmt.Fprintln(t)
			return false
		case line == "":
			return true
		case line == "q":
			return false
		}
		if err := t.run(command("sh", "-c", line)); err != nil {
			fmt.Fprintln(t, err)
		}
	}
}

// run runs a command at the terminal. While it runs it has the terminal to itself, as a shell does it: Ctrl-C ends the
// command, and not this program.
func (t *Terminal) run(c *exec.Cmd) error {
	c.Stdin, c.Stdout, c.Stderr = t.tty, t.tty, t.tty
	c.SysProcAttr = &syscall.SysProcAttr{Foreground: true, Ctty: int(t.tty.Fd())}
	// The command must not be suspended (Ctrl-Z): nothing could continue it. And a process that is not in the foreground may take
	// the terminal back only while it ignores SIGTTOU (tcsetpgrp(3)).
	signal.Ignore(unix.SIGTSTP, unix.SIGTTOU)
	defer signal.Reset(unix.SIGTSTP, unix.SIGTTOU)
	err := c.Run()
	return errors.Join(err, unix.IoctlSetPointerInt(int(t.tty.Fd()), unix.TIOCSPGRP, unix.Getpgrp()))
}

var _ io.Writer = (*Terminal)(nil)
