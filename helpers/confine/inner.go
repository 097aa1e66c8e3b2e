//go:build linux

package confine

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Inner is what process 1 of the PID namespace does: it enters the cgroups, makes the mounts its own, runs the command, and returns
// the command's exit code. The arguments are those that [Command.Run] has added. The kernel kills all processes of the namespace
// when this process ends.
func Inner(args []string) int {
	i := slices.Index(args, "--")
	if os.Getpid() != 1 || i < 0 || i == len(args)-1 {
		fmt.Fprintln(os.Stderr, "lab: only lab confine starts this")
		return 2
	}
	code, err := inner(args[:i], args[i+1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab: confine the command:", err)
		return 125
	}
	return code
}

func inner(cgroups, argv []string) (int, error) {
	for _, dir := range cgroups {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0o644); err != nil {
			return 0, err
		}
	}
	if err := ownMounts(); err != nil {
		return 0, err
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	p, err := os.StartProcess(argv[0], argv, &os.ProcAttr{Files: []*os.File{null, os.Stdout, os.Stderr}, Env: os.Environ()})
	if err != nil {
		return 0, err
	}
	go func() {
		for s := range signals {
			_ = p.Signal(s)
		}
	}()
	return reap(p.Pid)
}

// ownMounts keeps the mounts of this namespace from those of the host. A mount that was shared is shared within the namespace, as
// the questions see it on the host. /proc shows the processes of the PID namespace.
func ownMounts() error {
	root, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter("/"))
	if err != nil || len(root) == 0 {
		return fmt.Errorf("find the mount of /: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("make the mounts slaves of the host's: %w", err)
	}
	if err := ownNullDevice(); err != nil {
		return fmt.Errorf("mount a null device: %w", err)
	}
	if slices.ContainsFunc(root, func(m *mountinfo.Info) bool { return len(m.Optional) > 0 }) {
		if err := unix.Mount("", "/", "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("share the mounts within the namespace: %w", err)
		}
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	return nil
}

// ownNullDevice mounts another null device over /dev/null: a runtime may give it to another user, or replace it, and every program of
// the host needs its own. The device is on a file system that has no other file, and stays when this is no longer mounted anywhere.
func ownNullDevice() error {
	const place = "/run" // any directory of the host: it is covered for a moment, in this namespace alone
	if err := unix.Mount("cdb-null", place, "tmpfs", unix.MS_NOEXEC|unix.MS_NOSUID, "mode=755"); err != nil {
		return err
	}
	null := filepath.Join(place, "null")
	err := unix.Mknod(null, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3)))
	if err == nil {
		err = os.Chmod(null, 0o666) // whatever the umask is
	}
	if err == nil {
		err = unix.Mount(null, os.DevNull, "", unix.MS_BIND, "")
	}
	return errors.Join(err, unix.Unmount(place, unix.MNT_DETACH))
}

// reap waits for all processes, as process 1 has to, until the command has ended. It returns the command's exit code.
func reap(command int) (int, error) {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, fmt.Errorf("wait for the command: %w", err)
		case pid == command && status.Signaled():
			return 128 + int(status.Signal()), nil
		case pid == command && status.Exited():
			return status.ExitStatus(), nil
		}
	}
}
