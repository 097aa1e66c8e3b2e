//go:build linux

// Package systemd makes transient units of systemd for a question, and reads what systemd reports of them.
package systemd

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/poll"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/host"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// Require skips the question unless process 1 is systemd (https://man7.org/linux/man-pages/man3/sd_booted.3.html), and starts a
// unit for the lab. A unit that the question leaves behind is stopped with all its processes, and fails the question. That is the last
// cleanup if Require is called first.
func Require(q *lab.Q) {
	q.Helper()
	q.Cleanup(func() {
		left, err := host.StopUnits(q.Owner)
		if err != nil {
			q.Error(err)
		}
		if len(left) > 0 {
			q.Errorf("the question left something behind: the units %v, which are stopped now", left)
		}
	})
	// Clients of the bus wait 25 seconds for an answer, and a guest may stand still for longer.
	q.SetCommandEnv("SYSTEMD_BUS_TIMEOUT", "600")
	const elsewhere = "boot a disk image that has systemd: make lab DISK=\"$(make -s disk)\""
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		q.Skipf("process 1 is not systemd here (%v); to ask this, %s", err, elsewhere)
	}
	if r := q.Exec("systemd-run", "--quiet", "--wait", "--collect", "true"); r.Code != 0 {
		q.Skipf("systemd starts no unit for the lab: %s; to ask this, %s", strings.TrimSpace(r.Stderr), elsewhere)
	}
}

// Unit is a transient unit of the question. It is in system.slice.
type Unit struct {
	Name string // cdb-lab-1-q3.service

	q *lab.Q
}

// Service returns a service of the question. [Unit.Run] starts it.
func Service(q *lab.Q, name string) *Unit { q.Helper(); return newUnit(q, name, ".service") }

// Scope returns a scope of the question. A runtime makes it for a container with the edit of [Unit.Container].
func Scope(q *lab.Q, name string) *Unit { q.Helper(); return newUnit(q, name, ".scope") }

func newUnit(q *lab.Q, name, suffix string) *Unit {
	q.Helper()
	u := &Unit{Name: prefix + q.ID(name) + suffix, q: q}
	q.SuggestCommand("systemctl status " + u.Name)
	return u
}

// prefix begins the names of the lab's units.
const prefix = "cdb-"

// Container is an edit of config.json. With it, a runtime that uses the systemd cgroup driver makes the container in this unit, a
// scope. The annotation puts the mark of the question on the unit, by which a sweep finds it:
// https://github.com/opencontainers/runc/blob/main/docs/systemd.md#auxiliary-properties
func (u *Unit) Container(s *specs.Spec) {
	s.Linux.CgroupsPath = "system.slice:cdb:" + strings.TrimSuffix(strings.TrimPrefix(u.Name, prefix), ".scope")
	s.Annotations = Mark(u.q)
}

// Mark returns an annotation by which runc gives a scope the mark of the question as its description. A sweep finds the scope by it.
func Mark(q *lab.Q) map[string]string {
	return map[string]string{"org.systemd.property.Description": "'" + host.OwnerEnv + "=" + q.Owner.Mark() + "'"}
}

// Run starts the unit, a service, with properties such as "KillMode=process": systemd runs the program in the question's directory,
// with PATH of the question's commands. It waits until the service has started, and by Type=notify until the program says so.
func (u *Unit) Run(properties []string, argv ...string) {
	u.q.Helper()
	command := []string{"systemd-run", "--collect", "--unit=" + u.Name, "--working-directory=" + u.q.Dir}
	command = append(command, setEnv(u.q.Environ(), "PATH", host.OwnerEnv)...)
	for _, property := range properties {
		command = append(command, "--property="+property)
	}
	u.q.Must(append(command, argv...)...)
}

// setEnv returns the flags of systemd-run that pass on variables of an environment, whose last value counts. The flag has the value,
// because systemd older than 250 passes on no variable by its name alone:
// https://github.com/systemd/systemd/blob/v250/NEWS
func setEnv(environ []string, names ...string) (flags []string) {
	for _, name := range names {
		value := ""
		for _, variable := range environ {
			if v, ok := strings.CutPrefix(variable, name+"="); ok {
				value = v
			}
		}
		flags = append(flags, "--setenv="+name+"="+value)
	}
	return flags
}

// Do runs `systemctl VERB UNIT`, which must succeed.
func (u *Unit) Do(verb string, args ...string) {
	u.q.Helper()
	u.q.Must(append([]string{"systemctl", verb, u.Name}, args...)...)
}

// Property returns a property of the unit, as systemd reports it.
func (u *Unit) Property(name string) string {
	u.q.Helper()
	return strings.TrimSpace(u.q.Must("systemctl", "show", "--property="+name, "--value", u.Name).Stdout)
}

// Active reports whether the unit is active.
func (u *Unit) Active() bool { u.q.Helper(); return u.Property("ActiveState") == "active" }

// PID returns the main process of a service, or 0 if it does not run.
func (u *Unit) PID() proc.PID {
	u.q.Helper()
	pid, err := strconv.Atoi(u.Property("MainPID"))
	if err != nil {
		u.q.Fatalf("systemd reports no MainPID of %s: %v", u.Name, err)
	}
	return proc.PID(pid)
}

// Cgroup returns the path of the unit's cgroup, which is the same in each hierarchy of systemd.
func (u *Unit) Cgroup() string { return filepath.Join("/system.slice", u.Name) }

// Delegated reports whether the kernel has the mark on the unit's cgroup by which systemd says that it leaves what is below to the
// unit: an extended attribute (https://systemd.io/CGROUP_DELEGATION/). systemd 250 and older have trusted.delegate only.
func (u *Unit) Delegated() bool {
	u.q.Helper()
	value := make([]byte, 8)
	for _, attribute := range []string{"trusted.delegate", "user.delegate"} {
		if n, err := unix.Getxattr(u.dir(), attribute, value); err == nil && string(value[:n]) == "1" {
			return true
		}
	}
	return false
}

// dir returns the directory of the unit's cgroup in the hierarchy in which systemd finds its units.
func (u *Unit) dir() string {
	u.q.Helper()
	hs, err := cgroup.Hierarchies()
	if err != nil {
		u.q.Fatal(err)
	}
	i := slices.IndexFunc(hs, func(h cgroup.Hierarchy) bool { return strings.Contains(h.Name, "name=systemd") })
	// In hybrid mode systemd's own hierarchy is the unified one.
	if j := slices.IndexFunc(hs, func(h cgroup.Hierarchy) bool { return h.V2 }); j >= 0 {
		i = j
	}
	if i < 0 {
		u.q.Fatal("no hierarchy of systemd is mounted below /sys/fs/cgroup")
	}
	return hs[i].Path(u.Cgroup())
}

// Processes lists the processes in the unit's cgroup, not those below it.
func (u *Unit) Processes() []proc.PID { u.q.Helper(); return cgroup.ProcsIn(u.dir()) }

// Journal returns the messages that systemd-journald has of the unit, and of systemd about the unit.
func (u *Unit) Journal() string {
	u.q.Helper()
	u.q.Must("journalctl", "--sync") // what was written before is in the journal now
	return u.q.Must("journalctl", "--no-pager", "--quiet", "--output=cat", "--unit="+u.Name).Stdout
}

// WritesToJournal reports whether a descriptor of a process is the socket by which the journal gets what the main process of the unit
// writes. systemd tells the main process which socket that is: https://man7.org/linux/man-pages/man5/systemd.exec.5.html, $JOURNAL_STREAM.
func (u *Unit) WritesToJournal(pid proc.PID, fd int) bool {
	u.q.Helper()
	var stat unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/fd/%d", pid, fd), &stat); err != nil {
		u.q.Fatalf("look at descriptor %d of process %d: %v", fd, pid, err)
	}
	return slices.Contains(proc.Snapshot(u.q, u.PID()).Env, fmt.Sprintf("JOURNAL_STREAM=%d:%d", stat.Dev, stat.Ino))
}

// Loaded reports whether systemd has the unit, active or not.
func (u *Unit) Loaded() bool { return host.HasUnit(u.Name) }

// Gone returns a check that succeeds when systemd has unloaded the unit, and its cgroup is gone.
func (u *Unit) Gone() poll.Check {
	return func(poll.LogT) poll.Result {
		_, err := os.Stat(u.dir())
		if os.IsNotExist(err) && !u.Loaded() {
			return poll.Success()
		}
		return poll.Continue("systemd has the unit %s: %t; stat of its cgroup: %v; its processes: %v", u.Name, u.Loaded(), err, u.Processes())
	}
}
