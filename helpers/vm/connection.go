//go:build linux

package vm

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"cdblab/helpers/vm/protocol"
)

// connection is a socket to QEMU: one end is ours, QEMU gets the other end as an open file. It has no name that could
// be left behind or taken by another process, and it ends when either side ends.
type connection struct {
	net.Conn
	qemuEnd *os.File
}

func newConnection(name string) (*connection, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	ours := os.NewFile(uintptr(fds[0]), name)
	defer ours.Close() // FileConn duplicates it
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, err
	}
	return &connection{Conn: conn, qemuEnd: os.NewFile(uintptr(fds[1]), name)}, nil
}

// receiveMessages decodes the guest's messages until the control port ends.
func receiveMessages(port io.Reader) <-chan protocol.Message {
	out := make(chan protocol.Message)
	go func() {
		defer close(out)
		for d := json.NewDecoder(port); ; {
			var m protocol.Message
			if d.Decode(&m) != nil {
				return
			}
			out <- m
		}
	}()
	return out
}

// copier copies from a port to a writer and counts the bytes, so that the caller can wait for a number of bytes.
type copier struct {
	mu       sync.Mutex
	copied   int64
	ended    bool
	err      error // of the writer
	progress chan struct{}
}

func startCopy(from io.Reader, to io.Writer) *copier {
	c := &copier{progress: make(chan struct{}, 1)}
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := from.Read(buf)
			var writeErr error
			if n > 0 {
				_, writeErr = to.Write(buf[:n])
			}
			c.mu.Lock()
			c.copied += int64(n)
			if writeErr != nil && c.err == nil {
				c.err = writeErr // and read on: a guest whose output blocks would never end
			}
			c.ended = err != nil
			c.mu.Unlock()
			select {
			case c.progress <- struct{}{}:
			default:
			}
			if err != nil {
				return
			}
		}
	}()
	return c
}

// waitFor waits until size bytes have arrived and were written.
func (c *copier) waitFor(size int64, timeout time.Duration) error {
	deadline := time.After(timeout)
	for {
		c.mu.Lock()
		copied, ended, err := c.copied, c.ended, c.err
		c.mu.Unlock()
		switch {
		case err != nil:
			return err
		case copied >= size:
			return nil
		case ended:
			return fmt.Errorf("only %d of %d bytes arrived", copied, size)
		}
		select {
		case <-c.progress:
		case <-deadline:
			return fmt.Errorf("only %d of %d bytes arrived within %v", copied, size, timeout)
		}
	}
}

// tailBuffer keeps the last part of what is written to it, at least 64 KiB.
type tailBuffer struct {
	mu   sync.Mutex
	b    []byte
	copy io.Writer // receives everything; may be nil
}

func (t *tailBuffer) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.copy != nil {
		_, _ = t.copy.Write(b)
	}
	t.b = append(t.b, b...)
	if len(t.b) > 128<<10 {
		t.b = append([]byte(nil), t.b[len(t.b)-64<<10:]...)
	}
	return len(b), nil
}

func (t *tailBuffer) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}
