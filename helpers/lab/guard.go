//go:build linux

package lab

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/host"
)

// disposableEnv is how a user says that a machine which does not look like a virtual one may be used.
const disposableEnv = "CDB_DISPOSABLE"

// minFree is the least free space below host.Dir: the five questions were seen to need a third of it.
const minFree = 64 << 20

// guard says why the lab must not, or cannot, run here; nil if it may. It changes nothing.
func guard() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("the lab makes namespaces, mounts and cgroups, and needs root; you are uid %d\n"+
			"  The helpers' own tests need none:            go test ./...\n"+
			"  On this machine, if it is a disposable VM:   sudo go test -tags vmlab ./...\n"+
			"  The same, with tools built and go found:     make lab-here", os.Geteuid())
	}
	if _, virtual := host.Virtual(); !virtual && os.Getenv(disposableEnv) != "yes" {
		return fmt.Errorf("this does not look like a virtual machine, and the lab changes the machine that it runs on\n"+
			"  If it may be thrown away, say so:   %s=yes make lab-here", disposableEnv)
	}
	if err := host.CheckNullDevice(); err != nil {
		return err
	}
	hs, err := cgroup.Hierarchies()
	if err != nil {
		return err
	}
	if cgroup.ModeOf(hs) == "" {
		return errors.New("no cgroup hierarchy is mounted below /sys/fs/cgroup, and no container can be made\n" +
			"  Mount one:   mount -t cgroup2 none /sys/fs/cgroup")
	}
	return space()
}

// space returns an error where the lab's directory is on a full file system.
func space() error {
	dir := host.Dir
	if _, err := os.Stat(dir); err != nil {
		dir = "/run"
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("how much space has %s: %w", dir, err)
	}
	if free := st.Bavail * uint64(st.Bsize); free < minFree {
		return fmt.Errorf("%s has %d MB free, and the lab needs %d MB for bundles, image and snapshots\n"+
			"  Make room, or give the lab a file system of its own:   mount -t tmpfs -o mode=755 tmpfs %s",
			dir, free>>20, uint64(minFree)>>20, host.Dir)
	}
	return nil
}
