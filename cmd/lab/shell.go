package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"

	"cdblab/helpers/vm"
	"cdblab/helpers/vm/wire"
)

// shellMain gives a prompt in the VM. What is typed goes there whole, Ctrl-C too.
func shellMain(args []string) int {
	set := flag.NewFlagSet("lab shell", flag.ExitOnError)
	r := &vm.Runner{Say: say, Stdout: os.Stdout, Stderr: os.Stderr, Input: os.Stdin}
	r.Flags(set)
	set.Usage = func() {
		fmt.Fprintln(set.Output(), "usage: lab shell [FLAG...]")
		set.PrintDefaults()
	}
	_ = set.Parse(args)
	in := int(os.Stdin.Fd())
	if !term.IsTerminal(in) {
		say("lab shell needs a terminal. Commands without one are a test's: go test -exec 'lab exec'")
		return 2
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	go func() { cancel(&vm.Stopped{Code: 128 + int((<-stop).(syscall.Signal))}) }()

	orders := make(chan wire.Order)
	r.Orders = orders
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	size := func() wire.Order {
		cols, rows, err := term.GetSize(in)
		if err != nil || rows == 0 {
			cols, rows = 80, 24
		}
		return wire.Order{Rows: rows, Cols: cols}
	}
	go func() {
		for range resized {
			orders <- size()
		}
	}()
	say("booting; `exit` throws the machine away")
	// Raw only once the guest listens: until then Ctrl-C is for the wrapper.
	restore := func() {}
	r.Up = func() {
		if state, err := term.MakeRaw(in); err == nil {
			restore = func() { _ = term.Restore(in, state) }
		}
		go func() { orders <- size() }()
	}
	code, _ := run(r, func() (int, error) {
		defer func() { restore() }()
		return r.Shell(ctx)
	})
	return code
}
