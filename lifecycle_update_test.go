//go:build linux && vmlab

package cdblab

import (
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/bundle"
	"cdblab/helpers/cgroup"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// The limits of a running container can be changed: `runc update` writes into the files of its cgroup, and the next fork(2) already
// meets the new limit.
//
// The process is not notified and not restarted. config.json stays as it is, and the runtime writes the limits of this update into its
// own state.json. Limits of processes and CPUs that this update does not name are then no longer in the file, although the cgroup still
// has them. (runc 1.1 forgets those of memory as well.) No operation of runc changes namespaces, capabilities or the program of a
// running container. Root on the host can change more of it without runc: its rlimits by prlimit(2), its priority by setpriority(2),
// and its mounts by propagation.
//
// Hint: which of a container's properties are files that root can write?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#control-groups
// Kernel: https://docs.kernel.org/admin-guide/cgroup-v2.html#pid-interface-files, https://man7.org/linux/man-pages/man2/prlimit.2.html
func TestLifecycle_WhatCanBeChangedWhileItRuns(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What can be changed while it runs?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "3600")
	tenProcesses := bundle.Resources(func(r *specs.LinuxResources) { r.Pids = &specs.LinuxPids{Limit: new(int64(10))} })
	c, sh, p := runc.StartWithShell(q, b, "updated", tenProcesses)
	_, otherShell, _ := runc.StartWithShell(q, b, "other", tenProcesses)
	g := cgroup.Of(q, c.Bundle.Spec.Linux.CgroupsPath)
	configBefore := file.Read(q, c.Bundle.Config())
	filesBefore := file.Tree(q, c.StateDir())
	const fork15Times = "(i=0; while [ $i -lt 15 ]; do sleep 3600 & i=$((i+1)); done; echo all of them; kill $(jobs -p))"

	q.Step("in a container that may have ten processes, the program cannot fork 15 times")
	r := sh.Run(fork15Times)
	assert.Check(q, cmp.Contains(r.Out, "can't fork"))
	pidsBefore := g.Read("pids", "pids.max")
	assert.Check(q, cmp.Equal(pidsBefore, "10"), "pids.max before update")
	q.Fact("pids.max before update", pidsBefore)
	for _, pid := range g.Procs() {
		if pid != p.PID {
			q.KillProcess(proc.Snapshot(q, pid))
		}
	}

	q.Step("runc update --pids-limit 40: the file of the cgroup has the new limit, and the same program can fork 15 times")
	c.Must("update", "--pids-limit", "40")
	assert.Check(q, cmp.Equal(g.Read("pids", "pids.max"), "40"), "pids.max after update --pids-limit 40")
	if runc.IsRunc(q) {
		assert.Check(q, cmp.Contains(file.Read(q, c.StateFile()), stateOfPids), "state.json after update --pids-limit 40")
	}
	r = sh.Run(fork15Times)
	assert.Check(q, cmp.Contains(r.Out, "all of them"))
	q.Fact("pids.max after update --pids-limit", g.Read("pids", "pids.max"))

	q.Step("four other flags of update, for memory and processors: each changes a file of the cgroup")
	for _, row := range updateFlags {
		if has := g.Has(row.controller); !has {
			q.Fact(row.flag+": the kernel has the controller "+row.controller, has)
			continue
		}
		row.update(q, c, g)
	}

	q.Step("instead of flags, --resources takes a document in the form of linux.resources in config.json")
	document := filepath.Join(q.Dir, "resources.json")
	q.WriteLine(document, `{"pids": {"limit": 33}}`)
	q.Cleanup(func() { file.Remove(q, document) })
	c.Must("update", "--resources", "resources.json")
	assert.Check(q, cmp.Equal(g.Read("pids", "pids.max"), "33"), "pids.max after update --resources")
	q.Fact("pids.max after update --resources", g.Read("pids", "pids.max"))

	if g.Has("memory") {
		q.Step("set a memory limit below what is used: on cgroup v2 runc refuses it, because the document asks for a check. On v1 the " +
			"kernel refuses it")
		limitBelowUse(q, runc.Variant(q, b, "checked"), document, g.V2)
	}

	q.Step("the process and config.json are the same as before update, and state.json has the limit of the last update. Limits of " +
		"the CPUs are no longer in the file, although the cgroup still has them")
	assert.Check(q, cmp.DeepEqual(proc.Snapshot(q, p.PID).Identity, p.Identity))
	assert.Check(q, cmp.Equal(file.Read(q, c.Bundle.Config()), configBefore))
	if runc.IsRunc(q) {
		written := writtenFiles(filesBefore, file.Tree(q, c.StateDir()))
		assert.Check(q, cmp.DeepEqual(written, []string{"state.json"}), "files of the state directory that update has written")
		assert.Check(q, cmp.Contains(file.Read(q, c.StateFile()), `"pids_limit":33`), "the limit of the last update, in state.json")
		q.Fact("files of the state directory that update has written", written)
		limitsNoLongerInState(q, c, g)
	}

	q.Step("without runc, prlimit(2) on the host changes a limit of the running program itself")
	const line = "Max open files"
	before := proc.Limit(q, p.PID, line)
	q.LogCommand("prlimit --pid %d --nofile=77:77", p.PID)
	assert.NilError(q, unix.Prlimit(int(p.PID), unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 77, Max: 77}, nil))
	seenInside := sh.Run("ulimit -n").Out
	assert.Check(q, cmp.Equal(seenInside, "77"), "soft limit of open files, as the program in the container sees it")
	assert.Check(q, before[0] != seenInside, "the limit was 77 before")
	q.Fact("limit of open files, before and after prlimit", []string{before[0], seenInside})

	q.Control("the other container, which was not updated, still cannot fork 15 times")
	r = otherShell.Run(fork15Times)
	assert.Check(q, cmp.Contains(r.Out, "can't fork"))

	q.Step("runc refuses to update a stopped container")
	stopped := runc.Variant(q, b, "stopped", bundle.Args("true"))
	stopped.Create()
	stoppedProcess := stopped.Process()
	stopped.Start()
	proc.WaitFor(q, proc.Dead(stoppedProcess.Identity))
	updateStopped := stopped.Try("update", "--pids-limit", "40")
	assert.Check(q, updateStopped.Code != 0, "a stopped container is updated:\n%s", updateStopped)
	q.Fact("update of a stopped container: error", runc.LastLogMessage(updateStopped))

	q.Answer("The limits of a running container can be changed: they are files of its cgroup, and they hold at once. Other namespaces, " +
		"capabilities or another program need a new container.")
}

// limitBelowUse sets a memory limit below what the container uses, by a document of `runc update --resources`: with checkBeforeUpdate, and
// then without it, where the runtime and cgroup v2 know the field.
func limitBelowUse(q *lab.Q, c *runc.Container, document string, isV2 bool) {
	q.Helper()
	q.WriteLine(document, `{"memory": {"limit": 4096, "checkBeforeUpdate": true}}`)
	victim := c.CreateAndStart() // of the kernel, where the runtime does not know the field
	limited := c.Try("update", "--resources", "resources.json")
	// Not the name of the field: a distribution may build an old runc with a new runtime-spec, which has the name.
	knowsCheck := runc.Knows(q, "rejecting memory limit") // runc has it since 1.2.0
	q.Fact("linux.resources.memory.checkBeforeUpdate: the runtime knows it", knowsCheck)
	if knowsCheck {
		assert.Check(q, limited.Code != 0, "memory is limited to less than is used:\n%s", limited)
		assert.Check(q, proc.Alive(victim.PID), "the update has killed the container")
		q.Fact("memory limit below what is used, with checkBeforeUpdate: error", runc.StableMessage(limited.Stderr))
	}
	if knowsCheck && isV2 { // runc's manager for v1 does not read the field
		runc.AssertMessage(q, limited.Stderr, "rejecting memory limit")
		q.Covers("linux.resources.memory.checkBeforeUpdate")
		q.Control("the same limit without checkBeforeUpdate: the kernel kills the program")
		q.WriteLine(document, `{"memory": {"limit": 4096}}`)
		c.Try("update", "--resources", "resources.json")
		proc.WaitFor(q, proc.Dead(victim.Identity))
		killed := !victim.Alive()
		q.Fact("memory limit below what is used, without checkBeforeUpdate: the kernel has killed the program", killed)
	}
}

// writtenFiles returns the names of the files in after whose content is not that before.
func writtenFiles(before, after map[string]string) []string {
	changed := []string{}
	for name, content := range after {
		if before[name] != content {
			changed = append(changed, name)
		}
	}
	return changed
}

// stateOfPids is what runc's state.json has of --pids-limit 40.
const stateOfPids = `"pids_limit":40`

// updateFlag is a flag of runc update, and for each version of cgroups the file that it changes, with its new content. state is what
// runc's state.json has of it.
type updateFlag struct{ flag, value, controller, v1File, v1Want, v2File, v2Want, state string }

var updateFlags = []updateFlag{
	{"--memory", "134217728", "memory", "memory.limit_in_bytes", "134217728", "memory.max", "134217728", `"memory":134217728`},
	{"--memory-reservation", "33554432", "memory", "memory.soft_limit_in_bytes", "33554432", "memory.low", "33554432",
		`"memory_reservation":33554432`},
	{"--cpu-quota", "25000", "cpu", "cpu.cfs_quota_us", "25000", "cpu.max", "25000 100000", `"cpu_quota":25000`},
	{"--cpuset-cpus", "0", "cpuset", "cpuset.cpus", "0", "cpuset.cpus", "0", `"cpuset_cpus":"0"`},
}

// limitsNoLongerInState asserts that the cgroup has the limits of all updates, and that state.json has lost those of the CPUs: each
// update writes the fields of these, also those that it does not name.
func limitsNoLongerInState(q *lab.Q, c *runc.Container, g cgroup.Group) {
	q.Helper()
	lost := []string{}
	for _, f := range updateFlags {
		if !g.Has(f.controller) {
			continue
		}
		path, want := f.fileAndContent(g)
		assert.Check(q, cmp.Equal(g.Read(f.controller, path), want), "%s after the updates that do not name it", path)
		isInState := strings.Contains(file.Read(q, c.StateFile()), f.state)
		// runc 1.1 loses those of memory, too.
		assert.Check(q, !isInState || f.controller == "memory", "state.json has %s after updates that do not name it. If this runc "+
			"keeps the limits of CPUs, the question has to say since when", f.state)
		if !isInState {
			lost = append(lost, f.flag)
		}
	}
	q.Fact("limits that the cgroup has, and state.json no longer", lost)
}

// fileAndContent returns the file of the cgroup that the flag changes, and its new content.
func (f updateFlag) fileAndContent(g cgroup.Group) (path, content string) {
	if g.V2 {
		return f.v2File, f.v2Want
	}
	return f.v1File, f.v1Want
}

// update calls runc update with the flag, and reads the file of the cgroup before and after.
func (f updateFlag) update(q *lab.Q, c *runc.Container, g cgroup.Group) {
	path, want := f.fileAndContent(g)
	before := g.Read(f.controller, path)
	if f.flag == "--cpu-quota" {
		c.Must("update", "--cpu-period", "100000", f.flag, f.value)
	} else {
		c.Must("update", f.flag, f.value)
	}
	after := g.Read(f.controller, path)
	assert.Check(q, cmp.Equal(after, want), "%s after %s", path, f.flag)
	if runc.IsRunc(q) {
		state := file.Read(q, c.StateFile())
		assert.Check(q, cmp.Contains(state, f.state), "state.json after %s", f.flag)
		assert.Check(q, cmp.Equal(g.Read("pids", "pids.max"), "40"), "pids.max after %s", f.flag)
		assert.Check(q, !strings.Contains(state, stateOfPids), "state.json has %s after %s, which does not name it. If this runc keeps the "+
			"limit of processes, the question has to say since when", stateOfPids, f.flag)
	}
	if f.controller != "cpuset" || runtime.NumCPU() > 1 { // with one CPU there is only one set
		assert.Check(q, before != after, "%s already read %q before", path, before)
	}
	q.Fact(f.flag, path+": "+before+" → "+after)
}
