//go:build linux

package vm

import (
	"flag"
	"fmt"
	"math"
	"os"
	"runtime"
	"strconv"
)

// Config holds the settings of the VM.
type Config struct {
	Kernel string // a version of the distribution's cloud kernel (6.1), a path, or "" for the distribution's default
	Cgroup string // v2, v1 or hybrid
	Memory int    // MiB
	CPUs   int    // 0: see setDefaultCPUs
	Accel  string // auto, kvm or tcg

	// A VM that boots a disk of the user has the disk's kernel and cgroup mode.
	Disk     string // the path of a disk image; "" for the lab's own VM
	Firmware string // auto, bios or uefi
	UserData string // the path of the user's own data for cloud-init; "" for none
	Tarball  string // the lab's tarball, or the directory that it unpacks to
	Pinned   bool   // ask about the tarball's programs, and not about those of the disk
}

// invalidNumber stands for an environment variable that should be a number and is not one.
const invalidNumber = math.MinInt

// Memory in MiB. With 1024, four questions at a time once left 52 of them.
const (
	defaultMemory = 2048
	lowMemory     = 64 // a run that had less says so
)

// Flags adds a flag for each setting. The defaults come from the environment, because flags are hard to write into go test -exec.
func (c *Config) Flags(set *flag.FlagSet) {
	env := func(name, fallback string) string {
		if v := os.Getenv(name); v != "" {
			return v
		}
		return fallback
	}
	number := func(name string, fallback int) int {
		if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
			return n
		} else if os.Getenv(name) != "" {
			return invalidNumber // check reports it
		}
		return fallback
	}
	set.StringVar(&c.Kernel, "kernel", env("CDB_KERNEL", ""), "kernel: a version of the distribution's cloud kernel (6.1, 6.12), or a path")
	set.StringVar(&c.Cgroup, "cgroup", env("CDB_CGROUP", "v2"), "cgroup mode: v2, v1 or hybrid")
	set.IntVar(&c.Memory, "mem", number("CDB_MEM", defaultMemory), "memory in MiB")
	set.IntVar(&c.CPUs, "cpus", number("CDB_CPUS", 0),
		"number of CPUs; 0 means 2 if the host has two; under emulation 1 for a disk, and for the cgroup modes v1 and hybrid")
	set.StringVar(&c.Accel, "accel", env("CDB_ACCEL", "auto"), "accelerator: auto, kvm or tcg (emulation)")
	set.StringVar(&c.Disk, "disk", env("CDB_DISK", ""), "boot this disk image, with its own kernel and init; nothing is written to it")
	set.StringVar(&c.Firmware, "firmware", env("CDB_FIRMWARE", "auto"), "what boots the disk: auto, bios or uefi")
	set.StringVar(&c.UserData, "user-data", env("CDB_USER_DATA", ""), "a file with data for the disk's cloud-init")
	set.StringVar(&c.Tarball, "tarball", env("CDB_TARBALL", ""), "the tarball of make dist, which brings the questions to the disk")
	set.BoolVar(&c.Pinned, "pinned", os.Getenv("CDB_DISK_PINNED") == "1",
		"ask the disk about the programs of the tarball, and not about its own")
}

// check reports the first setting that is not valid.
func (c *Config) check() error {
	invalid := func(name, seen, do string) error {
		return &Fault{Tried: "read the settings of the VM", Seen: fmt.Sprintf("%s is %s", name, seen), Do: do}
	}
	switch c.Cgroup {
	case "v2", "v1", "hybrid":
	default:
		return invalid("CGROUP", strconv.Quote(c.Cgroup), "use v2, v1 or hybrid")
	}
	switch c.Accel {
	case "auto", "kvm", "tcg":
	default:
		return invalid("ACCEL", strconv.Quote(c.Accel), "use auto, kvm or tcg")
	}
	switch c.Firmware {
	case "", "auto", "bios", "uefi":
	default:
		return invalid("FIRMWARE", strconv.Quote(c.Firmware), "use auto, bios or uefi")
	}
	switch show := os.Getenv("CDB_VM_CONSOLE"); show {
	case "", "0", "1":
	default:
		return invalid("CDB_VM_CONSOLE", strconv.Quote(show), "use 1, which shows the guest's console, or leave it out")
	}
	if err := c.checkDisk(); err != nil {
		return err
	}
	if c.Memory < 128 || c.Memory > 1<<20 {
		return invalid("MEM", typed("CDB_MEM", c.Memory)+", not a number of MiB from 128 to 1048576",
			fmt.Sprintf("use %d, which is enough for the whole lab", defaultMemory))
	}
	if c.CPUs < 0 || c.CPUs > 64 {
		return invalid("CPUS", typed("CDB_CPUS", c.CPUs)+", not a number from 0 to 64", fmt.Sprintf("this machine has %d", runtime.NumCPU()))
	}
	return nil
}

// checkDisk reports a setting that is of no use with a disk, without one, or with this kernel. It would be ignored, and the user would
// believe that it holds.
func (c *Config) checkDisk() error {
	useless := func(name, value, why string) error {
		return &Fault{Tried: "read the settings of the VM", Seen: fmt.Sprintf("%s is %q, and %s", name, value, why),
			Do: "leave out " + name + "="}
	}
	modules, words := os.Getenv("CDB_MODULES"), os.Getenv("CDB_VM_APPEND")
	ofPackage := c.Kernel == "" || c.Kernel == "default" || kernelVersion.MatchString(c.Kernel)
	switch {
	case modules != "" && ofPackage:
		return useless("CDB_MODULES", modules, "only a kernel that is named by its path has its modules in another place (KERNEL=/path)")
	case c.Disk == "" && c.UserData != "":
		return useless("USER_DATA", c.UserData, "only a disk image has a cloud-init that reads it (DISK=)")
	case c.Disk == "" && c.Firmware != "" && c.Firmware != "auto":
		return useless("FIRMWARE", c.Firmware, "only a disk image is booted by a firmware (DISK=)")
	case c.Disk == "" && c.Pinned:
		return useless("DISK_PINNED", "1", "only a disk image has programs of its own (DISK=)")
	case c.Disk == "":
		return nil
	case words != "":
		return useless("CDB_VM_APPEND", words, "the boot loader of the disk image has the kernel's command line")
	case c.Kernel != "":
		return useless("KERNEL", c.Kernel, "the disk image has a kernel of its own")
	case os.Getenv("CDB_CGROUP") != "" || c.Cgroup != "v2":
		return useless("CGROUP", c.Cgroup, "the init of the disk image chooses the cgroup mode")
	case c.Tarball == "":
		return &Fault{Tried: "read the settings of the VM", Seen: "no tarball brings the questions to the disk",
			Do: "use make lab DISK=" + c.Disk}
	}
	return nil
}

// typed returns a number as the user typed it, into the environment variable or into a flag.
func typed(env string, number int) string {
	if number == invalidNumber {
		return strconv.Quote(os.Getenv(env))
	}
	return strconv.Itoa(number)
}

// setDefaultCPUs chooses the number of CPUs if the setting is 0: two CPUs, if the host has two. More CPUs than the host has
// would only wait for each other. On a busy host two emulated CPUs do so already: the five questions took 53 s with two
// CPUs and 60 s with one on a quiet host with two cores, but 108 s and 71 s beside a busy core.
//
// Only one CPU, if the freezer of cgroup v1 is emulated: the kernel patches its own code each time that a use of the
// freezer begins or ends. An emulated second CPU was seen to execute the old code, in get_signal, for ever (Linux 6.1,
// QEMU 7.2; three of three runs of all questions). The freezer of v2 patches nothing.
func (c *Config) setDefaultCPUs() {
	if c.CPUs != 0 {
		return
	}
	c.CPUs = min(2, runtime.NumCPU())
	if c.Accel == "tcg" && (c.Cgroup != "v2" || c.Disk != "") { // which mode a disk has is not known yet
		c.CPUs = 1
	}
}
