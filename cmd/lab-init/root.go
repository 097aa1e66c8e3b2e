package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"cdblab/helpers/vm/wire"
)

// newRoot makes the two disks and a tmpfs one tree, and moves into it.
//
// The initrd itself can't be the root: the kernel's rootfs has no parent mount, so pivot_root(2), which every
// container runtime calls, says EINVAL there.
func newRoot() error {
	for _, d := range []string{"/tools", "/work", "/rw", "/root"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	for serial, at := range map[string]string{wire.RootDisk: "/tools", wire.WorkDisk: "/work"} {
		dev, err := disk(serial)
		if err != nil {
			return err
		}
		if err := unix.Mount(dev, at, "erofs", unix.MS_RDONLY, ""); err != nil {
			return fmt.Errorf("mount the disk %s: %w (is its image whole?)", serial, err)
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
