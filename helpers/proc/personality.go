//go:build linux

package proc

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// PERLinux32 is PER_LINUX32 of linux/personality.h.
const PERLinux32 = 8

// HasPersonality reports whether the kernel accepts a personality. An arm64 processor without AArch32 has no PER_LINUX32.
func HasPersonality(domain uintptr) bool {
	accepted := make(chan bool)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its personality
		_, _, errno := unix.RawSyscall(unix.SYS_PERSONALITY, domain, 0, 0)
		accepted <- errno == 0
	}()
	return <-accepted
}
