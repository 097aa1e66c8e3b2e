package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"cdblab/helpers/vm/protocol"
)

// prepareInitrd mounts the kernel's own filesystems and loads the modules that the disks and the ports need.
func prepareInitrd() error {
	for _, m := range []struct{ kind, at string }{{"devtmpfs", "/dev"}, {"proc", "/proc"}, {"sysfs", "/sys"}} {
		if err := os.MkdirAll(m.at, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.at, m.kind, 0, ""); err != nil && err != unix.EBUSY {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	modules, err := filepath.Glob(protocol.ModulesDir + "/*.ko")
	if err != nil {
		return err
	}
	// Glob sorts the names. The wrapper numbered them, so that each module comes after the modules that it needs.
	for _, m := range modules {
		if err := loadModule(m); err != nil {
			return err
		}
	}
	return nil
}

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && err != unix.EEXIST {
		return fmt.Errorf("kernel module %s: %w", filepath.Base(path), err)
	}
	return nil
}

// deviceTimeout is how long a device may take to appear where the machine is not slow. A variable, so that a test can make it shorter.
var deviceTimeout = 20 * time.Second

// patience returns how long a wait may take here that may take d on a quiet machine: see [protocol.SlownessEnv]. Where the wrapper does not
// say how slow the machine is, it is as slow as can be: the wrapper has a deadline for the boot anyway.
func patience(d time.Duration) time.Duration {
	const slowest = 10
	factor, err := strconv.Atoi(os.Getenv(protocol.SlownessEnv))
	if err != nil || factor < 1 || factor > slowest {
		factor = slowest
	}
	return d * time.Duration(factor)
}

// waitForDevice waits until find returns a device. A driver may find its device a moment after its module was loaded.
func waitForDevice(what string, find func() string) (string, error) {
	timeout := patience(deviceTimeout)
	for deadline := time.Now().Add(timeout); ; time.Sleep(time.Millisecond) {
		late := time.Now().After(deadline) // before the look: the machine may stand still
		if found := find(); found != "" {
			return found, nil
		}
		if late {
			return "", fmt.Errorf("%s did not appear within %v", what, timeout)
		}
	}
}

// findDisk returns the device node of the disk with this serial number.
func findDisk(serial string) (string, error) {
	return waitForDevice("the disk "+serial, func() string { return deviceByAttribute("/sys/block/vd*/serial", serial) })
}

// openPort opens a virtio serial port by its name.
func openPort(name string) (*os.File, error) {
	dev, err := waitForDevice("the port "+name, func() string { return deviceByAttribute("/sys/class/virtio-ports/*/name", name) })
	if err != nil {
		return nil, err
	}
	// Without O_NONBLOCK, so that Go does not use its poller: a port that the host closed is reported as ready for ever.
	fd, err := unix.Open(dev, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dev, Err: err}
	}
	return os.NewFile(uintptr(fd), dev), nil
}

// deviceByAttribute returns the node of the device whose attribute in sysfs has this value, or "". The node has the
// name of the directory.
func deviceByAttribute(pattern, value string) string {
	paths, _ := filepath.Glob(pattern)
	for _, p := range paths {
		if b, err := os.ReadFile(p); err == nil && strings.TrimSpace(string(b)) == value {
			return "/dev/" + filepath.Base(filepath.Dir(p))
		}
	}
	return ""
}
