//go:build linux

// Package signals is about the signals that this program inherited: ignored ones, as after nohup, and blocked ones.
package signals

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"

	"cdblab/helpers/proc"
)

// ignored are the signals that the caller ignores, as they were when this program began. Go ignores these by itself.
var ignored = slices.DeleteFunc([]os.Signal{unix.SIGINT, unix.SIGHUP}, func(s os.Signal) bool { return !signal.Ignored(s) })

// Stop returns the signals that ask this program to end: SIGINT, SIGTERM and SIGHUP, without those that its caller ignores.
// After `nohup make lab`, the end of the terminal does not end the run.
func Stop() []os.Signal { return Heeded(unix.SIGINT, unix.SIGTERM, unix.SIGHUP) }

// Heeded returns those of the signals that the caller does not ignore.
func Heeded(all ...os.Signal) []os.Signal {
	return slices.DeleteFunc(all, func(s os.Signal) bool { return slices.Contains(ignored, s) })
}

// PassOnNone makes the programs that this one starts begin with no signal ignored or blocked, whatever this program
// inherited. A container's process inherits both from the runtime, and a shell cannot trap a signal that was ignored when it began.
// What this program itself ignores, it still ignores.
//
// Go restores the inherited mask in each child. The only way to another one is to execute this program again with an empty mask,
// so call it before anything else.
func PassOnNone() error {
	if err := unblock(); err != nil {
		return fmt.Errorf("execute this program again, without the blocked signals of its caller: %w", err)
	}
	// A child begins with the default action for each signal that has a handler here. Go handles all signals from the beginning,
	// except these.
	inherited, err := proc.SelfMask("SigIgn")
	if err != nil {
		return err
	}
	discard := make(chan os.Signal, 1)
	for _, sig := range []unix.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU, unix.SIGCONT} {
		if inherited.Signal(sig) {
			signal.Notify(discard, sig)
		}
	}
	return nil
}

func unblock() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var none, blocked unix.Sigset_t
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, nil, &blocked); err != nil {
		return err
	}
	if blocked == none {
		return nil
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &none, nil); err != nil {
		return err
	}
	program, err := os.Executable()
	if err == nil {
		err = unix.Access(program, unix.X_OK)
	}
	if err != nil {
		program = "/proc/self/exe" // the file may be gone by now
	}
	return unix.Exec(program, os.Args, os.Environ())
}
