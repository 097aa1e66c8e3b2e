package main

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"cdblab/helpers/vm/wire"
)

// terminal is a pseudo terminal whose master is carried over the stdout port, both ways.
type terminal struct {
	master, slave, port *os.File
	n                   int64
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
	port, err := openPort(wire.Stdout)
	return &terminal{master: os.NewFile(uintptr(m), "ptmx"), slave: slave, port: port, done: make(chan struct{})}, err
}

func (t *terminal) start() {
	t.slave.Close()
	go func() { _, _ = copyAll(t.master, t.port) }()
	go func() {
		defer close(t.done)
		t.n, _ = copyAll(t.port, t.master)
	}()
}

func (t *terminal) resize(rows, cols int) {
	_ = unix.IoctlSetWinsize(int(t.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(rows), Col: uint16(cols)})
}

func (t *terminal) finish() int64 {
	// The master says EIO when the last slave is closed; a process in a frozen cgroup may keep it open.
	select {
	case <-t.done:
	case <-time.After(2 * time.Second):
	}
	return t.n
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
