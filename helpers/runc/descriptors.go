//go:build linux

package runc

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"

	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// InitDescriptors says what each descriptor of a `runc init` is for that it has besides stdin, stdout and stderr, sorted.
// Descriptors that it may not have are in the second list, as the kernel shows them.
//
// An open file of the host is a way out of the container. With process.cwd = /proc/self/fd/7, runc 1.1.11 started the program in
// the directory of its descriptor 7, which was the host's /sys/fs/cgroup (CVE-2024-21626).
func (c *Container) InitDescriptors(init proc.Process) (allowed, others []string) {
	c.q.Helper()
	// Between create and start, only this process opens and closes its files. It waits now.
	proc.WaitFor(c.q, proc.SleepsIn(init.PID, unix.SYS_OPENAT))
	for _, d := range proc.Descriptors(c.q, init.PID) {
		if d.FD <= 2 {
			continue
		}
		purpose := c.purpose(init, d)
		if purpose != "" && d.CloseOnExec {
			allowed = append(allowed, purpose)
			continue
		}
		kind := "a file"
		if d.Directory {
			kind = "a directory"
		}
		others = append(others, fmt.Sprintf("%d → %s (%s, file system %#x, close-on-exec %t)",
			d.FD, d.Target, kind, d.FileSystem, d.CloseOnExec))
	}
	slices.Sort(allowed)
	return slices.Compact(allowed), others
}

// purpose returns what `runc init` needs a descriptor for, or "" if it needs no such descriptor.
func (c *Container) purpose(init proc.Process, d proc.Descriptor) string {
	c.q.Helper()
	switch {
	case d.Target == c.Fifo():
		return "exec.fifo, for start"
	case strings.HasPrefix(d.Target, "anon_inode:[event"):
		return "epoll and eventfd, of Go's runtime"
	case strings.HasPrefix(d.Target, "socket:"), strings.HasPrefix(d.Target, "pipe:"):
		return "sockets and pipes, to talk with runc create"
	case d.OnOwnProcfs(c.q):
		return "procfs"
	// Go's runtime reads the CPU limit of its own cgroup, for GOMAXPROCS.
	case isCgroupFileSystem(d.FileSystem) && !d.Directory && strings.HasPrefix(filepath.Base(d.Target), "cpu."):
		return "CPU limit of its cgroup, for Go's runtime"
	case !d.Directory && isProgramOf(c.q, init, d):
		return "its own program"
	}
	return ""
}

func isCgroupFileSystem(magic int64) bool {
	return magic == unix.CGROUP_SUPER_MAGIC || magic == unix.CGROUP2_SUPER_MAGIC
}

// isProgramOf reports whether a descriptor is the file that the process runs.
func isProgramOf(q *lab.Q, p proc.Process, d proc.Descriptor) bool {
	q.Helper()
	program, err := os.Stat(fmt.Sprintf("/proc/%d/exe", p.PID))
	assert.NilError(q, err)
	open, err := os.Stat(fmt.Sprintf("/proc/%d/fd/%d", p.PID, d.FD))
	assert.NilError(q, err)
	return os.SameFile(program, open)
}
