//go:build linux

package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// CheckNullDevice returns an error unless /dev/null is the null device, char 1:3. A program that runs as root and "cleans
// up" its output file can replace /dev/null by a regular file. Then many programs on the host fail in odd ways.
func CheckNullDevice() error {
	if got := describeDevice("/dev/null"); got != "char 1:3" {
		return fmt.Errorf("/dev/null %s, not char 1:3: mend it with: rm -f /dev/null && mknod -m 666 /dev/null c 1 3", got)
	}
	return nil
}

func describeDevice(path string) string {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return err.Error()
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR {
		return fmt.Sprintf("is no character device (mode %o)", st.Mode)
	}
	return fmt.Sprintf("char %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
}

// describeAccess returns the owner and the mode of a device. A runtime that makes devices in a container can change those of the
// host's by mistake.
func describeAccess(path string) string {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%s, mode %o, owner %d:%d", describeDevice(path), st.Mode&0o7777, st.Uid, st.Gid)
}

// nullDevicePath returns the file in which a run records the owner and the mode that /dev/null had when the run began.
func nullDevicePath(run string) string { return filepath.Join(Dir, run, "null-device") }

// recordNullDevice records the owner and the mode of /dev/null for [restoreNullDevice].
func recordNullDevice(run string) error {
	var st unix.Stat_t
	if err := unix.Stat("/dev/null", &st); err != nil {
		return &os.PathError{Op: "stat", Path: "/dev/null", Err: err}
	}
	return os.WriteFile(nullDevicePath(run), fmt.Appendf(nil, "%o %d %d", st.Mode&0o7777, st.Uid, st.Gid), 0o600)
}

// restoreNullDevice gives /dev/null the owner and the mode that it had when the run began. crun 1.8.1 gives the host's /dev/null to
// the root of a container that has a user namespace, and leaves it so. A question reports the change by name before it is swept.
func restoreNullDevice(run string) error {
	record, err := os.ReadFile(nullDevicePath(run))
	if errors.Is(err, os.ErrNotExist) {
		return nil // the run had not begun, or it is removed
	}
	if err != nil {
		return err
	}
	var mode, uid, gid uint32
	if _, err := fmt.Sscanf(string(record), "%o %d %d", &mode, &uid, &gid); err != nil {
		return fmt.Errorf("%s is damaged: %w", nullDevicePath(run), err)
	}
	var st unix.Stat_t
	if err := unix.Lstat("/dev/null", &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR {
		return CheckNullDevice() // what replaced it is for the user to look at
	}
	if st.Uid == uid && st.Gid == gid && st.Mode&0o7777 == mode {
		return nil
	}
	// In this order, because chown clears bits of the mode.
	return errors.Join(os.Lchown("/dev/null", int(uid), int(gid)), unix.Chmod("/dev/null", mode))
}
