//go:build linux

package host

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/procfs"

	"cdblab/helpers/proc"
)

// Process is a live process, with what the lab needs to find its owner. Reading it takes less time than [proc.Read].
type Process struct {
	PID           proc.PID
	Parent        proc.PID
	Start         proc.Ticks // with the PID, it identifies a process for good (proc(5))
	Comm          string
	State         string
	Cgroup        string       // /proc/PID/cgroup, lines joined by spaces
	Mark          string       // value of [OwnerEnv] in its environment; "" without
	cgroups       []string     // lines of /proc/PID/cgroup
	NoEnvironment bool         // it has no environment at all, or not yet: it is in the middle of execve(2)
	Namespaces    []proc.Inode // in no particular order
}

// String describes the process for the message of a failure. An inventory has this text, and isOwnedBy reads it.
func (p Process) String() string {
	mark := ""
	if p.Mark != "" {
		mark = " " + OwnerEnv + "=" + p.Mark
	}
	// A process chooses its name, so the name must not look like a path of the lab.
	comm := strings.ReplaceAll(p.Comm, "/", "?")
	return fmt.Sprintf("pid %d (%s) state %s parent %d cgroup %s%s", p.PID, comm, p.State, p.Parent, p.Cgroup, mark)
}

// ownsProcess reports whether a text of [Process.String] describes a process of the owner, as [Process.OwnedBy] does.
func (o Owner) ownsProcess(description string) bool {
	text, mark, marked := strings.Cut(description, " "+OwnerEnv+"=")
	if marked {
		return o.ownsMark(mark)
	}
	_, cgroups, _ := strings.Cut(text, " cgroup ")
	return o.ownsOneOf(strings.Fields(cgroups))
}

// ownsOneOf reports whether the owner owns the cgroup of one of the lines of /proc/PID/cgroup (cgroups(7)).
func (o Owner) ownsOneOf(lines []string) bool {
	return slices.ContainsFunc(lines, func(line string) bool {
		f := strings.SplitN(line, ":", 3)
		return len(f) == 3 && o.OwnsCgroup(f[2])
	})
}

// kthreadd is the parent of all kernel threads. No owner has kernel threads.
const kthreadd proc.PID = 2

// Processes lists the live processes of user space. A zombie is dead: it holds nothing but its exit status, and pid 1 of a
// small VM may take its time to collect it.
func Processes() ([]Process, error) { return processesWhere(func(Process) bool { return true }) }

// processesWhere lists the processes that wanted accepts. It does not read the namespaces of the others, because that takes
// most of the time. wanted sees a process without its namespaces.
func processesWhere(wanted func(Process) bool) ([]Process, error) {
	all, err := procfs.AllProcs()
	if err != nil {
		return nil, err
	}
	var out []Process
	for _, dir := range all {
		if p, ok := readProcess(dir.PID); ok && wanted(p) {
			p.Namespaces = namespacesOf(dir)
			out = append(out, p)
		}
	}
	return out, nil
}

func namespacesOf(dir procfs.Proc) []proc.Inode {
	var out []proc.Inode
	if namespaces, err := dir.Namespaces(); err == nil {
		for _, n := range namespaces {
			out = append(out, proc.Inode(n.Inode))
		}
	}
	return out
}

// readProcess reads a process without its namespaces. It reports false for a process that has ended, and for a kernel
// thread.
func readProcess(pid int) (Process, bool) {
	dir := "/proc/" + strconv.Itoa(pid)
	data, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return Process{}, false // it ended in the meantime
	}
	p, err := parseStat(string(data))
	if err != nil || p.State == "Z" || p.State == "X" {
		return Process{}, false // dead
	}
	if p.PID = proc.PID(pid); p.PID == kthreadd || p.Parent == kthreadd {
		return Process{}, false
	}
	if cgroups, err := os.ReadFile(dir + "/cgroup"); err == nil {
		p.Cgroup = strings.Join(strings.Fields(string(cgroups)), " ")
		p.cgroups = strings.Split(strings.TrimSpace(string(cgroups)), "\n")
	}
	if env, err := os.ReadFile(dir + "/environ"); err == nil {
		p.NoEnvironment = len(env) == 0
		for variable := range strings.SplitSeq(string(env), "\x00") {
			if value, ok := strings.CutPrefix(variable, OwnerEnv+"="); ok {
				p.Mark = value
			}
		}
	}
	return p, true
}

// parseStat reads the few fields of /proc/PID/stat that every inventory needs of every process (proc_pid_stat(5)). On a
// machine with many processes, an inventory spends most of its time here, and a library that reads all fields takes ten
// times as long.
func parseStat(stat string) (Process, error) {
	open, end := strings.IndexByte(stat, '('), strings.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return Process{}, fmt.Errorf("/proc/PID/stat reads %q: no name in parentheses", stat)
	}
	fields := strings.Fields(stat[end+1:]) // from field 3, the state, on
	if len(fields) < 20 {
		return Process{}, fmt.Errorf("/proc/PID/stat reads %q: too few fields", stat)
	}
	parent, err1 := strconv.Atoi(fields[1])
	start, err2 := strconv.ParseUint(fields[19], 10, 64)
	return Process{Comm: stat[open+1 : end], State: fields[0], Parent: proc.PID(parent), Start: proc.Ticks(start)}, errors.Join(err1, err2)
}

// OwnedBy reports whether the process belongs to the owner: by the mark in its environment, which has the random id of the
// run, or if it has no mark, as a container's process, by its cgroup.
func (p Process) OwnedBy(owner Owner) bool {
	if p.Mark != "" {
		return owner.ownsMark(p.Mark)
	}
	return owner.ownsOneOf(p.cgroups)
}
