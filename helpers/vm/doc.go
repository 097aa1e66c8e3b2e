// Package vm runs one command in a throw-away virtual machine and brings back its output, its files and its verdict.
//
// It is the machine behind `go test -exec`: no root, no KVM and no network are needed, only QEMU and a kernel package
// of the distribution.
//
//	config.go    what can be asked for
//	cache.go     .lab, and who may write there at a time
//	kernel.go    the kernel and its modules: from the distribution's package, or a path
//	modules.go   which modules, in which order
//	initrd.go    the first root: pid 1 and the modules that it needs to reach the disks
//	tools.go     the programs under test, and what they need to run
//	tree.go      a tree of files and its erofs image
//	image.go     the tools' image, cached by content
//	qemu.go      the machine and its command line
//	probe.go     whether KVM works here, and not only opens
//	channel.go   the serial ports to the guest
//	job.go       a test binary's arguments, as the guest has to see them
//	back.go      files out of the guest
//	run.go       one run, from the boot to the verdict
//	tally.go     counts tests for the closing line
//	shell.go     a prompt in the guest
//	fault.go     what went wrong with the machine, as opposed to the command
//
// In the guest the command finds the module's tree, its own arguments and all directories for results at the paths
// they have outside, so nothing has to be translated, and a path in a panic leads to the right file.
//
// To look into a guest that does not come up: CDB_VM_CONSOLE=1 shows its console as it happens, CDB_VM_APPEND adds to
// the kernel's command line.
//
// The guest's side is cmd/lab-init; what the two say to each other is package wire.
package vm
