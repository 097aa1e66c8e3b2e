//go:build linux

package vm

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// How much room a run needs on the disk of the cache's directory, in bytes.
const (
	// For a disk of the user. While the seed disk is made, it is there twice: the files of the tarball (300 MB), and their image.
	seedSpace = 700 << 20
	// What a guest changes on a disk of the user. Most of it is written by the first boot of an image: file systems grow, keys
	// are made, logs begin.
	snapshotSpace = 512 << 20
	diskSpace     = seedSpace + snapshotSpace
	labSpace      = 500 << 20 // for the lab's own VM
	leastSpace    = 16 << 20  // with less, a guest is about to stop
)

// freeSpace is FreeSpace. A variable, so that a test can have a disk that is full.
var freeSpace = FreeSpace

// FreeSpace returns how much room there is on the file system of a directory, in bytes.
func FreeSpace(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("read the free space of %s: %w", dir, err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// checkSpace returns a Fault if the disk of the cache's directory has less room than want. That is said before a guest boots: QEMU stops
// a guest whose changes cannot be written, in the middle of whatever it does.
func (c *Cache) checkSpace(tried string, want int64) error {
	free, err := freeSpace(c.dir)
	if err != nil {
		return &Fault{Tried: tried, Seen: err.Error()}
	}
	if free >= want {
		return nil
	}
	return &Fault{
		Tried: tried,
		Seen: fmt.Sprintf("the disk of %s, which keeps what the guest changes, has %d MB free, and %d MB are needed",
			c.dir, free>>20, want>>20),
		Do: makeRoom,
	}
}

const makeRoom = "make room on this disk"

// spaceFault returns a better reason for a guest that stopped, if it is that the disk of this machine is full: QEMU stops a guest
// whose changes can't be written.
func (c *Cache) spaceFault() string {
	free, err := freeSpace(c.dir)
	if err != nil || free > leastSpace {
		return ""
	}
	return fmt.Sprintf("the disk of %s, which keeps what the guest changes, has %d MB free", c.dir, free>>20)
}

// CheckDiskSpace checks that a run with a disk image has enough room. It is a check of `lab doctor`.
func (c *Cache) CheckDiskSpace() (string, error) {
	if err := c.checkSpace("make room for the guest's changes", diskSpace); err != nil {
		return "", err
	}
	free, err := freeSpace(c.dir)
	return fmt.Sprintf("%d MB free for what the guest changes", free>>20), err
}
