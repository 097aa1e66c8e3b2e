//go:build linux

package host

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"cdblab/helpers/retry"
)

// Swept is what a sweep has removed of one owner.
type Swept struct {
	Dir       string // the owner's directory
	Processes []string
	Mounts    []string
	Cgroups   []string
	Files     int
}

// Empty reports whether there was nothing except the owner's own directory and cgroup.
func (s Swept) Empty() bool {
	return len(s.Processes)+len(s.Mounts)+len(s.Cgroups)+s.Files == 0
}

func (s Swept) String() string {
	return fmt.Sprintf("%s: %d processes, %d mounts, %d cgroups, %d files", s.Dir, len(s.Processes), len(s.Mounts),
		len(s.Cgroups), s.Files)
}

// SweepOwner removes everything of an owner: its processes, mounts, cgroups and files.
func SweepOwner(owner Owner) (Swept, error) {
	s := Swept{Dir: owner.Dir()}
	var err error
	if s.Processes, err = killAll(owner); err != nil {
		return s, err
	}
	if s.Mounts, err = unmountAll(owner.Dir()); err != nil {
		return s, err
	}
	if s.Cgroups, err = removeCgroups(owner); err != nil {
		return s, err
	}
	if err := leaveDefaultPlaces(owner); err != nil {
		return s, err
	}
	s.Files, err = Remove(owner.Dir())
	return s, err
}

// RemoveEmpty removes the directory and the empty cgroups of an owner that has nothing else left.
func RemoveEmpty(owner Owner) error {
	if _, err := removeCgroups(owner); err != nil {
		return err
	}
	_, err := Remove(owner.Dir())
	return err
}

// killAll kills every process of the owner, until there is none.
//
// One look is not enough. A process that was about to fork may leave a child with a lower pid, which the look has already
// passed. And a process in the middle of execve(2) has no environment for a moment, by which its owner could be recognised.
// So killAll ends after several looks in a row that find no process of the owner, and no young process without environment.
func killAll(owner Owner) (killed []string, err error) {
	const cleanLooksNeeded, young = 3, 2 * time.Second
	cleanLooks := 0
	var found []Process
	ended := retry.Until(patience, func() bool {
		var all []Process
		if all, err = Processes(); err != nil {
			return true
		}
		found = nil
		cleanLooks++
		for _, p := range all {
			switch {
			case int(p.PID) == os.Getpid():
			case p.OwnedBy(owner):
				found = append(found, p)
				cleanLooks = 0
			case p.NoEnvironment && p.age() < young:
				cleanLooks = 0
			}
		}
		if len(found) > 0 {
			thaw(owner)
		}
		for _, p := range found {
			name := fmt.Sprintf("%d (%s)", p.PID, p.Comm)
			if !slices.Contains(killed, name) {
				killed = append(killed, name)
			}
			if err = p.kill(); err != nil {
				return true
			}
		}
		return cleanLooks == cleanLooksNeeded
	})
	if !ended {
		return killed, fmt.Errorf("still alive %v after SIGKILL: %v", patience, found)
	}
	return killed, err
}

// unmountAll unmounts everything at and below dir, the latest mount first.
func unmountAll(dir string) (unmounted []string, err error) {
	var mounts []*mountinfo.Info
	ended := retry.Until(patience, func() bool {
		if mounts, err = mountinfo.GetMounts(mountinfo.PrefixFilter(dir)); err != nil || len(mounts) == 0 {
			return true
		}
		slices.Reverse(mounts)
		for _, m := range mounts {
			switch e := unix.Unmount(m.Mountpoint, unix.UMOUNT_NOFOLLOW); e {
			case nil:
				unmounted = append(unmounted, m.Mountpoint)
			case unix.EBUSY:
			default:
				err = fmt.Errorf("unmount %s: %w", m.Mountpoint, e)
				return true
			}
		}
		return false
	})
	if !ended {
		return unmounted, fmt.Errorf("still mounted and busy after %v: %s", patience, mounts[0].Mountpoint)
	}
	return unmounted, err
}

// Remove removes a directory with everything in it, and counts the entries that are no directories. It removes nothing while
// anything is mounted there, because it would delete files of others through the mount.
func Remove(dir string) (files int, err error) {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return 0, err
	}
	if len(mounts) > 0 {
		return 0, fmt.Errorf("not removed: %s is still mounted", mounts[0].Mountpoint)
	}
	_ = filepath.Walk(dir, func(_ string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
			files++
		}
		return nil
	})
	return files, os.RemoveAll(dir)
}
