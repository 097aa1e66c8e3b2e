//go:build linux

package confine

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Command is a command to confine.
type Command struct {
	Args     []string
	Deadline time.Duration
	Grace    time.Duration // after SIGTERM, until all of its processes are killed
	Limits   Limits
	// Stop ends the command when it can be read to its end. A caller that holds the other end of a pipe ends the command with it,
	// also if the caller is killed.
	Stop io.Reader
	// Inner is the program, with its first arguments, that calls [Inner]: it becomes process 1 of the PID namespace.
	Inner []string
}

// Run runs the command. It returns the exit code, and why the command was cut off, or "" if it ended by itself.
func (c Command) Run() (code int, cutOff string, err error) {
	group, err := newGroup(c.Limits)
	if err != nil {
		return 0, "", err
	}
	defer func() { err = errors.Join(err, group.remove()) }()
	cmd := exec.Command(c.Inner[0], append(append(c.Inner[1:], group.dirs...), append([]string{"--"}, c.Args...)...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Pdeathsig:  unix.SIGKILL,
		Setpgid:    true, // a Ctrl-C at the terminal reaches this process only, which ends the command in order
	}
	if err := cmd.Start(); err != nil {
		return 0, "", fmt.Errorf("start a process in new namespaces: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	cutOff = c.wait(ended, group, func(s os.Signal) { _ = cmd.Process.Signal(s) })
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()), cutOff, nil
	}
	return cmd.ProcessState.ExitCode(), cutOff, nil
}

// wait waits until the command has ended. If it has to be cut off, wait asks it to end, and later kills it.
func (c Command) wait(ended <-chan error, group *group, signal func(os.Signal)) (cutOff string) {
	stopped := make(chan struct{})
	if c.Stop != nil {
		go func() {
			_, _ = io.Copy(io.Discard, c.Stop)
			close(stopped)
		}()
	}
	deadline := time.After(c.Deadline)
	var kill <-chan time.Time
	tick := time.NewTicker(time.Second / 2)
	defer tick.Stop()
	watch := newWatch(c.Limits)
	for {
		select {
		case <-ended:
			if cutOff == "" {
				cutOff = group.exceeded() // it may have ended since the last tick, because of a limit of its own
			}
			return cutOff
		case <-kill:
			signal(unix.SIGKILL)
			continue
		case <-deadline:
			if cutOff == "" {
				cutOff = fmt.Sprintf("deadline: it did not end within %v", c.Deadline)
			}
		case <-stopped:
			stopped = nil
			if cutOff == "" {
				cutOff = Stopped
			}
		case <-tick.C:
			if cutOff == "" {
				if cutOff = watch.exceeded(group); cutOff != "" {
					signal(unix.SIGKILL) // it may be unable to clean up
				}
			}
		}
		if cutOff != "" && kill == nil {
			signal(unix.SIGTERM)
			kill = time.After(c.Grace)
		}
	}
}

// Stopped is why a command was cut off whose caller has ended it.
const Stopped = "stopped"
