//go:build linux

package main

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"

	"cdblab/helpers/vm"
	"cdblab/helpers/vm/protocol"
)

// attachTerminal gives the input of a terminal of this machine to the command's terminal in the guest. The caller calls detach when the
// command has ended, and before it prints anything.
//
// The terminal becomes raw only when the guest is ready. Until then Ctrl-C stops the wrapper. Then all input goes to the guest,
// Ctrl-C as well.
func attachTerminal(command *vm.Command, terminal *os.File, requests chan<- protocol.Request) (detach func()) {
	command.Terminal, command.Stdin = true, terminal
	fd := int(terminal.Fd())
	size := func() protocol.Request {
		cols, rows, err := term.GetSize(fd)
		if err != nil || rows == 0 {
			cols, rows = 80, 24
		}
		return protocol.Request{Rows: rows, Cols: cols}
	}
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	go func() {
		for range resized {
			requests <- size()
		}
	}()
	restore := func() {}
	command.OnReady = func() {
		if state, err := term.MakeRaw(fd); err == nil {
			restore = func() { _ = term.Restore(fd, state) }
		}
		go func() { requests <- size() }()
	}
	return func() { restore() }
}
