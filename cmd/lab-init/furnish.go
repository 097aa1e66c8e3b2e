package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"cdblab/helpers/vm/wire"
)

// furnish makes the bare machine a normal one: what systemd and udev would have done. The notes are for the person
// who watches.
func furnish(job *wire.Job) (notes []string, err error) {
	// As systemd does. A runtime has to cope with a shared root, so it has to be one here too.
	if err := unix.Mount("", "/", "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		return nil, fmt.Errorf("make / shared: %w", err)
	}
	if err := mounts(); err != nil {
		return nil, err
	}
	missing, err := cgroups(job.Cgroup)
	if err != nil {
		return nil, err
	}
	if len(missing) > 0 {
		notes = append(notes, fmt.Sprintf("this kernel can't mount the cgroup v1 controllers %v: what needs them can't be asked here; take CGROUP=v2 or an older kernel", missing))
	}
	for _, d := range job.Mkdir {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	if job.Tree != "" {
		if err := os.MkdirAll(job.Tree, 0o755); err != nil {
			return nil, err
		}
		// A bind mount, and not a place on the work disk, because the path may lie below one of the mounts above.
		if err := unix.Mount(wire.Tree, job.Tree, "", unix.MS_BIND, ""); err != nil {
			return nil, fmt.Errorf("bind %s: %w", job.Tree, err)
		}
	}
	if err := unix.Sethostname([]byte("lab")); err != nil {
		return nil, err
	}
	if err := loopback(); err != nil {
		return nil, fmt.Errorf("bring up lo: %w", err)
	}
	seed(job.Seed)
	// Only where the machine has no clock of its own that the kernel reads.
	if now := time.Unix(0, job.Now); time.Since(now).Abs() > time.Minute {
		tv := unix.NsecToTimeval(job.Now)
		_ = unix.Settimeofday(&tv)
	}
	// What systemd gives its services.
	_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1024, Max: 524288})
	// A guest that is out of memory kills what it likes, and what it then reports is worth nothing. A panic is
	// honest. Limits of cgroups are not meant: those kill inside the group as ever.
	_ = os.WriteFile("/proc/sys/vm/panic_on_oom", []byte("1"), 0)
	return notes, nil
}

func mounts() error {
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
		// The root is an overlay, and an overlay can't be the upper layer of another.
		{"tmpfs", "/var/lib/containerd", 0, "mode=711", false},
		{"securityfs", "/sys/kernel/security", nosuid, "", true},
		{"bpf", "/sys/fs/bpf", nosuid, "mode=700", true},
	}
	// Mounting bpf makes the kernel look for a module that no distribution ships. Under emulation the look costs a
	// tenth of a second, so there is no modprobe for the moment.
	const modprobe = "/proc/sys/kernel/modprobe"
	if path, err := os.ReadFile(modprobe); err == nil {
		_ = os.WriteFile(modprobe, []byte("\n"), 0)
		defer func() { _ = os.WriteFile(modprobe, path, 0) }()
	}
	for _, m := range table {
		// Below /sys the kernel makes the directory, where it knows the file system.
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

func loopback() error {
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

// seed gives the kernel random numbers to start from. An emulated CPU has no RDRAND, and whoever asks first would
// wait for the kernel to gather enough from timings.
func seed(b []byte) {
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
