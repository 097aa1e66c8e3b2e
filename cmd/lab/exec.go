//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"cdblab/helpers/dist"
	"cdblab/helpers/lab"
	"cdblab/helpers/signals"
	"cdblab/helpers/vm"
	"cdblab/helpers/vm/protocol"
)

// execMain runs a test binary in a VM. It is the program for go test -exec.
func execMain(args []string) int {
	logPrefix = "lab" // lab run finds the lines of the VM by it, also in the tarball
	command := &vm.Command{Log: logf, Stdout: os.Stdout, Stderr: os.Stderr}
	flags := flag.NewFlagSet("lab exec", flag.ContinueOnError)
	command.Flags(flags)
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "usage: go test -exec 'lab exec [FLAG...]' …")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return vm.FaultCode // also for -h: with exit code 0, go test -exec 'lab exec -h' would print "ok"
	}
	if flags.NArg() == 0 {
		flags.Usage()
		return vm.FaultCode
	}
	if err := checkSettings(); err != nil {
		return exitCode(nil, err)
	}
	start := time.Now()
	ctx, requests := forwardSignals()
	command.Args, command.Requests = flags.Args(), requests
	detach := func() {}
	if os.Getenv("CDB_STEP") == "1" {
		// go test gives a program no terminal as standard input, so a run that stops at each step opens it by its name.
		terminal, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
		if err != nil {
			logf("CDB_STEP=1 stops at each step until the reader presses a key, and this process has no terminal: %v\n"+
				"  at a terminal: make lab Q=Lifecycle_WhatIsTheDifference STEP=1", err)
			return vm.FaultCode
		}
		command.Stdout, command.Stderr = terminal, terminal
		detach = attachTerminal(command, terminal, requests)
	}
	result, err := runInVM(ctx, command)
	detach()
	switch {
	case err != nil:
	case command.Disk != "":
		logf("%s; %s, %s, %s, %d CPUs; %.1f s", result.TestSummary(), command.Disk,
			result.Config.Accel, result.Memory(), result.Config.CPUs, time.Since(start).Seconds())
	default:
		logf("%s; Linux %s, cgroup %s, %s, %s, %d CPUs; %.1f s", result.TestSummary(), result.Release,
			result.Config.Cgroup, result.Config.Accel, result.Memory(), result.Config.CPUs, time.Since(start).Seconds())
	}
	if err == nil && result.Advice() != "" {
		logf("%s", result.Advice())
	}
	return exitCode(result, err)
}

// checkSettings checks the variables that the questions read. The test binary checks them as well, but only after the build and the
// boot, and in lab steady in each of many runs.
func checkSettings() error {
	_, err := lab.CheckSettings()
	return err
}

// runInVM runs the command, with the cache of the module.
func runInVM(ctx context.Context, command *vm.Command) (*vm.Result, error) {
	vm.AllowForSlowness()
	cache, err := openCache()
	if err != nil {
		return nil, err
	}
	command.Cache = cache
	return command.Run(ctx)
}

// openCache returns the cache of the module, or, for the tarball, one of the user.
func openCache() (*vm.Cache, error) {
	if _, ok := dist.Find(); !ok {
		return vm.OpenCache()
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return nil, fmt.Errorf("find a directory for what the VM needs: %w. Set HOME", err)
	}
	return vm.NewCache(filepath.Join(dir, "cdblab"))
}

// machineFailed is what lab run finds in the output of a run whose machine failed: go test has exit code 1 then.
const machineFailed = "the machine failed, so nothing is known about the tests"

// exitCode returns the command's exit code. If the run was stopped, or if the machine failed, it reports the error and
// returns an exit code that says so.
func exitCode(result *vm.Result, err error) int {
	if err == nil {
		return result.ExitCode
	}
	logf("%v", err)
	if stopped, ok := errors.AsType[*vm.Stopped](err); ok {
		return stopped.Code
	}
	logf("%s (exit code %d)", machineFailed, vm.FaultCode)
	return vm.FaultCode
}

// forwardSignals returns a context that ends with SIGINT, SIGTERM or SIGHUP, and requests that forward SIGQUIT to the
// command: a Go program answers SIGQUIT with the stacks of its goroutines.
func forwardSignals() (context.Context, chan protocol.Request) {
	ctx, cancel := context.WithCancelCause(context.Background())
	requests := make(chan protocol.Request)
	received := make(chan os.Signal, 4)
	signal.Notify(received, append(signals.Stop(), syscall.SIGQUIT)...)
	go func() {
		for s := range received {
			n := s.(syscall.Signal)
			if n != syscall.SIGQUIT {
				cancel(&vm.Stopped{Code: 128 + int(n)})
				continue
			}
			go func() { requests <- protocol.Request{Signal: int(n)} }()
			// If the command does not end, the run is stopped.
			time.AfterFunc(10*time.Second, func() { cancel(&vm.Stopped{Code: 128 + int(n)}) })
		}
	}()
	return ctx, requests
}

// logPrefix is the name of this program in its messages.
var logPrefix = "lab"

// logf prints a message to the person at the terminal.
func logf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, logPrefix+": "+format+"\n", args...)
}
