// Command lab-init is pid 1 of the throw-away VM. helpers/vm puts it into the initrd; it is of no use elsewhere.
//
// It makes the machine look like a normal one (mounts, cgroups, loopback), runs one command, brings back its files
// and its exit status, and powers off. Everything it says goes over virtio serial ports: see helpers/vm/wire.
//
// It is deliberately small and imports little: under emulation every instruction before main costs.
package main

import (
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"cdblab/helpers/vm/wire"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "lab-init: this is pid 1 of the lab's VM; `lab exec` and `lab shell` start it")
		os.Exit(2)
	}
	if len(os.Args) > 1 && os.Args[1] == wire.Probe {
		fmt.Println(wire.ProbeWord)
		powerOff()
	}
	var c *control
	if err := run(&c); err != nil {
		// With no control port the console is all there is; outside, the wrapper shows its last lines.
		fmt.Println("lab-init:", err)
		if c != nil {
			c.say(wire.Word{Fault: err.Error()})
			waitForTheEnd()
		}
	}
	powerOff()
}

func run(c **control) error {
	if err := early(); err != nil {
		return err
	}
	port, err := openPort(wire.Control)
	if err != nil {
		return err
	}
	*c = newControl(port)
	(*c).say(wire.Word{Up: true})
	job, err := (*c).job()
	if err != nil {
		return err
	}
	if err := newRoot(); err != nil {
		return err
	}
	notes, err := furnish(job)
	if err != nil {
		return err
	}
	for _, n := range notes {
		(*c).say(wire.Word{Note: n})
	}
	exit, err := command(*c, job)
	if err != nil {
		return err
	}
	if exit.Files, err = sendBack(job.Back); err != nil {
		return err
	}
	(*c).say(wire.Word{Exit: exit})
	waitForTheEnd()
	return nil
}

// waitForTheEnd leaves it to the wrapper to switch the machine off: to power off from in here would throw away what
// has been written to the ports and not yet been taken out.
func waitForTheEnd() {
	time.Sleep(time.Minute)
}

func powerOff() {
	// Not power-off: on the machine types without ACPI only a reset ends QEMU, and -no-reboot makes it an exit.
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	for {
		_ = syscall.Pause()
	}
}
