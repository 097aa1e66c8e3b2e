package main

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"cdblab/helpers/vm/protocol"
)

// terminal is a pseudo terminal. Its master is connected to the stdout port, in both directions.
type terminal struct {
	master, slave, port *os.File
	sent                int64 // bytes written to the port
	done                chan struct{}
}

func newTerminal() (*terminal, error) {
	m, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
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
	return &terminal{master: os.NewFile(uintptr(m), "ptmx"), slave: slave, port: port, done: make(chan struct{})}, err
}

// start connects the master and the port. The command has the slave by now.
func (t *terminal) start() {
	t.slave.Close()
	go func() { _, _ = copyAll(t.master, t.port) }()
	go func() {
		defer close(t.done)
		t.sent, _ = copyAll(t.port, t.master)
	}()
}

func (t *terminal) resize(rows, cols int) {
	_ = unix.IoctlSetWinsize(int(t.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(rows), Col: uint16(cols)})
}

// finish waits for the last output, and returns how many bytes were sent. A read of the master fails with EIO when the
// last slave is closed. A process in a frozen cgroup may keep the slave open, so finish waits no longer than two seconds.
func (t *terminal) finish() int64 {
	select {
	case <-t.done:
	case <-time.After(2 * time.Second):
	}
	return t.sent
}

func copyAll(to, from *os.File) (int64, error) {
	var total int64
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			w, werr := to.Write(buf[:n])
			total += int64(w)
			if werr != nil {
				return total, werr
			}
		}
		if err != nil {
			return total, err
		}
	}
}
