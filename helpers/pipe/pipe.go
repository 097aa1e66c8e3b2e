//go:build linux

// Package pipe looks at how much is in pipes and FIFOs.
package pipe

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/poll"

	"cdblab/helpers/proc"
)

// OpenReader opens a pipe or a FIFO for reading, without waiting for a writer. It is closed when the test ends.
func OpenReader(tb testing.TB, path string) *os.File {
	tb.Helper()
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	assert.NilError(tb, err)
	tb.Cleanup(func() {
		if err := f.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			tb.Errorf("close %s: %v", path, err)
		}
	})
	return f
}

// OpenWriter opens a FIFO for writing. It fails the test if no process has the FIFO open for reading.
func OpenWriter(tb testing.TB, path string) *os.File {
	tb.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NONBLOCK, 0)
	assert.NilError(tb, err, "no process reads %s", path)
	return f
}

// WriteLine writes a line to a FIFO, as [OpenWriter] opens it.
func WriteLine(tb testing.TB, path, line string) {
	tb.Helper()
	f := OpenWriter(tb, path)
	defer f.Close()
	_, err := f.WriteString(line + "\n")
	assert.NilError(tb, err)
}

// ReadToEnd reads a FIFO until its end, and returns what it has read. The end comes when no process has the FIFO open for writing.
func ReadToEnd(tb testing.TB, f *os.File) []byte {
	tb.Helper()
	assert.NilError(tb, f.SetReadDeadline(time.Now().Add(proc.Patience)))
	data, err := io.ReadAll(f)
	assert.NilError(tb, err, "%s has not come to an end; %d bytes were read", f.Name(), len(data))
	return data
}

// Buffered returns the number of bytes in a pipe (FIONREAD of pipe(7), which unix calls TIOCINQ), or -1 if the kernel
// does not report it.
func Buffered(f *os.File) int {
	return ask(f, func(fd int) (int, error) { return unix.IoctlGetInt(fd, unix.TIOCINQ) })
}

// Peek returns what is in a pipe, and leaves it there (tee(2)). f is open for reading.
func Peek(f *os.File) ([]byte, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	defer w.Close()
	from, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var n int64
	var failed error
	err = from.Control(func(fd uintptr) {
		n, failed = unix.Tee(int(fd), int(w.Fd()), 1<<20, unix.SPLICE_F_NONBLOCK)
	})
	if failed == unix.EAGAIN { // it is empty
		return nil, nil
	}
	if err := errors.Join(err, failed); err != nil {
		return nil, fmt.Errorf("look into %s: %w", f.Name(), err)
	}
	data := make([]byte, n)
	_, err = io.ReadFull(r, data)
	return data, err
}

// HasText returns a check that succeeds when a pipe has a text, which stays there.
func HasText(f *os.File, text string) poll.Check {
	return func(poll.LogT) poll.Result {
		data, err := Peek(f)
		if err != nil {
			return poll.Error(err)
		}
		if !bytes.Contains(data, []byte(text)) {
			return poll.Continue("%s has %q, not yet %q", f.Name(), data, text)
		}
		return poll.Success()
	}
}

// Capacity returns the number of bytes that fit into a pipe, or -1 if the kernel does not report it.
func Capacity(f *os.File) int {
	return ask(f, func(fd int) (int, error) { return unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0) })
}

// ask calls get with the descriptor of an open file and returns its result, or -1 if there is an error.
func ask(f *os.File, get func(fd int) (int, error)) int {
	n := -1
	raw, err := f.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			if got, err := get(int(fd)); err == nil {
				n = got
			}
		})
	}
	if err != nil {
		return -1
	}
	return n
}

// IsFull returns a check that succeeds when the pipe is full.
func IsFull(f *os.File) poll.Check {
	return func(poll.LogT) poll.Result {
		if n, capacity := Buffered(f), Capacity(f); n <= 0 || n != capacity {
			return poll.Continue("%s has %d bytes, and %d fit into it", f.Name(), n, capacity)
		}
		return poll.Success()
	}
}
