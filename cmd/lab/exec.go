package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"cdblab/helpers/vm"
	"cdblab/helpers/vm/wire"
)

// execMain is the program of go test -exec.
func execMain(args []string) int {
	set := flag.NewFlagSet("lab exec", flag.ExitOnError)
	r := &vm.Runner{Say: say, Stdout: os.Stdout, Stderr: os.Stderr}
	r.Flags(set)
	set.Usage = func() {
		fmt.Fprintln(set.Output(), "usage: go test -exec 'lab exec [FLAG...]' …")
		set.PrintDefaults()
	}
	_ = set.Parse(args)
	if set.NArg() == 0 {
		set.Usage()
		return 2
	}
	start := time.Now()
	ctx, orders := signals()
	r.Orders = orders
	tally := vm.Tally(r)
	code, err := run(r, func() (int, error) { return r.Test(ctx, set.Args()) })
	if err == nil {
		say("%s; %s, cgroup %s, %s, %d MB, %d CPUs; %.1f s", tally(code), "Linux "+r.Kernel.Release, r.Cgroup, r.Using, r.Memory, r.CPUs, time.Since(start).Seconds())
	}
	return code
}

// run turns a failure of the machine into words and an exit code of its own.
func run(r *vm.Runner, f func() (int, error)) (int, error) {
	cache, err := vm.OpenCache()
	if err == nil {
		r.Cache = cache
		var code int
		if code, err = f(); err == nil {
			return code, nil
		}
	}
	say("%v", err)
	var s *vm.Stopped
	if errors.As(err, &s) {
		return s.Code, err
	}
	say("this says nothing about the tests: the machine failed (exit code %d)", vm.FaultCode)
	return vm.FaultCode, err
}

// signals are for the wrapper to end by, or for the command. SIGQUIT asks a Go program for its goroutines, and that
// is the command's to answer.
func signals() (context.Context, <-chan wire.Order) {
	ctx, cancel := context.WithCancelCause(context.Background())
	orders := make(chan wire.Order)
	c := make(chan os.Signal, 4)
	signal.Notify(c, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	go func() {
		for s := range c {
			n := s.(syscall.Signal)
			if n != syscall.SIGQUIT {
				cancel(&vm.Stopped{Code: 128 + int(n)})
				continue
			}
			go func() { orders <- wire.Order{Signal: int(n)} }()
			// A command that does not answer is not waited for.
			time.AfterFunc(10*time.Second, func() { cancel(&vm.Stopped{Code: 128 + int(n)}) })
		}
	}()
	return ctx, orders
}

func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "lab: "+format+"\n", args...)
}
