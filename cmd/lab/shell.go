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
	"cdblab/helpers/signals"
	"cdblab/helpers/vm"
	"cdblab/helpers/vm/protocol"
)

// shellMain runs a shell on a terminal in the VM. All input goes to the guest, Ctrl-C as well.
func shellMain(args []string) int {
	command := &vm.Command{Log: logf, Stdout: os.Stdout, Stderr: os.Stderr}
	flags := flag.NewFlagSet("lab shell", flag.ExitOnError)
	command.Flags(flags)
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "usage: lab shell [FLAG...]")
		flags.PrintDefaults()
	}
	_ = flags.Parse(args)
	if command.Disk != "" {
		if err := checkNoProgram(os.Getenv); err != nil {
			logf("%v", err)
			return vm.FaultCode
		}
	}
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		logf("lab shell needs a terminal, but its standard input is none. To run a command without a terminal, write a test: go test -exec 'lab exec'")
		return 2
	}
	if err := release.Resolve(context.Background()); err != nil {
		logf("%v", err)
		return vm.FaultCode
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, signals.Heeded(syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)...)
	go func() { cancel(&vm.Stopped{Code: 128 + int((<-stop).(syscall.Signal))}) }()

	requests := make(chan protocol.Request)
	command.Requests = requests
	detach := attachTerminal(command, os.Stdin, requests)
	logf("booting. `exit` ends the shell and throws the machine away")
	result, err := runInVM(ctx, command)
	detach()
	return exitCode(result, err)
}
