//go:build linux

package host

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// Process is a live process, as far as the lab must know it to tell whose it is.
type Process struct {
	PID    int
	PPID   int
	Start  uint64 // clock ticks after boot: with the pid, it names a process for good (proc(5))
	Comm   string
	State  string
	Cgroup string   // /proc/PID/cgroup, lines joined by spaces
	Run    string   // value of [MarkEnv] in its environment; "" without
	NoEnv  bool     // it has no environment at all, or not yet: it is in the middle of execve(2)
	NS     []uint64 // inodes of its namespaces
}

// String names the process for a reader of a failure.
func (p Process) String() string {
	run := ""
	if p.Run != "" {
		run = " " + OwnerEnv + "=" + p.Run
	}
	return fmt.Sprintf("pid %d (%s) state %s parent %d cgroup %s%s", p.PID, p.Comm, p.State, p.PPID, p.Cgroup, run)
}

// kthreadd is the parent of all kernel threads, which are nobody's.
const kthreadd = 2

// Processes lists the live processes of user space. A zombie is dead: it holds nothing but its exit status, and pid 1 of a small VM
// may take its time to collect it.
func Processes() ([]Process, error) { return list(func(Process) bool { return true }) }

// list lists those that are asked for; the namespaces of the others, which take longest to read, are not looked at.
func list(wanted func(Process) bool) ([]Process, error) {
	all, err := procfs.AllProcs()
	if err != nil {
		return nil, err
	}
	var out []Process
	for _, p := range all {
		if proc, ok := readProcess(p); ok && wanted(proc) {
			proc.NS = namespacesOf(p)
			out = append(out, proc)
		}
	}
	return out, nil
}

func namespacesOf(p procfs.Proc) []uint64 {
	var out []uint64
	if ns, err := p.Namespaces(); err == nil {
		for _, n := range ns {
			out = append(out, uint64(n.Inode))
		}
	}
	return out
}

func readProcess(p procfs.Proc) (Process, bool) {
	dir := "/proc/" + strconv.Itoa(p.PID)
	data, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return Process{}, false // gone meanwhile
	}
	proc, err := parseStat(string(data))
	if err != nil || proc.State == "Z" || proc.State == "X" {
		return Process{}, false // dead
	}
	if proc.PID = p.PID; p.PID == kthreadd || proc.PPID == kthreadd {
		return Process{}, false
	}
	if cg, err := os.ReadFile(dir + "/cgroup"); err == nil {
		proc.Cgroup = strings.Join(strings.Fields(string(cg)), " ")
	}
	if env, err := os.ReadFile(dir + "/environ"); err == nil {
		proc.NoEnv = len(env) == 0
		for kv := range strings.SplitSeq(string(env), "\x00") {
			if v, ok := strings.CutPrefix(kv, OwnerEnv+"="); ok {
				proc.Run = v
			}
		}
	}
	return proc, true
}

// parseStat reads the few fields of /proc/PID/stat that every picture needs of every process (proc_pid_stat(5)): on a
// machine with many processes most of a picture's time goes here, and a library that reads all fields takes ten times
// as long.
func parseStat(stat string) (Process, error) {
	open, end := strings.IndexByte(stat, '('), strings.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return Process{}, fmt.Errorf("/proc/PID/stat reads %q: no name in parentheses", stat)
	}
	f := strings.Fields(stat[end+1:])
	if len(f) < 20 {
		return Process{}, fmt.Errorf("/proc/PID/stat reads %q: too few fields", stat)
	}
	parent, err1 := strconv.Atoi(f[1])
	start, err2 := strconv.ParseUint(f[19], 10, 64)
	return Process{Comm: stat[open+1 : end], State: f[0], PPID: parent, Start: start}, errors.Join(err1, err2)
}

// age is how long the process has lived.
func (p Process) age() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 0
	}
	const tick = 10 * time.Millisecond // of USER_HZ
	return time.Duration(now.Nano()) - time.Duration(p.Start)*tick
}

// Of says whether the process belongs to a part of the lab.
func (p Process) OwnedBy(part Owner) bool { return part.Owns(p.Run) || part.Owns(p.Cgroup) }

// kill sends SIGKILL to exactly this process: through a pidfd, and only if pid and start time still agree, so that a
// pid which the kernel gave to somebody else meanwhile is safe.
func (p Process) kill() error {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err == unix.ESRCH {
		return nil
	}
	if err != nil {
		return fmt.Errorf("pidfd_open %d (%s): %w", p.PID, p.Comm, err)
	}
	defer unix.Close(fd)
	again, err := procfs.NewProc(p.PID)
	if err != nil {
		return nil //nolint:nilerr // gone
	}
	if now, ok := readProcess(again); !ok || now.Start != p.Start {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
		return fmt.Errorf("kill %d (%s): %w", p.PID, p.Comm, err)
	}
	return nil
}
