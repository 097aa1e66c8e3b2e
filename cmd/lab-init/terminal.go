package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"cdblab/helpers/vm/protocol"
)

// terminal is a pseudo terminal. Its master is connected to the stdout port, in both directions. The output is pumped like
// that of a pipe: r is the master, and w is the slave, which the command gets.
type terminal struct{ outputPump }

func newTerminal() (*terminal, error) {
	// O_NONBLOCK, so that Go uses its poller: a read of the master must be able to have a deadline.
	m, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.IoctlSetPointerInt(m, unix.TIOCSPTLCK, 0); err != nil {
		return nil, err
	}
	n, err := unix.IoctlGetInt(m, unix.TIOCGPTN)
	if err != nil {
		return nil, err
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	port, err := openPort(protocol.StdoutPort)
	return &terminal{outputPump{r: os.NewFile(uintptr(m), "ptmx"), w: slave, port: port, done: make(chan struct{})}}, err
}

// startInput begins to copy the host's input to the command.
func (t *terminal) startInput() {
	go func() {
		buf := make([]byte, 16<<10)
		for {
			n, err := t.port.Read(buf)
			if n > 0 {
				if _, err := t.r.Write(buf[:n]); err != nil {
					return
				}
			}
			if err != nil {
				return
			}
		}
	}()
}

func (t *terminal) resize(rows, cols int) {
	conn, err := t.r.SyscallConn() // not Fd: it could make the master a blocking file
	if err != nil {
		return
	}
	_ = conn.Control(func(fd uintptr) {
		_ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(rows), Col: uint16(cols)})
	})
}
