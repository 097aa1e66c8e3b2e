// Command lab-init runs one command in a throw-away VM. It has no use elsewhere.
//
// In the lab's own VM it is pid 1, and helpers/vm puts it into the initrd. It sets up the machine like a normal one (mounts,
// cgroups, loopback) and runs one command. Then it sends the command's
// result files and exit status to the host, and waits until the host switches the machine off. All messages go over
// virtio serial ports: see helpers/vm/protocol.
//
// It is deliberately small and imports little: under emulation every instruction before main costs time.
//
//	main.go      the steps of a run
//	initrd.go    what happens in the initrd: first mounts, kernel modules, disks, ports
//	root.go      the step from the initrd to the root filesystem
//	system.go    what systemd and udev would set up
//	cgroup.go    the cgroup hierarchies
//	control.go   messages to and from the wrapper on the host
//	command.go   the command, its output, and the reaping of processes
//	terminal.go  the command's terminal
//	results.go   the files that are sent to the host
//	serve.go     the same as a service, in a VM that boots a disk of the user
package main

import (
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"cdblab/helpers/vm/protocol"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == protocol.ServiceArgument {
		serve()
	}
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "lab-init: this is pid 1 of the lab's VM; `lab exec` and `lab shell` start it")
		os.Exit(2)
	}
	if len(os.Args) > 1 && os.Args[1] == protocol.ProbeArgument {
		fmt.Println(protocol.ProbeReply)
		powerOff()
	}
	var c *control
	if err := run(&c); err != nil {
		// Without a control port, only the console is left. The wrapper on the host shows its last lines.
		fmt.Println("lab-init:", err)
		if c != nil {
			c.send(protocol.Message{Fault: err.Error()})
			waitForPowerOff()
		}
	}
	powerOff()
}

// run executes the steps of a run. It sets *c as soon as the control port is open.
func run(c **control) error {
	if err := prepareInitrd(); err != nil {
		return err
	}
	port, err := openPort(protocol.ControlPort)
	if err != nil {
		return err
	}
	*c = newControl(port)
	(*c).send(protocol.Message{Ready: true})
	job, err := (*c).readJob()
	if err != nil {
		return err
	}
	if err := switchRoot(); err != nil {
		return err
	}
	notes, err := setUpSystem(job)
	if err != nil {
		return err
	}
	for _, n := range notes {
		(*c).send(protocol.Message{Note: n})
	}
	// All processes of this machine are the command's.
	endLeftovers := func() { _ = unix.Kill(-1, unix.SIGKILL) }
	exit, err := runCommand(*c, job, endLeftovers)
	if err != nil {
		return err
	}
	if exit.Results, err = sendResults(job.Results); err != nil {
		return err
	}
	(*c).send(protocol.Message{Exit: exit})
	waitForPowerOff()
	return nil
}

// waitForPowerOff waits until the wrapper switches the machine off. If pid 1 switched it off, everything that the wrapper
// has not yet read from the ports would be lost. A slow wrapper reads for many minutes, and the machine ends with it in any case.
func waitForPowerOff() {
	time.Sleep(24 * time.Hour)
}

// powerOff resets the machine. On machine types without ACPI only a reset ends QEMU; its option -no-reboot turns the
// reset into an exit.
func powerOff() {
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	for {
		_ = syscall.Pause()
	}
}
