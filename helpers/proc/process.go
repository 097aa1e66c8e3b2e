//go:build linux

package proc

import (
	"errors"
	"fmt"
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
	"gotest.tools/v3/poll"
)

// PID is a process id in the pid namespace of the caller. It is volatile: two runs never agree on it.
type PID int

// Volatile is the word that stands for a pid where two runs are compared.
func (PID) Volatile() string { return "pid" }

// Inode names a namespace: /proc/PID/ns/* with the same inode are the same namespace (namespaces(7)).
type Inode uint64

// Volatile is the word that stands for an inode where two runs are compared.
func (Inode) Volatile() string { return "namespace" }

// Ticks is a time after boot, in clock ticks of 1/100 s (proc(5), starttime).
type Ticks uint64

// Volatile is the word that stands for a start time where two runs are compared.
func (Ticks) Volatile() string { return "start time" }

// Identity is what stays the same as long as the kernel's process and its surroundings do, whichever program runs in
// it. Two identities are compared whole.
type Identity struct {
	PID     PID
	Start   Ticks             // field 22 of stat: with PID it names a process for good
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

// Snapshot reads a process. A process that does not exist, or that ends while it is read, fails the test.
func Snapshot(tb testing.TB, pid PID) Process {
	tb.Helper()
	p, err := Read(pid)
	if err != nil {
		tb.Fatalf("read process %d: %v", pid, err)
	}
	return p
}

// Read reads a process, or says why it cannot be read.
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
	for _, n := range ns {
		// pid_for_children and time_for_children are about children to come, not about this process.
		if !strings.HasSuffix(n.Type, "_for_children") {
			p.NS[n.Type] = Inode(n.Inode)
		}
	}
	for _, c := range cgroups {
		p.Cgroups[strings.Join(c.Controllers, ",")] = c.Path
	}
	p.Mounts = mounts
	return p, nil
}

// Self is the test's own process: what it shows is the host's, for it runs in no container. /proc/1 would do as well,
// but even root may not be allowed to read its namespaces.
func Self(tb testing.TB) Process {
	tb.Helper()
	return Snapshot(tb, PID(os.Getpid()))
}

// Children lists the direct children of a process, sorted.
func Children(tb testing.TB, pid PID) []PID {
	tb.Helper()
	all, err := procfs.AllProcs()
	if err != nil {
		tb.Fatalf("list processes: %v", err)
	}
	var out []PID
	for _, p := range all {
		if stat, err := p.Stat(); err == nil && PID(stat.PPID) == pid && stat.State != "Z" {
			out = append(out, PID(p.PID))
		}
	}
	slices.Sort(out)
	return out
}

// Find lists the live processes that match, by what is cheap to read: their pid, comm and arguments.
func Find(tb testing.TB, match func(pid PID, comm string, args []string) bool) []PID {
	tb.Helper()
	all, err := procfs.AllProcs()
	if err != nil {
		tb.Fatalf("list processes: %v", err)
	}
	var out []PID
	for _, p := range all {
		stat, err1 := p.Stat()
		args, err2 := p.CmdLine()
		if err1 == nil && err2 == nil && stat.State != "Z" && match(PID(p.PID), stat.Comm, args) {
			out = append(out, PID(p.PID))
		}
	}
	slices.Sort(out)
	return out
}

// Same says whether both are the same process, wherever it may have been moved meanwhile.
func (id Identity) Same(other Identity) bool { return id.PID == other.PID && id.Start == other.Start }

// Shared lists the namespaces that both processes are in, by type.
func (id Identity) SharedNamespaces(other Identity) []string {
	var out []string
	for _, t := range slices.Sorted(maps.Keys(id.NS)) {
		if id.NS[t] == other.NS[t] {
			out = append(out, t)
		}
	}
	return out
}

// Own lists the namespaces that this process has apart from the other, by type.
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

// Alive says whether there is a process of this pid that has not ended. A zombie has.
func Alive(pid PID) bool {
	p, err := procfs.NewProc(int(pid))
	if err != nil {
		return false
	}
	stat, err := p.Stat()
	return err == nil && stat.State != "Z" && stat.State != "X"
}

// UsedTicks is the ticks of processor time that the process has used, in user and kernel mode, in 1/100 s (utime and stime of proc(5)).
func UsedTicks(tb testing.TB, pid PID) uint64 {
	tb.Helper()
	n, err := usedTicks(pid)
	if err != nil {
		tb.Fatalf("processor time of process %d: %v", pid, err)
	}
	return n
}

func usedTicks(pid PID) (uint64, error) {
	p, err := procfs.NewProc(int(pid))
	if err != nil {
		return 0, err
	}
	stat, err := p.Stat()
	return uint64(stat.UTime + stat.STime), err
}

// HasUsed is a poll check: the process has used at least so many ticks of processor time.
func HasUsed(pid PID, ticks uint64) poll.Check {
	return func(poll.LogT) poll.Result {
		n, err := usedTicks(pid)
		if err != nil {
			return poll.Error(err)
		}
		if n < ticks {
			return poll.Continue("process %d has used %d ticks of processor time, not %d", pid, n, ticks)
		}
		return poll.Success()
	}
}

// Stat reads /proc/PID/stat.
func Stat(tb testing.TB, pid PID) procfs.ProcStat {
	tb.Helper()
	p, err := procfs.NewProc(int(pid))
	assert.NilError(tb, err)
	s, err := p.Stat()
	assert.NilError(tb, err)
	return s
}

// OtherThan is the first pid of a list that is another one.
func FirstExcept(pid PID, all []PID) PID {
	for _, p := range all {
		if p != pid {
			return p
		}
	}
	return 0
}
