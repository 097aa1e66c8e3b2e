package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"cdblab/helpers/vm/protocol"
)

// setUpSystem does what systemd and udev do on a normal machine. The notes are for the person at the terminal.
func setUpSystem(job *protocol.Job) (notes []string, err error) {
	// systemd makes the root a shared mount. A runtime has to handle that, so the root is shared here too.
	if err := unix.Mount("", "/", "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		return nil, fmt.Errorf("make / shared: %w", err)
	}
	if err := mountFilesystems(); err != nil {
		return nil, err
	}
	missing, err := mountCgroups(job.Cgroup)
	if err != nil {
		return nil, err
	}
	if len(missing) > 0 {
		notes = append(notes, fmt.Sprintf("this kernel can't mount the cgroup v1 controllers %v: questions that need them are skipped; use CGROUP=v2 or an older kernel", missing))
	}
	if job.SourceDir != "" {
		if err := os.MkdirAll(job.SourceDir, 0o755); err != nil {
			return nil, err
		}
		// A bind mount, not a directory of the work disk: the path may lie below one of the mounts above.
		if err := unix.Mount(protocol.SourceTree, job.SourceDir, "", unix.MS_BIND, ""); err != nil {
			return nil, fmt.Errorf("bind %s: %w", job.SourceDir, err)
		}
	}
	// After the mount, which would hide a directory below the source.
	for _, d := range job.Mkdir {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	if err := unix.Sethostname([]byte("lab")); err != nil {
		return nil, err
	}
	if err := bringUpLoopback(); err != nil {
		return nil, fmt.Errorf("bring up lo: %w", err)
	}
	seedRandom(job.RandomSeed)
	// Only if the machine has no clock that the kernel reads.
	if now := time.Unix(0, job.Now); time.Since(now).Abs() > time.Minute {
		tv := unix.NsecToTimeval(job.Now)
		_ = unix.Settimeofday(&tv)
	}
	// The limits that systemd gives to its services.
	_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1024, Max: 524288})
	// If the guest runs out of memory, its kernel kills any process, and the result of the command is worth nothing. So
	// the kernel has to panic instead. The memory limits of cgroups are not affected: the kernel still kills a process of
	// the cgroup.
	_ = os.WriteFile("/proc/sys/vm/panic_on_oom", []byte("1"), 0)
	return notes, nil
}

func mountFilesystems() error {
	const nosuid = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	table := []struct {
		kind, at string
		flags    uintptr
		data     string
		optional bool // a kernel may be built without it
	}{
		{"devpts", "/dev/pts", unix.MS_NOSUID | unix.MS_NOEXEC, "gid=5,mode=620,ptmxmode=000", false},
		{"tmpfs", "/dev/shm", unix.MS_NOSUID | unix.MS_NODEV, "", false},
		{"mqueue", "/dev/mqueue", nosuid, "", true},
		{"tmpfs", "/run", unix.MS_NOSUID | unix.MS_NODEV, "mode=755", false},
		{"tmpfs", "/tmp", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777", false},
		// The root is an overlay, and an overlay cannot be the upper layer of another overlay.
		{"tmpfs", "/var/lib/containerd", 0, "mode=711", false},
		{"securityfs", "/sys/kernel/security", nosuid, "", true},
		{"bpf", "/sys/fs/bpf", nosuid, "mode=700", true},
	}
	// Mounting bpf makes the kernel look for a module that no distribution ships. Under emulation this costs a tenth of a
	// second, so modprobe is turned off for that time.
	const modprobe = "/proc/sys/kernel/modprobe"
	if path, err := os.ReadFile(modprobe); err == nil {
		_ = os.WriteFile(modprobe, []byte("\n"), 0)
		defer func() { _ = os.WriteFile(modprobe, path, 0) }()
	}
	for _, m := range table {
		// Below /sys the kernel itself creates the directory, if it knows the filesystem.
		if err := os.MkdirAll(m.at, 0o755); err != nil && !m.optional {
			return err
		}
		err := unix.Mount(m.kind, m.at, m.kind, m.flags, m.data)
		if err != nil && !m.optional {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	for _, l := range [][2]string{{"/proc/self/fd", "/dev/fd"}, {"fd/0", "/dev/stdin"}, {"fd/1", "/dev/stdout"}, {"fd/2", "/dev/stderr"}} {
		target := l[0]
		if !filepath.IsAbs(target) {
			target = "/proc/self/" + target
		}
		if err := os.Symlink(target, l[1]); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}

func bringUpLoopback() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	// The kernel gives lo its address 127.0.0.1 when it comes up.
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, ifr)
}

// seedRandom gives the kernel random numbers to start from. An emulated CPU has no RDRAND; without a seed, the first
// program that asks for random numbers would wait until the kernel has gathered enough of them from timings.
func seedRandom(b []byte) {
	if len(b) == 0 {
		return
	}
	f, err := os.OpenFile("/dev/random", os.O_WRONLY, 0)
	if err != nil {
		return
	}
	defer f.Close()
	var info struct { // rand_pool_info of linux/random.h
		bits, size int32
		buf        [64]byte
	}
	n := copy(info.buf[:], b)
	info.bits, info.size = int32(n*8), int32(n)
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.RNDADDENTROPY, uintptr(unsafe.Pointer(&info)))
}
