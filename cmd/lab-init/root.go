package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"cdblab/helpers/vm/protocol"
)

// switchRoot joins the two disks and a tmpfs to one tree (an overlay), and makes it the root filesystem.
//
// The initrd itself cannot be the root: the kernel's rootfs has no parent mount, so pivot_root(2), which every container
// runtime calls, fails there with EINVAL.
func switchRoot() error {
	for _, d := range []string{"/tools", "/work", "/rw", "/root"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	for serial, at := range map[string]string{protocol.ToolsDisk: "/tools", protocol.WorkDisk: "/work"} {
		dev, err := findDisk(serial)
		if err != nil {
			return err
		}
		if err := unix.Mount(dev, at, "erofs", unix.MS_RDONLY, ""); err != nil {
			return fmt.Errorf("mount the disk %s: %w (its image may be incomplete)", serial, err)
		}
	}
	if err := unix.Mount("tmpfs", "/rw", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	for _, d := range []string{"/rw/upper", "/rw/scratch"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	layers := "lowerdir=/work:/tools,upperdir=/rw/upper,workdir=/rw/scratch"
	if err := unix.Mount("overlay", "/root", "overlay", 0, layers); err != nil {
		return fmt.Errorf("mount the root: %w", err)
	}
	for _, m := range []string{"/dev", "/proc", "/sys"} {
		if err := unix.Mount(m, "/root"+m, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s: %w", m, err)
		}
	}
	// The steps of switch_root(8).
	if err := os.Chdir("/root"); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return os.Chdir("/")
}
