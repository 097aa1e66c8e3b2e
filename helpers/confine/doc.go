//go:build linux

// Package confine runs a command that may do anything as root, and keeps the machine from it as far as namespaces and cgroups can:
//
//   - PID namespace: it can signal no process outside, and all of its processes end with the first one. A program that forks
//     without end is ended by one signal.
//   - Mount namespace: a mount that it leaves ends with it, and unmounting all of "/" does not reach the host.
//   - A null device of its own, over /dev/null: a runtime that gives it away does not give away the host's.
//   - No systemd: it would take a pid of the namespace for one of the host, and kill another process. The questions about systemd are
//     skipped.
//   - UTS and IPC namespaces: a container that shares its caller's names renames nothing outside.
//   - A cgroup below /cdb-lab, with limits for memory and processes. A container that it starts has another cgroup. So the machine's
//     free memory and the number of its threads are watched as well.
//
// Files are shared with the host. A mutant of a runtime may write anywhere, so the machine has to be a disposable one.
package confine
