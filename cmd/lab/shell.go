//go:build linux

package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"

	"cdblab/helpers/release"
	"cdblab/helpers/vm"
	"cdblab/helpers/vm/protocol"
)

// shellMain runs a shell on a terminal in the VM. All input goes to the guest, Ctrl-C as well.
func shellMain(args []string) int {
	command := &vm.Command{Log: logf, Stdout: os.Stdout, Stderr: os.Stderr, Stdin: os.Stdin}
	flags := flag.NewFlagSet("lab shell", flag.ExitOnError)
	command.Flags(flags)
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "usage: lab shell [FLAG...]")
		flags.PrintDefaults()
	}
	_ = flags.Parse(args)
	terminal := int(os.Stdin.Fd())
	if !term.IsTerminal(terminal) {
		logf("lab shell needs a terminal, but its standard input is none. To run a command without a terminal, write a test: go test -exec 'lab exec'")
		return 2
	}
	if err := release.Resolve(context.Background()); err != nil {
		logf("%v", err)
		return vm.FaultCode
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	go func() { cancel(&vm.Stopped{Code: 128 + int((<-stop).(syscall.Signal))}) }()

	requests := make(chan protocol.Request)
	command.Requests = requests
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	size := func() protocol.Request {
		cols, rows, err := term.GetSize(terminal)
		if err != nil || rows == 0 {
			cols, rows = 80, 24
		}
		return protocol.Request{Rows: rows, Cols: cols}
	}
	go func() {
		for range resized {
			requests <- size()
		}
	}()
	logf("booting. `exit` ends the shell and throws the machine away")
	// The terminal becomes raw only when the guest is ready. Until then Ctrl-C stops the wrapper.
	restore := func() {}
	command.OnReady = func() {
		if state, err := term.MakeRaw(terminal); err == nil {
			restore = func() { _ = term.Restore(terminal, state) }
		}
		go func() { requests <- size() }()
	}
	result, err := runInVM(ctx, command)
	restore() // before an error is printed
	return exitCode(result, err)
}
