//go:build linux

package cgroup

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Start starts a command in the group, in one hierarchy: its process is never in another cgroup there. A process that moves itself, or
// is moved, is outside for a moment.
func (g Group) Start(cmd *exec.Cmd) error {
	for _, h := range g.hierarchies {
		if h.V2 {
			return startInV2(h.Path(g.Path), cmd)
		}
	}
	return startInV1(g.hierarchies[0], g.Path, cmd)
}

// startInV2 lets clone3 make the process in the cgroup (CLONE_INTO_CGROUP).
func startInV2(dir string, cmd *exec.Cmd) error {
	fd, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer fd.Close()
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(fd.Fd())
	return cmd.Start()
}

// startInV1 moves this thread, and no other thread of this process, into the cgroup: a process begins in the cgroup of the thread that
// makes it. Only v1 has the file tasks for that.
func startInV1(h Hierarchy, path string, cmd *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := ofThread(h)
	if err != nil {
		return err
	}
	move := func(to string) error {
		return os.WriteFile(filepath.Join(h.Path(to), "tasks"), []byte(strconv.Itoa(unix.Gettid())), 0o644)
	}
	if err := move(path); err != nil {
		return err
	}
	return errors.Join(cmd.Start(), move(before))
}

// ofThread returns the path of this thread's cgroup in a v1 hierarchy.
func ofThread(h Hierarchy) (string, error) {
	data, err := os.ReadFile("/proc/thread-self/cgroup")
	for line := range strings.Lines(string(data)) {
		if f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3); len(f) == 3 && f[1] == h.Name {
			return f[2], nil
		}
	}
	return "", errors.Join(fmt.Errorf("/proc/thread-self/cgroup has no line for %s", h.Name), err)
}
