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

	"cdblab/helpers/vm/wire"
)

// channel is a connection to QEMU: one end is ours, the other is given to QEMU as an open file. It has no name that
// could be left behind or be taken by somebody else, and it ends when either side does.
type channel struct {
	net.Conn
	theirs *os.File
}

func newChannel(name string) (*channel, error) {
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
	return &channel{Conn: conn, theirs: os.NewFile(uintptr(fds[1]), name)}, nil
}

// words decodes the guest's words until the channel ends.
func words(r io.Reader) <-chan wire.Word {
	out := make(chan wire.Word)
	go func() {
		defer close(out)
		for d := json.NewDecoder(r); ; {
			var w wire.Word
			if d.Decode(&w) != nil {
				return
			}
			out <- w
		}
	}()
	return out
}

// stream copies from a channel and counts, so that one can wait for a number of bytes to have arrived.
type stream struct {
	mu    sync.Mutex
	n     int64
	ended bool
	err   error // of the writer
	more  chan struct{}
}

func newStream(from io.Reader, to io.Writer) *stream {
	s := &stream{more: make(chan struct{}, 1)}
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := from.Read(buf)
			var werr error
			if n > 0 {
				_, werr = to.Write(buf[:n])
			}
			s.mu.Lock()
			s.n += int64(n)
			if werr != nil && s.err == nil {
				s.err = werr // and read on: a guest whose output blocks would never end
			}
			s.ended = err != nil
			s.mu.Unlock()
			select {
			case s.more <- struct{}{}:
			default:
			}
			if err != nil {
				return
			}
		}
	}()
	return s
}

// wait returns when n bytes have arrived and been written.
func (s *stream) wait(n int64, patience time.Duration) error {
	deadline := time.After(patience)
	for {
		s.mu.Lock()
		got, ended, err := s.n, s.ended, s.err
		s.mu.Unlock()
		switch {
		case err != nil:
			return err
		case got >= n:
			return nil
		case ended:
			return fmt.Errorf("only %d of %d bytes arrived", got, n)
		}
		select {
		case <-s.more:
		case <-deadline:
			return fmt.Errorf("only %d of %d bytes arrived within %v", got, n, patience)
		}
	}
}

// record keeps the end of what is written to it.
type record struct {
	mu   sync.Mutex
	b    []byte
	copy io.Writer // gets everything, too, if set
}

func (r *record) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.copy != nil {
		_, _ = r.copy.Write(b)
	}
	r.b = append(r.b, b...)
	if len(r.b) > 128<<10 {
		r.b = append([]byte(nil), r.b[len(r.b)-64<<10:]...)
	}
	return len(b), nil
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return string(r.b)
}
