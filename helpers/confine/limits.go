//go:build linux

package confine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/host"
	"cdblab/helpers/retry"
	"cdblab/helpers/slowness"
)

// Limits are what the processes of a command may use.
type Limits struct {
	Memory  int64 // bytes
	Threads int
}

// DefaultLimits returns limits with which several commands at once leave the machine its memory.
func DefaultLimits(commands int) (Limits, error) {
	memory, err := memInfo()
	if err != nil {
		return Limits{}, err
	}
	return Limits{Memory: max(int64(memory.total)*6/10/int64(commands), 512<<20), Threads: 4096}, nil
}

// A group is a cgroup below host.Cgroup, in the hierarchies that have the controllers memory and pids.
type group struct{ dirs []string }

// groupName returns the name of the group of this process.
func groupName() string { return fmt.Sprintf("confined-%d", os.Getpid()) }

// newGroup makes a group with limits. Where a controller is missing, the limit is missing: the watch is still there.
func newGroup(l Limits) (*group, error) {
	hierarchies, err := cgroup.Hierarchies()
	if err != nil {
		return nil, err
	}
	removeLeft(hierarchies)
	g := &group{}
	for _, controller := range []string{"memory", "pids"} {
		h := cgroup.With(hierarchies, controller)
		if h == nil {
			continue
		}
		dir := h.Path(filepath.Join(host.Cgroup, groupName()))
		var err error
		retry.Until(time.Second, func() bool { // a run that ends removes the lab's cgroup if it has no other
			err = os.MkdirAll(dir, 0o755)
			return !errors.Is(err, os.ErrNotExist)
		})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("make a cgroup for the limits: %w", err), g.remove())
		}
		g.dirs = append(g.dirs, dir)
		file, value := "pids.max", strconv.Itoa(l.Threads)
		if controller == "memory" {
			file, value = "memory.limit_in_bytes", strconv.FormatInt(l.Memory, 10)
			if h.V2 {
				file = "memory.max"
			}
		}
		if h.V2 { // an error means that the root has not enabled the controller, and it is not the lab's to enable
			_ = write(filepath.Join(filepath.Dir(dir), "cgroup.subtree_control"), "+"+controller)
		}
		if err := write(filepath.Join(dir, file), value); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, errors.Join(fmt.Errorf("limit %s: %w", controller, err), g.remove())
		}
	}
	return g, nil
}

// write writes to a file that is there. With O_CREATE the error for a missing one would be EACCES.
func write(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// removeLeft removes the groups of processes that were killed. One of them may have had the pid of this process, and its counters would
// count. The kernel does not remove a group that has a process.
func removeLeft(hierarchies []cgroup.Hierarchy) {
	for _, h := range hierarchies {
		left, _ := filepath.Glob(h.Path(filepath.Join(host.Cgroup, "confined-*")))
		for _, dir := range left {
			var pid int
			_, err := fmt.Sscanf(filepath.Base(dir), "confined-%d", &pid)
			if err == nil && (pid == os.Getpid() || unix.Kill(pid, 0) == unix.ESRCH) {
				_ = rmdir(dir)
			}
		}
	}
}

// remove removes the group, once the kernel has released its last process.
func (g *group) remove() error {
	var errs []error
	for _, dir := range g.dirs {
		var err error
		retry.Until(slowness.Scale(10*time.Second), func() bool {
			err = rmdir(dir)
			return err != unix.EBUSY
		})
		if err != nil && err != unix.ENOENT {
			errs = append(errs, fmt.Errorf("remove the cgroup %s: %w", dir, err))
		}
		_ = unix.Rmdir(filepath.Dir(dir)) // the lab's, which stays while it has another group
	}
	return errors.Join(errs...)
}

// rmdir removes a cgroup and all below it, such as that of a container whose cgroupsPath is relative.
func rmdir(dir string) (err error) {
	var all []string
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			all = append(all, path)
		}
		return nil
	})
	for _, path := range slices.Backward(all) {
		err = unix.Rmdir(path)
	}
	return err
}

// count returns the number after a key in the first of the files that has it, of any hierarchy.
func (g *group) count(key string, files ...string) uint64 {
	for _, dir := range g.dirs {
		for _, name := range files {
			data, _ := os.ReadFile(filepath.Join(dir, name)) // another hierarchy has it
			var n uint64
			if scanKey(string(data), key, &n) {
				return n
			}
		}
	}
	return 0
}

// A watch notices what the limits of the group do not: a container is in another cgroup.
type watch struct {
	threads int    // that the machine may have
	free    uint64 // bytes that have to be available
}

func newWatch(l Limits) watch {
	w := watch{threads: 1 << 30}
	if now, err := threads(); err == nil {
		w.threads = now + l.Threads
	}
	if memory, err := memInfo(); err == nil {
		w.free = min(memory.total/20, 512<<20, memory.available/4)
	}
	return w
}

// ThisMachine is in the text that says why a command was cut off, if another command on the machine may be the cause.
const ThisMachine = "this machine has"

// exceeded returns which limit of the group its processes have met, or "".
func (g *group) exceeded() string {
	if n := g.count("oom_kill", "memory.events", "memory.oom_control"); n > 0 {
		return "memory: its processes had as much as they may have, and the kernel has killed one of them"
	}
	if n := g.count("max", "pids.events"); n > 0 {
		return "processes: it had as many as it may have"
	}
	return ""
}

// exceeded returns which limit is exceeded, or "".
func (w watch) exceeded(g *group) string {
	if of := g.exceeded(); of != "" {
		return of
	}
	if n, err := threads(); err == nil && n > w.threads {
		return fmt.Sprintf("processes: %s %d threads, and should have at most %d", ThisMachine, n, w.threads)
	}
	if memory, err := memInfo(); err == nil && memory.available < w.free {
		return fmt.Sprintf("memory: %s only %d MB available", ThisMachine, memory.available>>20)
	}
	return ""
}

type memory struct{ total, available uint64 } // bytes

func memInfo() (memory, error) {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return memory{}, err
	}
	m, err := fs.Meminfo()
	if err != nil {
		return memory{}, err
	}
	if m.MemTotalBytes == nil || m.MemAvailableBytes == nil {
		return memory{}, errors.New("/proc/meminfo has no MemTotal or no MemAvailable")
	}
	return memory{*m.MemTotalBytes, *m.MemAvailableBytes}, nil
}

// threads returns how many threads the machine has.
func threads() (int, error) {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0, err
	}
	var load [3]float64
	var running, all int
	_, err = fmt.Sscanf(string(data), "%f %f %f %d/%d", &load[0], &load[1], &load[2], &running, &all)
	return all, err
}
