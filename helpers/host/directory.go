//go:build linux

package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// openDir opens a directory. Below the directory in which Dir, or one of the [DefaultPlaces], lies, no component of the path may
// be a symbolic link: the lab, as root, would write and delete wherever the link leads.
func openDir(path string) (*os.File, error) {
	base := trustedBase(path)
	fd, err := unix.Open(base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: base, Err: err}
	}
	rel, err := filepath.Rel(base, path)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	at := base
	for name := range strings.SplitSeq(rel, "/") {
		if name == "." {
			continue
		}
		at = filepath.Join(at, name)
		next, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		unix.Close(fd)
		if err == unix.ENOTDIR || err == unix.ELOOP {
			return nil, fmt.Errorf("%s is no directory, or a symbolic link: the lab writes and deletes only in directories of its own; "+
				"look at it with ls -ld, and remove it", at)
		}
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: at, Err: err}
		}
		fd = next
	}
	return os.NewFile(uintptr(fd), path), nil
}

// trustedBase returns the directory up to which openDir follows symbolic links: they were there before the lab.
func trustedBase(path string) string {
	for _, place := range append([]string{Dir}, DefaultPlaces...) {
		if pathBegins(path, place) {
			return filepath.Dir(place)
		}
	}
	return filepath.Dir(path)
}

// openOwnDir opens a directory of the lab itself. Only root, as whom the lab runs, may own it and write to it.
func openOwnDir(path string) (*os.File, error) {
	f, err := openDir(path)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		f.Close()
		return nil, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
		f.Close()
		return nil, fmt.Errorf("%s belongs to uid %d and has the mode %o, expected uid %d and no other writer: "+
			"another user may have made it; look at it, and remove it", path, st.Uid, st.Mode&0o7777, os.Geteuid())
	}
	return f, nil
}

// Remove removes a directory with everything in it, and counts the entries that are no directories. It removes nothing while
// anything is mounted there. It follows no symbolic link and does not enter a mount, because it would delete files of others
// through them.
func Remove(dir string) (files int, err error) {
	parent, err := openDir(filepath.Dir(dir))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer parent.Close()
	return removeAt(parent, filepath.Base(dir))
}

// removeAt is [Remove] for an entry of a directory that is open.
func removeAt(parent *os.File, name string) (files int, err error) {
	path, err := realPath(parent, name)
	if err != nil {
		return 0, err
	}
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(path))
	if err != nil {
		return 0, err
	}
	if len(mounts) > 0 {
		return 0, fmt.Errorf("not removed: %s is still mounted", mounts[0].Mountpoint)
	}
	top, err := statAt(int(parent.Fd()), "", parent.Name())
	if err != nil {
		return 0, err
	}
	return removeTree(int(parent.Fd()), name, path, top)
}

// realPath returns the path of an entry as mountinfo has it: without symbolic links.
func realPath(parent *os.File, name string) (string, error) {
	dir, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", parent.Fd()))
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, name), nil
}

// entry is what a walk has to know of a file: its type, and the mount on which it is.
type entry struct {
	mode         uint16
	major, minor uint32
	mount        uint64 // 0 before Linux 5.8
}

func (e entry) sameMount(other entry) bool {
	return e.major == other.major && e.minor == other.minor && e.mount == other.mount
}

// statAt looks at an entry of an open directory, or at the directory itself if name is "".
func statAt(dir int, name, path string) (entry, error) {
	var st unix.Statx_t
	flags := unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	if err := unix.Statx(dir, name, flags, unix.STATX_TYPE|unix.STATX_MNT_ID, &st); err != nil {
		return entry{}, &os.PathError{Op: "statx", Path: path, Err: err}
	}
	e := entry{mode: st.Mode, major: st.Dev_major, minor: st.Dev_minor}
	if st.Mask&unix.STATX_MNT_ID != 0 {
		e.mount = st.Mnt_id
	}
	return e, nil
}

// removeTree removes an entry of an open directory with everything below it, unless it is on another mount than top.
func removeTree(parent int, name, path string, top entry) (files int, err error) {
	e, err := statAt(parent, name, path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if e.mode&unix.S_IFMT != unix.S_IFDIR {
		if err := unix.Unlinkat(parent, name, 0); err != nil && err != unix.ENOENT {
			return 0, &os.PathError{Op: "unlink", Path: path, Err: err}
		}
		return 1, nil
	}
	fd, err := unix.Openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: path, Err: err}
	}
	dir := os.NewFile(uintptr(fd), path)
	defer dir.Close()
	// Of the open directory, because something may have been mounted since.
	if e, err = statAt(fd, "", path); err != nil {
		return 0, err
	}
	if !e.sameMount(top) {
		return 0, fmt.Errorf("not removed: %s is still mounted", path)
	}
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return 0, err
	}
	for _, n := range names {
		below, err := removeTree(fd, n, filepath.Join(path, n), top)
		files += below
		if err != nil {
			return files, err
		}
	}
	if err := unix.Unlinkat(parent, name, unix.AT_REMOVEDIR); err != nil && err != unix.ENOENT {
		return files, &os.PathError{Op: "rmdir", Path: path, Err: err}
	}
	return files, nil
}
