//go:build linux

package lab

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// WriteLine writes one line of text into a file of the host, as the shell's echo does.
func (q *Q) WriteLine(path, line string) {
	q.Helper()
	if err := os.WriteFile(path, []byte(line+"\n"), 0o644); err != nil {
		q.Fatal(err)
	}
	q.LogCommand("echo '%s' > %s", line, strings.TrimPrefix(path, q.Dir+"/"))
}

// MountTmpfs makes a directory on the host, if it is not there, mounts a tmpfs on it, and returns its path. The directory of
// the question itself may be on a file system that forbids devices, set-user-ID programs or execution.
//
// When the question ends, the tmpfs is unmounted together with everything that has been mounted below it.
func (q *Q) MountTmpfs(dir string) string {
	q.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		q.Fatal(err)
	}
	if err := unix.Mount("cdb-host", dir, "tmpfs", 0, "mode=755"); err != nil {
		q.Fatalf("mount a tmpfs on %s: %v", dir, err)
	}
	q.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			q.Errorf("unmount %s: %v", dir, err)
		}
	})
	q.LogCommand("mkdir -p %[1]s && mount -t tmpfs -o mode=755 cdb-host %[1]s", strings.TrimPrefix(dir, q.Dir+"/"))
	return dir
}
