//go:build linux

package main

import (
	"os"
	"path/filepath"
	"syscall"

	"github.com/prometheus/procfs"

	"cdblab/helpers/results"
)

// forward forwards signals to the test binary, or to the VM. They clean up, and then go test ends by itself: go test does not
// forward signals. It also gets the signal of a Ctrl-C: it ends if it still compiles, and waits for a test that runs. At a second
// signal, go test is killed.
func (r *labRun) forward(signals <-chan os.Signal, goTest *os.Process) {
	for s := range signals {
		n := s.(syscall.Signal)
		if r.stopped.Swap(int32(n)) != 0 {
			_ = goTest.Kill()
		} else if signalChildren(goTest.Pid, n) {
			_ = goTest.Signal(os.Interrupt)
		} else {
			_ = goTest.Signal(n) // it still compiles
		}
	}
}

// signalChildren sends a signal to the children of a process, and reports whether one has received it. A user may not signal
// sudo, which runs as root; but a Ctrl-C reaches sudo from the terminal.
func signalChildren(parent int, s syscall.Signal) (received bool) {
	all, err := procfs.AllProcs()
	if err != nil {
		return false
	}
	for _, p := range all {
		if stat, err := p.Stat(); err == nil && stat.PPID == parent && syscall.Kill(p.PID, s) == nil {
			received = true
		}
	}
	return received
}

// giveToOwner gives the results that root has written in the directory all to the owner of the checkout: after a
// `sudo make lab-here`, the user's next run has to write to the same directory.
func giveToOwner(all, dir string) error {
	info, err := os.Stat(".")
	if err != nil {
		return err
	}
	owner := info.Sys().(*syscall.Stat_t)
	if os.Geteuid() != 0 || owner.Uid == 0 {
		return nil
	}
	give := func(path string, _ os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(owner.Uid), int(owner.Gid))
	}
	for _, name := range []string{results.Latest, "times.json", "."} {
		path := filepath.Join(all, name)
		if info, err := os.Lstat(path); err == nil {
			if err := give(path, info, nil); err != nil {
				return err
			}
		}
	}
	return filepath.Walk(dir, give)
}
