// Package vm runs one command in a throw-away virtual machine, and returns its output, its result files and its exit
// code.
//
// It is the machine behind `go test -exec`. It needs no root, no KVM and no network, only QEMU and a kernel package of
// the distribution. Instead, the machine can boot a disk image of the user, which has a kernel, an init and programs of its own.
//
//	command.go     one run: its input, its steps, its result
//	config.go      the settings of the VM
//	job.go         what the guest is asked to run, in which environment
//	testbinary.go  a test binary: its arguments, its result files, its count of tests
//	results.go     unpacks the result files that the guest sends
//	cache.go       the directory .lab/vm, and its lock
//	record.go      what a complete file of the cache contains, and the digests of files
//	sweep.go       removes what the cache does not need any more
//	kernel.go      the kernel and its modules: from the distribution's package, or from a path
//	modules.go     which modules the guest gets, in which order
//	initrd.go      the first root filesystem: pid 1 and the modules that it needs to reach the disks
//	image.go       the disk with the tools, cached by content
//	filetree.go    a tree of files, and its erofs image
//	libraries.go   a program and the shared libraries that it needs
//	disk.go        a disk image of the user: what can be known of it before it boots
//	bootloader.go  the boot loaders in its partition for UEFI
//	firmware.go    the UEFI of this machine that boots it
//	seed.go        the disk that brings the questions into it, and has them started
//	diskboot.go    how it boots, and what its console tells
//	space.go       how much room a run needs on this machine's disk
//	qemu.go        the machine and its command line
//	probe.go       whether KVM really works here
//	connection.go  the serial ports of the guest
//	helper.go      commands that help: they have a deadline
//	fault.go       a failure of the machine, as opposed to a failure of the command
//	doctor.go      the checks of `lab doctor`: the steps of a run, without the boot
//
// In the guest, the source tree of the module, the arguments of the command and all directories for results have the
// paths that they have on the host. So no path has to be translated, and a path in a panic leads to the right file. A disk image of the
// user is the exception: its results come from one directory of the guest.
//
// To debug a guest that does not boot: CDB_VM_CONSOLE=1 shows its console while it boots, CDB_VM_APPEND adds words to
// the kernel's command line, except for a disk image.
//
// The guest's side is cmd/lab-init. Package protocol defines what the two sides send to each other.
package vm
