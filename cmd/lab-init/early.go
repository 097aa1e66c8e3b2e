package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"cdblab/helpers/vm/wire"
)

// early is everything before the ports and disks are there: it runs in the initrd.
func early() error {
	for _, m := range []struct{ kind, at string }{{"devtmpfs", "/dev"}, {"proc", "/proc"}, {"sysfs", "/sys"}} {
		if err := os.MkdirAll(m.at, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.at, m.kind, 0, ""); err != nil && err != unix.EBUSY {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	modules, err := filepath.Glob(wire.Modules + "/*.ko")
	if err != nil {
		return err
	}
	// Glob sorts, and the wrapper numbered the names so that what depends comes after what it depends on.
	for _, m := range modules {
		if err := load(m); err != nil {
			return err
		}
	}
	return nil
}

func load(path string) error {
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

// wait looks for something that a driver brings, which may be probed a moment after its module is loaded.
func wait(what string, find func() string) (string, error) {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if found := find(); found != "" {
			return found, nil
		}
	}
	return "", fmt.Errorf("%s did not appear within 20 s", what)
}

// disk is the device node of the disk with this serial number.
func disk(serial string) (string, error) {
	return wait("the disk "+serial, func() string { return byAttribute("/sys/block/vd*/serial", serial) })
}

// openPort opens a virtio serial port by its name.
func openPort(name string) (*os.File, error) {
	dev, err := wait("the port "+name, func() string { return byAttribute("/sys/class/virtio-ports/*/name", name) })
	if err != nil {
		return nil, err
	}
	// Without O_NONBLOCK, so that Go does not hand it to the poller: a port that the host closed polls as ready for
	// ever.
	fd, err := unix.Open(dev, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dev, Err: err}
	}
	return os.NewFile(uintptr(fd), dev), nil
}

// byAttribute finds the device whose attribute in sysfs has this value; its node is named as the directory is.
func byAttribute(pattern, value string) string {
	paths, _ := filepath.Glob(pattern)
	for _, p := range paths {
		if b, err := os.ReadFile(p); err == nil && strings.TrimSpace(string(b)) == value {
			return "/dev/" + filepath.Base(filepath.Dir(p))
		}
	}
	return ""
}
