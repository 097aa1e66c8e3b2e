//go:build linux

// Package seccomp reads the seccomp filter of a process, and answers the notifications of one (seccomp(2)).
package seccomp

import (
	"fmt"
	"runtime"
	"strings"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"cdblab/helpers/proc"
)

// NativeArch returns the machine's architecture as linux.seccomp.architectures names it. It returns none for an
// architecture that it does not know: the runtime then takes the native one.
func NativeArch() []specs.Arch {
	if arch, ok := map[string]specs.Arch{"amd64": specs.ArchX86_64, "arm64": specs.ArchAARCH64}[runtime.GOARCH]; ok {
		return []specs.Arch{arch}
	}
	return nil
}

// ShellSyscalls are the system calls that `runc init` needs after it has loaded the filter, and that the shell needs to
// run a program. The runtime ignores a name that the machine's architecture does not have.
var ShellSyscalls = strings.Fields(`access arch_prctl brk capget capset chdir clone clone3 close close_range dup dup2 dup3
	epoll_create1 epoll_ctl epoll_pwait eventfd2 execve execveat exit exit_group faccessat faccessat2 fchdir fcntl fstat fstatfs futex
	getcwd getdents64 getegid geteuid getgid getpgrp getpid getppid getrandom gettid getuid ioctl kill lseek lstat
	madvise mmap mprotect mremap munmap nanosleep clock_nanosleep clock_gettime newfstatat open openat openat2 pipe pipe2 poll ppoll
	prctl prlimit64 pread64 read readlink readlinkat readv restart_syscall rseq rt_sigaction rt_sigprocmask rt_sigreturn
	rt_sigsuspend sched_getaffinity sched_yield select pselect6 set_robust_list set_tid_address setgid setgroups setuid
	sigaltstack stat statx tgkill timer_create timer_delete timer_settime setitimer umask uname unlink unlinkat vfork
	wait4 waitid write writev pidfd_send_signal pidfd_open`)

// FilterFlags returns the flags with which the first filter of a process was loaded. It reads them with ptrace(2).
func FilterFlags(pid proc.PID) (uint64, error) {
	runtime.LockOSThread() // a tracer is a thread
	defer runtime.UnlockOSThread()
	if err := unix.PtraceSeize(int(pid)); err != nil {
		return 0, fmt.Errorf("PTRACE_SEIZE: %w", err)
	}
	if err := unix.PtraceInterrupt(int(pid)); err != nil {
		return 0, fmt.Errorf("PTRACE_INTERRUPT: %w", err)
	}
	var status unix.WaitStatus
	if _, err := unix.Wait4(int(pid), &status, unix.WALL, nil); err != nil {
		return 0, fmt.Errorf("wait until process %d stops for its tracer: %w", pid, err)
	}
	var metadata struct{ filter, flags uint64 }
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SECCOMP_GET_METADATA, uintptr(pid),
		unsafe.Sizeof(metadata), uintptr(unsafe.Pointer(&metadata)), 0, 0)
	if err := unix.PtraceDetach(int(pid)); err != nil {
		return 0, fmt.Errorf("PTRACE_DETACH: %w", err)
	}
	if errno != 0 {
		return 0, fmt.Errorf("PTRACE_SECCOMP_GET_METADATA: %w", errno)
	}
	return metadata.flags, nil
}
