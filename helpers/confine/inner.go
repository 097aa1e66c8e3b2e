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

	"cdblab/helpers/host"
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
	if err := hideSystemd(); err != nil {
		return fmt.Errorf("hide systemd: %w", err)
	}
	if err := allowExec(); err != nil {
		return fmt.Errorf("allow to execute programs below /run: %w", err)
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

// hideSystemd covers the sockets of systemd and of its bus. A runtime that asks systemd for a scope sends a pid of this namespace.
// systemd would take it for a pid of the host, and move another process, which the sweep of the scope would kill. Without
// /run/systemd/system the questions about systemd are skipped: https://man7.org/linux/man-pages/man3/sd_booted.3.html
func hideSystemd() error {
	for _, dir := range []string{"/run/systemd", "/run/dbus"} {
		err := unix.Mount("cdb-none", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=755")
		if err != nil && err != unix.ENOENT {
			return &os.PathError{Op: "mount", Path: dir, Err: err}
		}
	}
	return nil
}

// allowExec removes noexec, with which Debian's initramfs mounts /run, from the mount in this namespace. Otherwise a run would mount a
// tmpfs on its directory. The lab outside would not see this tmpfs, nor the run's lock in it, and would sweep the run.
func allowExec() error {
	for _, dir := range []string{filepath.Dir(host.Dir), host.Dir} { // host.Dir may have a file system of its own
		forbids, err := host.ForbidsExec(dir)
		if err == nil && forbids {
			err = unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND, "")
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
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
