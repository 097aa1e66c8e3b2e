//go:build linux && vmlab

package cdblab

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/bundle"
	"cdblab/helpers/cgroup"
	"cdblab/helpers/check"
	"cdblab/helpers/file"
	"cdblab/helpers/host"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/retry"
	"cdblab/helpers/runc"
	"cdblab/helpers/systemd"
)

// With the systemd cgroup driver, runc asks systemd for the container's cgroup. systemd makes a scope, which is a unit for processes that
// systemd did not start, and the container is in the cgroup of this scope. systemd removes the scope when the last process ends.
//
// The flag is `runc --systemd-cgroup`. Docker and containerd (SystemdCgroup) have an option for it, and the kubelet has to use the same
// driver. linux.cgroupsPath is then slice:prefix:name. An empty one is allowed, and names the scope runc-<id>.scope. A path is refused.
// Without the flag, runc takes slice:prefix:name as the name of a directory. The unit's properties are those limits of config.json that
// systemd has properties for. runc also writes all limits into the cgroup by itself. systemd stores each limit that was set by runc
// update or by systemctl set-property. At systemctl daemon-reload it writes the stored limits again. So a limit that was written
// directly into a file of the cgroup is lost. On cgroup v1, runc also makes cgroups in the hierarchies that systemd does not manage,
// and delete removes them.
//
// Hint: systemctl status of the scope; compare its properties with the files of the cgroup.
// Spec: https://github.com/opencontainers/runc/blob/main/docs/systemd.md#systemd-unit-name-and-placement,
// https://github.com/opencontainers/runc/blob/main/docs/systemd.md#resource-limits
// Kernel: https://man7.org/linux/man-pages/man5/systemd.scope.5.html
func TestLifecycle_WhereDoesAContainerGoWithTheSystemdCgroupDriver(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Where does a container go with the systemd cgroup driver?",
		lab.Alone("systemctl daemon-reload takes controllers from the cgroups of other questions"))
	defer q.Recover()
	systemd.Require(q)
	b := bundle.Busybox(q, "sleep", "3600")
	scope := systemd.Scope(q, "by-systemd")
	g := cgroup.Of(q, scope.Cgroup())
	limits := limitsOfScope(g)
	c := runc.Variant(q, b, "by-systemd", limits, scope.Container)

	q.Step("runc --systemd-cgroup create: systemd has a scope, and the container's process is in its cgroup")
	assert.Assert(q, !scope.Loaded(), "systemd has the scope before create")
	p := startBySystemd(q, c)
	check.OnlyProcessInCgroup(q, p.Identity, scope.Cgroup())
	assert.Check(q, cmp.Equal(scope.Property("ControlGroup"), scope.Cgroup()), "the cgroup of the scope")
	assert.Check(q, scope.Delegated(), "systemd has not marked the scope's cgroup as delegated")
	for _, want := range []string{"ActiveState=active", "Slice=system.slice", "Transient=yes", "Delegate=yes"} {
		property, _, _ := strings.Cut(want, "=")
		got := scope.Property(property)
		assert.Check(q, cmp.Equal(property+"="+got, want), "property of the scope")
		q.Fact("scope: "+property, got)
	}

	q.Step("compare the scope's properties with the files of the cgroup: both have the limits of config.json")
	agree := func(after, pids string) { assertSameLimits(q, scope, g, after, pids) }
	agree("create", "50")
	if g.Has("memory") {
		memory, memoryFile := memoryNames(g)
		q.Fact(memory+" and "+memoryFile, scope.Property(memory))
	} else {
		q.Fact("memory limit", "no controller memory here")
	}
	c.Must("update", "--pids-limit", "60")
	agree("runc update", "60")

	q.Step("systemctl set-property: the kernel has the new limit, and the runtime's state.json has the old one")
	scope.Do("set-property", "--runtime", "TasksMax=70")
	agree("systemctl set-property", "70")
	inState := pidsLimitInState(q, c)
	assert.Check(q, cmp.Equal(inState, int64(60)), "pids_limit in state.json")
	q.Fact("pids_limit in state.json after systemctl set-property", inState)

	q.Step("systemctl daemon-reload: the limits stay, except one that was written into the cgroup's file")
	q.Must("systemctl", "daemon-reload")
	agree("daemon-reload", "70")
	q.WriteLine(filepath.Join(g.Dir("pids"), "pids.max"), "77")
	assert.Check(q, cmp.Equal(g.Read("pids", "pids.max"), "77"), "pids.max after a write")
	q.Must("systemctl", "daemon-reload")
	agree("a write of 77 and daemon-reload", "70")
	assert.Check(q, p.Alive(), "the container's process is dead after daemon-reload")

	q.Control("the same container with runc's own driver: no unit of systemd")
	own := runc.Variant(q, b, "by-runc", limits)
	const transientUnits = "/run/systemd/transient"
	// The host may start units of its own at any time. The name of a unit for this container would have its id.
	units := func() []string {
		return slices.DeleteFunc(file.Names(q, transientUnits), func(name string) bool { return !strings.Contains(name, own.ID) })
	}
	// The same look finds the scope of the first container.
	hasScope := slices.Contains(file.Names(q, transientUnits), scope.Name)
	assert.Check(q, hasScope, "the scope %s is not in %s", scope.Name, transientUnits)
	q.Fact("systemd driver: the scope is in "+transientUnits, hasScope)
	other := own.CreateAndStart()
	check.OnlyProcessInCgroup(q, other.Identity, own.Bundle.Spec.Linux.CgroupsPath)
	assert.Check(q, cmp.Len(units(), 0), "transient units of systemd for a container of runc's own driver")
	q.Fact("runc's own driver: units of the container", len(units()))
	own.KillAndDelete(other)

	q.Step("create by the systemd driver and a cgroupsPath that is a path: runc refuses it")
	byPath := runc.Variant(q, b, "by-path", limits)
	refused := q.Exec("runc", "--systemd-cgroup", "--root", byPath.Root, "create", "--bundle", byPath.Bundle.Name, byPath.ID)
	assert.Check(q, refused.Code != 0, "create by the systemd driver with cgroupsPath %s:\n%s", byPath.Bundle.Spec.Linux.CgroupsPath, refused)
	runc.AssertMessage(q, refused.Stderr, "slice:prefix:name")
	assert.Check(q, !file.Exists(byPath.StateDir()), "a refused create left its state: %s", byPath.StateDir())
	// The message ends with the path.
	message, _, _ := strings.Cut(runc.StableMessage(refused.Stderr), ", got")
	q.Fact("--systemd-cgroup with a path: error of create", message)

	q.TearDown("kill the container: systemd removes the scope. Delete the container: that removes the state directory and, on cgroup v1, the "+
		"cgroups that systemd does not manage", func() {
		c.Kill("KILL")
		proc.WaitFor(q, proc.Dead(p.Identity))
		proc.WaitFor(q, scope.Gone())
		assert.Check(q, cmp.Equal(c.State().Status, specs.StateStopped))
		left := slices.DeleteFunc(g.Dirs(), func(dir string) bool { return !file.Exists(dir) })
		assert.Check(q, !g.V2 || len(left) == 0, "cgroups of the scope after systemd has removed it: %v", left)
		q.Fact("before delete: scope exists", scope.Loaded())
		q.Fact("before delete: a cgroup of the container exists", len(left) > 0)
		c.Delete()
		assert.Check(q, !host.HasUnit(scope.Name), "systemd has the scope after delete")
		check.NoCgroup(q, scope.Cgroup())
	})
	q.Answer("With the systemd cgroup driver, the container is in the cgroup of a scope of systemd, whose properties are those limits that " +
		"systemd knows. systemd removes the scope with the last process. At daemon-reload it writes again the limits that it has stored.")
}

// limitsOfScope sets the limits that [assertSameLimits] compares, of the controllers that the cgroup has.
func limitsOfScope(g cgroup.Group) func(*specs.Spec) {
	return bundle.Resources(func(r *specs.LinuxResources) {
		if g.Has("memory") {
			bundle.Memory(r).Limit = new(int64(64 << 20))
		}
		r.Pids = &specs.LinuxPids{Limit: new(int64(50))}
	})
}

// startBySystemd creates and starts a container with the systemd cgroup driver, and returns its process.
func startBySystemd(q *lab.Q, c *runc.Container) proc.Process {
	q.Helper()
	pidFile := filepath.Join(c.Root, "pid")
	q.Must("runc", "--systemd-cgroup", "--root", c.Root, "create", "--bundle", c.Bundle.Name, "--pid-file", pidFile, c.ID)
	pid := proc.PID(check.Int(q, file.Read(q, pidFile)))
	file.Remove(q, pidFile)
	c.Start()
	proc.WaitFor(q, proc.Runs(pid, "sleep"))
	return proc.Snapshot(q, pid)
}

// memoryNames returns the names that systemd and the kernel have for the limit of memory.
func memoryNames(g cgroup.Group) (property, fileName string) {
	if g.V2 {
		return "MemoryMax", "memory.max"
	}
	return "MemoryLimit", "memory.limit_in_bytes"
}

// assertSameLimits asserts that systemd and the kernel have the same limits. After set-property and daemon-reload systemd writes them, a
// moment later.
func assertSameLimits(q *lab.Q, scope *systemd.Unit, g cgroup.Group, after, pids string) {
	q.Helper()
	const memoryLimit = "67108864" // that of limitsOfScope
	proc.WaitFor(q, file.HasContent(filepath.Join(g.Dir("pids"), "pids.max"), pids))
	tasksMax := scope.Property("TasksMax")
	assert.Check(q, cmp.Equal(tasksMax, pids), "TasksMax after %s", after)
	if g.Has("memory") {
		memory, memoryFile := memoryNames(g)
		assert.Check(q, cmp.Equal(g.Read("memory", memoryFile), memoryLimit), "%s after %s", memoryFile, after)
		assert.Check(q, cmp.Equal(scope.Property(memory), memoryLimit), "%s after %s", memory, after)
	}
	q.Fact("TasksMax and pids.max after "+after, tasksMax)
}

// pidsLimitInState returns the limit of pids in the container's state.json.
func pidsLimitInState(q *lab.Q, c *runc.Container) int64 {
	q.Helper()
	var state struct {
		Config struct {
			Cgroups struct {
				PidsLimit int64 `json:"pids_limit"`
			}
		}
	}
	check.DecodeJSON(q, file.Read(q, c.StateFile()), &state)
	return state.Config.Cgroups.PidsLimit
}

// With the systemd cgroup driver, linux.cgroupsPath is slice:prefix:name, and the container gets the scope prefix-name.scope in this slice.
// If cgroupsPath is empty, the scope of a container of root is runc-<id>.scope in system.slice.
//
// A slice is a unit that groups other units, and its limits count for all of them. The kubelet has one for pods, and slices below it for
// two classes of pods. systemd starts a slice when the first unit in it starts. A name without .slice is no slice, and runc refuses it.
//
// Hint: compare /proc/PID/cgroup with the property Slice of the scope.
// Spec: https://github.com/opencontainers/runc/blob/main/docs/systemd.md#systemd-unit-name-and-placement
// Kernel: https://man7.org/linux/man-pages/man5/systemd.slice.5.html
func TestLifecycle_WhichSystemdScopeDoesTheCgroupsPathName(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Which systemd scope does linux.cgroupsPath name?",
		lab.Alone("systemd takes controllers from the cgroups of other questions when a unit starts or stops"))
	defer q.Recover()
	systemd.Require(q)
	b := bundle.Busybox(q, "sleep", "3600")
	create := func(name, cgroupsPath string) (*runc.Container, lab.Result) {
		marked := systemd.Scope(q, name).Container // with the mark of the question, by which a sweep finds the scope
		c := runc.Variant(q, b, name, marked, func(s *specs.Spec) { s.Linux.CgroupsPath = cgroupsPath })
		return c, q.Exec("runc", "--systemd-cgroup", "--root", c.Root, "create", "--bundle", c.Bundle.Name, c.ID)
	}
	for _, row := range []struct{ name, slice string }{{"in system.slice", "system.slice"}, {"in user.slice", "user.slice"}, {"empty", ""}} {
		name := strings.TrimSuffix(strings.TrimPrefix(row.name, "in "), ".slice")
		id := q.ID("path-" + name)
		cgroupsPath, slice, scope := row.slice+":cdb:"+id, row.slice, "cdb-"+id+".scope"
		if row.slice == "" {
			cgroupsPath, slice = "", "system.slice"
			q.Step("create with an empty cgroupsPath: the scope has the id of the container, and is in system.slice")
		} else {
			q.Step("create with a cgroupsPath in %s: the scope is in this slice", slice)
		}
		c, r := create("in-"+name, cgroupsPath)
		assert.Assert(q, cmp.Equal(r.Code, 0), "create by the systemd driver with the cgroupsPath %q:\n%s", cgroupsPath, r)
		if row.slice == "" {
			scope = "runc-" + c.ID + ".scope"
		}
		p := c.Process()
		check.OnlyProcessInCgroup(q, p.Identity, filepath.Join("/", slice, scope))
		property := strings.TrimSpace(q.Must("systemctl", "show", "--property=Slice", "--value", scope).Stdout)
		assert.Check(q, cmp.Equal(property, slice), "Slice of %s, with the cgroupsPath %q", scope, cgroupsPath)
		q.Fact("cgroupsPath "+row.name+": slice of the scope", property)
		c.Delete()
		gone := retry.Until(proc.Patience, func() bool { return !host.HasUnit(scope) })
		assert.Check(q, gone, "systemd has %s after delete", scope)
		check.NoCgroup(q, filepath.Join("/", slice, scope))
	}

	q.Control("a name that is no slice: create fails")
	c, r := create("no-slice", "system:cdb:"+q.ID("no-slice"))
	assert.Check(q, r.Code != 0, "create by the systemd driver in a slice named system:\n%s", r)
	runc.AssertMessage(q, r.Stderr, "invalid slice name")
	assert.Check(q, !file.Exists(c.StateDir()), "a refused create left its state: %s", c.StateDir())
	q.Fact("slice named system: error of create", runc.StableMessage(r.Stderr))

	q.Answer("With the systemd cgroup driver, slice:prefix:name in linux.cgroupsPath names the scope prefix-name.scope in this slice. With " +
		"an empty linux.cgroupsPath, a container of root is in the scope runc-<id>.scope of system.slice.")
}
