//go:build linux

package host

import (
	"fmt"

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
