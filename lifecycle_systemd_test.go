//go:build linux && vmlab

package cdblab

import (
	"path/filepath"
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
	"cdblab/helpers/runc"
	"cdblab/helpers/systemd"
)

// With the systemd cgroup driver, runc asks systemd for the container's cgroup. It is the cgroup of a scope, which is a unit without a
// program of its own, and the unit's properties are the limits of config.json. systemd removes the scope when the last process ends.
//
// linux.cgroupsPath is slice:prefix:name then, instead of a path. systemd remembers the limits that it is asked for, by runc update or
// by systemctl set-property. It writes them again at systemctl daemon-reload, so a limit that was written into the cgroup's file is lost.
//
// Hint: systemctl status of the scope; compare its properties with the files of the cgroup.
// Spec: https://github.com/opencontainers/runc/blob/main/docs/systemd.md
// Kernel: https://man7.org/linux/man-pages/man5/systemd.scope.5.html
func TestLifecycle_WhereDoesAContainerGoWithTheSystemdCgroupDriver(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Where does a container go with the systemd cgroup driver?",
		lab.Alone("systemctl daemon-reload takes controllers from the cgroups of others"))
	defer q.Recover()
	systemd.Require(q)
	const memoryLimit = "67108864"
	b := bundle.Busybox(q, "sleep", "3600")
	scope := systemd.Scope(q, "by-systemd")
	g := cgroup.Of(q, scope.Cgroup())
	limits := bundle.Resources(func(r *specs.LinuxResources) {
		if g.Has("memory") {
			bundle.Memory(r).Limit = new(int64(64 << 20))
		}
		r.Pids = &specs.LinuxPids{Limit: new(int64(50))}
	})
	c := runc.Variant(q, b, "by-systemd", limits, scope.Container)

	q.Step("runc --systemd-cgroup create: systemd has a scope, and the container's process is in its cgroup")
	assert.Assert(q, !scope.Loaded(), "systemd has the scope before create")
	pidFile := filepath.Join(c.Root, "pid")
	q.Must("runc", "--systemd-cgroup", "--root", c.Root, "create", "--bundle", c.Bundle.Name, "--pid-file", pidFile, c.ID)
	pid := proc.PID(check.Int(q, file.Read(q, pidFile)))
	file.Remove(q, pidFile)
	c.Start()
	proc.WaitFor(q, proc.Runs(pid, "sleep"))
	p := proc.Snapshot(q, pid)
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
	memory, memoryFile := "MemoryLimit", "memory.limit_in_bytes"
	if g.V2 {
		memory, memoryFile = "MemoryMax", "memory.max"
	}
	// agree asserts that systemd and the kernel have the same limits. systemd writes them a moment later.
	agree := func(after, pids string) {
		proc.WaitFor(q, file.HasContent(filepath.Join(g.Dir("pids"), "pids.max"), pids))
		tasksMax := scope.Property("TasksMax")
		assert.Check(q, cmp.Equal(tasksMax, pids), "TasksMax after %s", after)
		if g.Has("memory") {
			assert.Check(q, cmp.Equal(g.Read("memory", memoryFile), memoryLimit), "%s after %s", memoryFile, after)
			assert.Check(q, cmp.Equal(scope.Property(memory), memoryLimit), "%s after %s", memory, after)
		}
		q.Fact("TasksMax and pids.max after "+after, tasksMax)
	}
	agree("create", "50")
	if g.Has("memory") {
		q.Fact(memory+" and "+memoryFile, scope.Property(memory))
	} else {
		q.Fact("memory limit", "no controller memory here")
	}
	c.Must("update", "--pids-limit", "60")
	agree("runc update", "60")

	q.Step("systemctl set-property: the kernel has the new limit, and the runtime's state.json has the old one")
	scope.Do("set-property", "--runtime", "TasksMax=70")
	agree("systemctl set-property", "70")
	var state struct {
		Config struct {
			Cgroups struct {
				PidsLimit int64 `json:"pids_limit"`
			}
		}
	}
	check.DecodeJSON(q, file.Read(q, c.StateFile()), &state)
	assert.Check(q, cmp.Equal(state.Config.Cgroups.PidsLimit, int64(60)), "pids_limit in state.json")
	q.Fact("pids_limit in state.json after systemctl set-property", state.Config.Cgroups.PidsLimit)

	q.Step("systemctl daemon-reload: nothing changes, except a limit that systemd does not know")
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
	before := file.Names(q, transientUnits)
	other := own.CreateAndStart()
	check.OnlyProcessInCgroup(q, other.Identity, own.Bundle.Spec.Linux.CgroupsPath)
	after := file.Names(q, transientUnits)
	assert.Check(q, cmp.DeepEqual(after, before), "transient units of systemd, after create by runc's own driver")
	q.Fact("runc's own driver: units more than before", len(after)-len(before))
	own.KillAndDelete(other)

	q.TearDown("kill the container: systemd removes the scope, and delete finds only the state directory", func() {
		c.Kill("KILL")
		proc.WaitFor(q, proc.Dead(p.Identity))
		proc.WaitFor(q, scope.Gone())
		assert.Check(q, cmp.Equal(c.State().Status, specs.StateStopped))
		q.Fact("before delete: the scope is there", scope.Loaded())
		c.Delete()
		assert.Check(q, !host.HasUnit(scope.Name), "systemd has the scope after delete")
		check.NoCgroup(q, scope.Cgroup())
	})
	q.Answer("With the systemd cgroup driver, the container is in a scope of systemd, whose properties are its limits. systemd removes the " +
		"scope with the last process, and at daemon-reload it writes the limits again that it knows.")
}
