package main

import (
	"bytes"
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
)

// A slow reader on the host blocks the port, and a process in a frozen cgroup keeps the pipe open. The bytes that wait in
// the pipe when the deadline passes are sent all the same.
func TestOutputPump_SlowReaderLosesNothing(t *testing.T) {
	lastOutputDelay = 100 * time.Millisecond
	r, w, err := os.Pipe()
	assert.NilError(t, err)
	frozen, err := unix.Dup(int(w.Fd()))
	assert.NilError(t, err)
	defer unix.Close(frozen)
	host, port, err := os.Pipe() // the port, and the host's end of it
	assert.NilError(t, err)
	p := &outputPump{r: r, w: w, port: port, done: make(chan struct{})}

	want := bytes.Repeat([]byte("0123456789abcdef"), 12<<10) // 192 KiB: one pipe, one buffer of the pump, and the port's pipe
	written := make(chan error, 1)
	go func() {
		_, err := unix.Write(frozen, want)
		written <- err
	}()
	p.start()
	assert.NilError(t, <-written)

	go func() {
		time.Sleep(3 * lastOutputDelay)
		_, _ = io.Copy(io.Discard, host)
	}()
	sent, err := p.finish()
	assert.NilError(t, err)
	assert.Equal(t, sent, int64(len(want)))
}
