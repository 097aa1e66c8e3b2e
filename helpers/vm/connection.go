//go:build linux

package vm

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode"

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

// What a sane guest sends at most. A guest that sends more is cut off with a Fault: it must not fill the host's disk or
// memory, nor keep the wrapper busy for ever.
const (
	// The longest line on the control port. The lines of pid 1 have less than 200 bytes; the longest ones quote the error of
	// a program that could not be started, with its path of at most 4096 bytes.
	maxLine = 64 << 10
	// Messages at once, and one more each second. Pid 1 sends a heartbeat every two seconds, and a few notes. The number
	// grows with the time, not with the last message: after Ctrl-Z and fg, all the heartbeats in between arrive at once.
	maxMessages = 600
	// Bytes of result files: both the archive that the guest sends and the files in it, because an archive can hold a sparse
	// file that is much larger than the archive. Transcripts and profiles of all questions have some ten megabytes.
	maxResultBytes = 1 << 30
	// Result files and directories. A run of all questions has some hundred.
	maxResultFiles = 10_000
)

// receiveMessages decodes the guest's messages until the control port ends. The channel fail gets one error, if the guest
// sends something that no pid 1 of ours sends; after it nothing more is read. Both channels are for one reader, which may
// leave: done tells receiveMessages that it has left.
func receiveMessages(port io.Reader, done <-chan struct{}) (<-chan protocol.Message, <-chan error) {
	messages, fail := make(chan protocol.Message), make(chan error, 1)
	go func() {
		lines := bufio.NewScanner(port)
		lines.Buffer(nil, maxLine)
		start := time.Now()
		for count := 1; lines.Scan(); count++ {
			if took := time.Since(start); count > maxMessages+int(took.Seconds()) {
				fail <- fmt.Errorf("the guest sent %d messages on the control port within %v", count, took)
				return
			}
			m, err := parseMessage(lines.Bytes())
			if err != nil {
				fail <- err
				return
			}
			select {
			case messages <- m:
			case <-done:
				return
			}
		}
		if errors.Is(lines.Err(), bufio.ErrTooLong) {
			fail <- fmt.Errorf("the guest sent a line of more than %d bytes on the control port", maxLine)
			return
		}
		close(messages)
	}()
	return messages, fail
}

// parseMessage decodes a line from the control port, and checks that it is a message that pid 1 may send.
func parseMessage(line []byte) (protocol.Message, error) {
	var m protocol.Message
	err := json.Unmarshal(line, &m)
	fields := 0
	for _, set := range []bool{m.Ready, m.Alive, m.Note != "", m.Fault != "", m.Exit != nil} {
		if set {
			fields++
		}
	}
	switch {
	case err != nil:
	case fields != 1:
		err = fmt.Errorf("it has %d fields, not one", fields)
	case strings.ContainsFunc(m.Note+m.Fault, isControlCharacter):
		err = errors.New("its text has control characters")
	case m.Exit != nil && (m.Exit.Code < 0 || m.Exit.Code > 255 || m.Exit.Signal < 0 || m.Exit.Signal > 64):
		err = errors.New("no process ends with such an exit code or signal")
	case m.Available < 0 || m.Available > 0 && !m.Alive:
		err = errors.New("no heartbeat has this memory")
	case m.Exit != nil && (m.Exit.Stdout < 0 || m.Exit.Stderr < 0 || m.Exit.Results < 0):
		err = errors.New("a number of bytes is negative")
	}
	if err != nil {
		return m, fmt.Errorf("the guest sent the line %.200q on the control port, which is no message of pid 1: %w", line, err)
	}
	return m, nil
}

// isControlCharacter reports whether r could change what the reader's terminal shows, except the end of a line and a tab.
func isControlCharacter(r rune) bool {
	return unicode.IsControl(r) && r != '\n' && r != '\t'
}

// limitedWriter passes at most left bytes to w. A longer write fails, and is not passed.
type limitedWriter struct {
	w    io.Writer
	left int64
}

var errTooMuch = errors.New("the guest sent more than the limit")

func (l *limitedWriter) Write(b []byte) (int, error) {
	if int64(len(b)) > l.left {
		return 0, errTooMuch
	}
	l.left -= int64(len(b))
	return l.w.Write(b)
}

// copier copies from a port to a writer and counts the bytes, so that the caller can wait for a number of bytes.
type copier struct {
	mu       sync.Mutex
	copied   int64
	ended    bool
	err      error // of the writer
	progress chan struct{}
	failed   chan struct{} // closed when the writer has failed
}

func startCopy(from io.Reader, to io.Writer) *copier {
	c := &copier{progress: make(chan struct{}, 1), failed: make(chan struct{})}
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
				close(c.failed)
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

// waitFor waits until size bytes have arrived and were written, or until ctx ends.
func (c *copier) waitFor(ctx context.Context, size int64, timeout time.Duration) error {
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
		case <-ctx.Done():
			return context.Cause(ctx)
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
