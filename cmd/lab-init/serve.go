package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"cdblab/helpers/vm/protocol"
)

// serve runs one command as a service of a machine that has its own init. The wrapper switches the machine off after it.
func serve() {
	port, err := openPort(protocol.ControlPort)
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab-init:", err)
		os.Exit(1)
	}
	c := newControl(port)
	if err := serveJob(c); err != nil {
		c.send(protocol.Message{Fault: err.Error()})
	}
	waitForPowerOff()
}

func serveJob(c *control) error {
	if note := os.Getenv(protocol.NoteEnv); note != "" {
		c.send(protocol.Message{Note: note})
	}
	c.send(protocol.Message{Ready: true})
	job, err := c.readJob()
	if err != nil {
		return err
	}
	for _, s := range job.Space {
		var st unix.Statfs_t
		if err := unix.Statfs(s.Dir, &st); err != nil {
			return fmt.Errorf("read the free space of %s: %w", s.Dir, err)
		}
		if free := st.Bavail * uint64(st.Bsize); free < s.Free {
			return fmt.Errorf("the file system of %s has %d MB free, and the lab needs %d MB", s.Dir, free>>20, s.Free>>20)
		}
	}
	for _, dir := range job.Mkdir {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	// The other processes are the machine's own. The lab ends its leftovers itself.
	exit, err := runCommand(c, job, func() {})
	if err != nil {
		return err
	}
	if exit.Results, err = sendResults(job.Results); err != nil {
		return err
	}
	c.send(protocol.Message{Exit: exit})
	return nil
}
