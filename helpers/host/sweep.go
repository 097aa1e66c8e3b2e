//go:build linux

package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"cdblab/helpers/retry"
)

// Swept is what a sweep has removed of one owner.
type Swept struct {
	Dir       string   // the owner's directory
	Units     []string // of systemd
	Profiles  []string // of AppArmor
	Processes []string
	Mounts    []string
	Cgroups   []string
	Files     int
}

// Empty reports whether there was nothing except the owner's own directory and cgroup.
func (s Swept) Empty() bool {
	return len(s.Units)+len(s.Profiles)+len(s.Processes)+len(s.Mounts)+len(s.Cgroups)+s.Files == 0
}

func (s Swept) String() string {
	text := fmt.Sprintf("%s: %d processes, %d mounts, %d cgroups, %d files", s.Dir, len(s.Processes), len(s.Mounts),
		len(s.Cgroups), s.Files)
	if len(s.Units) > 0 { // only where systemd is
		text += fmt.Sprintf(", %d units", len(s.Units))
	}
	if len(s.Profiles) > 0 { // only where AppArmor is
		text += fmt.Sprintf(", %d AppArmor profiles", len(s.Profiles))
	}
	return text
}

// SweepOwner removes everything of an owner: its units, processes, AppArmor profiles, mounts, cgroups and files. A unit that systemd
// does not unload in time is an error, but keeps nothing else from being removed.
func SweepOwner(owner Owner) (s Swept, err error) {
	s.Dir = owner.Dir()
	sockets := noted(owner)
	units, unitsErr := StopUnits(owner) // first, so that systemd does not take the death of the processes for a failure
	s.Units = units
	defer func() { err = errors.Join(err, unitsErr) }()
	killed, alsoSockets, err := killAll(owner)
	if s.Processes = killed; err != nil {
		return s, err
	}
	// After the processes: one that lives would be unconfined.
	if s.Profiles, err = RemoveProfiles(owner); err != nil {
		return s, err
	}
	removeSockets(append(sockets, alsoSockets...))
	if err := restoreNullDevice(owner.Run); err != nil {
		return s, err
	}
	dir, err := openDir(owner.Dir())
	gone := errors.Is(err, os.ErrNotExist)
	if err != nil && !gone {
		return s, err
	}
	if !gone {
		dir.Close()
		if s.Mounts, err = unmountBelow(owner.Dir()); err != nil {
			return s, err
		}
	}
	if s.Cgroups, err = removeCgroups(owner); err != nil {
		return s, err
	}
	if err := leaveDefaultPlaces(owner); err != nil {
		return s, err
	}
	if !gone {
		s.Files, err = removeOwnDir(owner)
	}
	return s, err
}

// removeOwnDir removes the owner's directory, and returns how many files of experiments it had.
func removeOwnDir(owner Owner) (files int, err error) {
	if owner.Question == "" {
		for _, record := range []string{idPath(owner.Run), nullDevicePath(owner.Run)} {
			if err := os.Remove(record); err != nil && !errors.Is(err, os.ErrNotExist) {
				return 0, err
			}
		}
		below, err := unmountDir(owner.Dir())
		if err != nil {
			return below, err
		}
		files += below
	}
	below, err := Remove(owner.Dir())
	return files + below, err
}

// unmountDir unmounts what [mountExec] has mounted on the directory of a run, and counts its files. The caller holds the lock
// of the directory, and so an open file in the mount: MNT_DETACH does not mind.
func unmountDir(dir string) (files int, err error) {
	for {
		mounted, err := mountinfo.Mounted(dir)
		if err != nil || !mounted {
			return files, err
		}
		_ = filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				files++
			}
			return nil
		})
		if err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return files, fmt.Errorf("unmount %s: %w", dir, err)
		}
	}
}

// RemoveEmpty removes the directory and the empty cgroups of a question that has nothing else left.
func RemoveEmpty(owner Owner) error {
	if _, err := removeCgroups(owner); err != nil {
		return err
	}
	_, err := Remove(owner.Dir())
	return err
}

// unmountBelow unmounts everything below dir, the latest mount first.
func unmountBelow(dir string) (unmounted []string, err error) {
	var mounts []*mountinfo.Info
	var last error
	below := func(m *mountinfo.Info) (skip, stop bool) {
		return m.Mountpoint == dir || !pathBegins(m.Mountpoint, dir), false
	}
	ended := retry.Until(patience(), func() bool {
		if mounts, err = mountinfo.GetMounts(below); err != nil || len(mounts) == 0 {
			return true
		}
		slices.Reverse(mounts)
		for _, m := range mounts {
			switch e := unix.Unmount(m.Mountpoint, unix.UMOUNT_NOFOLLOW); e {
			case nil:
				unmounted = append(unmounted, m.Mountpoint)
			case unix.EBUSY, unix.EINVAL, unix.ENOENT: // or it has gone since the look
				last = e
			default:
				err = fmt.Errorf("unmount %s: %w", m.Mountpoint, e)
				return true
			}
		}
		return false
	})
	if !ended {
		return unmounted, fmt.Errorf("still mounted after %v: %s: %w", patience(), mounts[0].Mountpoint, last)
	}
	return unmounted, err
}
