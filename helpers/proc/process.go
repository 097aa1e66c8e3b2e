//go:build linux

package proc

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
	"github.com/prometheus/procfs"
	"gotest.tools/v3/assert"
)

// PID is a process id in the pid namespace of the caller. It is volatile: it is different in each run.
type PID int

// Volatile returns the kind "pid" (see lab.Volatile).
func (PID) Volatile() string { return "pid" }

// Inode identifies a namespace: two files /proc/PID/ns/* with the same inode are the same namespace (namespaces(7)).
type Inode uint64

// Volatile returns the kind "namespace" (see lab.Volatile).
func (Inode) Volatile() string { return "namespace" }

// Ticks is a time after boot, in clock ticks of 1/100 s (proc(5), starttime).
type Ticks uint64

// Volatile returns the kind "start time" (see lab.Volatile).
func (Ticks) Volatile() string { return "start time" }

// Identity is what execve(2) does not change: the kernel's process and its surroundings. Two identities are compared whole.
type Identity struct {
	PID     PID
	Start   Ticks             // field 22 of stat: with PID, it identifies a process for good
	Parent  PID               // field 4 of stat
	NS      map[string]Inode  // namespace type → inode, from /proc/PID/ns
	Cgroups map[string]string // hierarchy ("cpu,cpuacct", "name=systemd"; "" is v2) → path, from /proc/PID/cgroup
	Mounts  []string          // /proc/PID/mountinfo: "mount point type options", in order
}

// Program is what execve(2) changes.
type Program struct {
	Comm    string   // /proc/PID/comm, at most 15 bytes
	Args    []string // /proc/PID/cmdline
	Env     []string // /proc/PID/environ
	Exe     string   // /proc/PID/exe
	Threads int
	FDs     map[int]string // /proc/PID/fd
}

// Process is a process at one moment.
type Process struct {
	Identity
	Program
	State string // field 3 of stat: R, S, D, Z, …
	UID   int    // effective user id
}

// Snapshot is [Read] for a process that has to exist. If it does not exist, or if it ends while it is read, the test fails.
func Snapshot(tb testing.TB, pid PID) Process {
	tb.Helper()
	p, err := Read(pid)
	if err != nil {
		tb.Fatalf("read process %d: %v", pid, err)
	}
	return p
}

// Read returns the process with this pid as it is now.
func Read(pid PID) (Process, error) {
	fs, err := procfs.NewProc(int(pid))
	if err != nil {
		return Process{}, err
	}
	stat, err1 := fs.Stat()
	status, err2 := fs.NewStatus()
	args, err3 := fs.CmdLine()
	env, err4 := fs.Environ()
	ns, err5 := fs.Namespaces()
	cgroups, err6 := fs.Cgroups()
	mounts, err7 := readMounts(pid)
	exe, err8 := os.Readlink(path(pid, "exe"))
	fds, err9 := readFDs(pid)
	if err := errors.Join(err1, err2, err3, err4, err5, err6, err7, err8, err9); err != nil {
		return Process{}, err
	}
	p := Process{
		Identity: Identity{
			PID: pid, Start: Ticks(stat.Starttime), Parent: PID(stat.PPID),
			NS: map[string]Inode{}, Cgroups: map[string]string{},
		},
		Program: Program{Comm: stat.Comm, Args: args, Env: env, Exe: exe, Threads: stat.NumThreads, FDs: fds},
		State:   stat.State,
		UID:     int(status.UIDs[1]),
	}
	for name, n := range ns {
		// pid_for_children and time_for_children are the namespaces of later children, not of this process. Their n.Type is pid and time.
		if !strings.HasSuffix(name, "_for_children") {
			p.NS[name] = Inode(n.Inode)
		}
	}
	for _, c := range cgroups {
		p.Cgroups[strings.Join(c.Controllers, ",")] = c.Path
	}
	p.Mounts = mounts
	return p, nil
}

// Self returns the test's own process. Its namespaces and mounts are the host's, because it does not run in a container.
// Process 1 has the same, but even root may not be allowed to read its namespaces.
func Self(tb testing.TB) Process {
	tb.Helper()
	return Snapshot(tb, PID(os.Getpid()))
}

// Same reports whether both are the same process, also if it was moved to other cgroups or got another parent.
func (id Identity) Same(other Identity) bool { return id.PID == other.PID && id.Start == other.Start }

// SharedNamespaces lists the types of the namespaces that both processes are in.
func (id Identity) SharedNamespaces(other Identity) []string {
	var out []string
	for _, t := range slices.Sorted(maps.Keys(id.NS)) {
		if id.NS[t] == other.NS[t] {
			out = append(out, t)
		}
	}
	return out
}

// OwnNamespaces lists the types of the namespaces in which the process is and the other process is not.
func (id Identity) OwnNamespaces(other Identity) []string {
	var out []string
	for _, t := range slices.Sorted(maps.Keys(id.NS)) {
		if id.NS[t] != other.NS[t] {
			out = append(out, t)
		}
	}
	return out
}

func readMounts(pid PID) ([]string, error) {
	f, err := os.Open(path(pid, "mountinfo"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	ms, err := mountinfo.GetMountsFromReader(f, nil)
	var out []string
	for _, m := range ms {
		out = append(out, fmt.Sprintf("%s %s %s", m.Mountpoint, m.FSType, m.Options))
	}
	return out, err
}

func readFDs(pid PID) (map[int]string, error) {
	dir := path(pid, "fd")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	out := map[int]string{}
	for _, e := range entries {
		n, err := strconv.Atoi(e.Name())
		if err != nil {
			return nil, err
		}
		if target, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil {
			out[n] = target
		}
	}
	return out, nil
}

func path(pid PID, name string) string {
	return filepath.Join("/proc", strconv.Itoa(int(pid)), name)
}

// Stat returns the fields of /proc/PID/stat.
func Stat(tb testing.TB, pid PID) procfs.ProcStat {
	tb.Helper()
	p, err := procfs.NewProc(int(pid))
	assert.NilError(tb, err)
	s, err := p.Stat()
	assert.NilError(tb, err)
	return s
}

// ExeDigest returns the sha256 of the program that the process runs, read through /proc/PID/exe. That is the executed file
// itself, whatever name it has in the process's mount namespace, also if the file was deleted.
func ExeDigest(tb testing.TB, pid PID) string {
	tb.Helper()
	f, err := os.Open(path(pid, "exe"))
	if err != nil {
		tb.Fatalf("read the program of process %d: %v", pid, err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		tb.Fatalf("read the program of process %d: %v", pid, err)
	}
	return fmt.Sprintf("sha256:%x", h.Sum(nil))
}
