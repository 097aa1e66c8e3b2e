//go:build linux && vmlab

package cdblab

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/bundle"
	"cdblab/helpers/cgroup"
	"cdblab/helpers/check"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// runc records a container in one file, state.json. The file has the first process, the paths of its namespaces and cgroups, and the
// configuration.
//
// The pid is recorded with its start time, so that runc does not take another process with the same pid for the container. What
// changes by itself while the container runs is not in the file: runc reads the status, the processes and the statistics from the kernel
// each time. Only `runc update` writes the file again, with the limits of this update. So the file is the same before and after the end
// of the container. It has no errors: runc writes these to stderr and into the log of --log.
//
// Hint: read <root>/<id>/state.json before and after kill, and follow each path in it.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/runtime.md#state
// Kernel: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html, https://man7.org/linux/man-pages/man7/cgroups.7.html
func TestLifecycle_WhatDoesRuncRecordOfIt(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does runc record of it?")
	defer q.Recover()
	runc.SkipUnlessRunc(q, "the file state.json")
	b := bundle.Busybox(q, "sleep", "3600")
	clock := check.StartClock(q)
	before := time.Now()
	c, sh, p := runc.StartWithShell(q, b, "recorded", func(s *specs.Spec) {
		s.Annotations = map[string]string{"org.example.note": "kept"}
		s.Linux.Resources = &specs.LinuxResources{
			Memory: &specs.LinuxMemory{Limit: new(int64(64 << 20))},
			Pids:   &specs.LinuxPids{Limit: new(int64(50))},
		}
	})
	after := time.Now()
	g := cgroup.Of(q, c.Bundle.Spec.Linux.CgroupsPath)

	q.Step("state.json has the pid and the start time of the process, and the time of create")
	written := file.Read(q, c.StateFile())
	record := c.StateRecord()
	assert.Check(q, cmp.Equal(record.ID, c.ID))
	assert.Check(q, cmp.Equal(record.PID, p.PID))
	assert.Check(q, cmp.Equal(record.Start, p.Start), "init_process_start is not field 22 of /proc/%d/stat", p.PID)
	clock.InOrder(q, "call of create", before, "created", record.Created)
	clock.InOrder(q, "created", record.Created, "return of create", after)
	q.Fact("init_process_pid", record.PID)
	q.Fact("init_process_start", record.Start)
	q.Fact("created: time after the call of create", lab.Elapsed(record.Created.Sub(before)))

	q.Step("the paths in state.json lead to the namespaces and the cgroups of the process")
	assertNamespacePaths(q, record, p)
	assertCgroupPaths(q, record, p, g)

	q.Step("state.json has the configuration, with the annotations as labels")
	assert.Check(q, cmp.Contains(record.Config.Labels, "org.example.note=kept"))
	assert.Check(q, cmp.Contains(record.Config.Labels, "bundle="+c.Bundle.Dir))
	assert.Check(q, cmp.Equal(record.Config.Rootfs, c.Bundle.Rootfs()))
	q.Fact("labels", record.Config.Labels)
	state := c.State()
	assert.Check(q, cmp.DeepEqual(state.Annotations, c.Bundle.Spec.Annotations))
	assert.Check(q, cmp.Equal(state.Bundle, c.Bundle.Dir))
	q.Covers("annotations")
	q.Fact("annotations, as runc state prints them", state.Annotations)
	modes := []os.FileMode{fileMode(q, c.StateFile()), fileMode(q, c.StateDir())}
	assert.Check(q, (modes[0]|modes[1]).Perm()&0o022 == 0, "other users than the owner can write to state.json or its directory: %v", modes)
	q.Fact("modes of the file and its directory", modes)

	q.Step("runc list prints each container below --root: what its state.json says, and its status at this moment")
	listed := c.List()
	assert.Assert(q, cmp.Len(listed, 1))
	assert.Check(q, cmp.Equal(listed[0].ID, c.ID))
	assert.Check(q, cmp.Equal(listed[0].PID, p.PID))
	assert.Check(q, cmp.Equal(listed[0].Status, specs.StateRunning))
	assert.Check(q, listed[0].Created.Equal(record.Created), "created %v, in state.json %v", listed[0].Created, record.Created)
	assert.Check(q, cmp.Equal(listed[0].Owner, "root"), "owner of the state directory")
	q.Fact("list", []any{listed[0].ID, listed[0].PID, string(listed[0].Status), listed[0].Owner})

	q.Step("runc ps prints the processes of the cgroup")
	assert.Check(q, cmp.Equal(sh.Run("sleep 3600 &").Code, 0))
	assert.Check(q, cmp.DeepEqual(c.Processes(), g.Procs()), "ps against cgroup.procs")
	assert.Check(q, cmp.Len(g.Procs(), 2))
	q.Fact("ps", len(g.Procs()))

	q.Step("runc events --stats prints what the files of the cgroup have")
	assertStatsOfCgroup(q, c, g)

	q.Step("with --log, runc writes one line for an operation that fails, and none for an operation that succeeds")
	assertLogsFailures(q, c, clock, before)

	q.Step("runc features prints what the runtime supports, here beside what the kernel supports")
	assertFeatures(q, b)

	q.Control("kill the process: state.json stays as it was, and list and ps read the new state from the kernel")
	c.Kill("KILL")
	proc.WaitFor(q, proc.Dead(p.Identity))
	afterKill := file.Read(q, c.StateFile())
	assert.Check(q, cmp.Equal(afterKill, written), "state.json was written again")
	q.Fact("state.json after kill: the same as before", afterKill == written)
	listed = c.List()
	assert.Assert(q, cmp.Len(listed, 1))
	assert.Check(q, cmp.Equal(listed[0].Status, specs.StateStopped))
	q.Fact("list after kill", listed[0].Status)
	assert.Check(q, cmp.Len(c.Processes(), 0))
	q.Fact("ps after kill", c.Processes())
	refused := c.Try("events", "--stats")
	assert.Check(q, refused.Code != 0, "events of a stopped container:\n%s", refused)
	q.Fact("events --stats after kill: error", runc.LogMessage(strings.TrimSpace(refused.Stderr)))

	q.Control("after delete there is no state.json, and list prints no container")
	c.Delete()
	assert.Check(q, !file.Exists(c.StateFile()), "%s still exists", c.StateFile())
	assert.Check(q, cmp.Len(c.List(), 0))
	q.Fact("list after delete", c.List())

	// A subtest, because runc 1.2.0 to 1.5.0-rc.2 have a bug here: testdata/released-bugs.toml.
	q.Run("without-a-root", listWithoutRoot)

	q.Answer("runc records the first process, its namespaces and cgroups, and the configuration in state.json. It reads what changes, " +
		"such as the status, from the kernel each time.")
}

// assertNamespacePaths asserts that the recorded paths lead to the namespaces of the process, and that none of its own is missing.
func assertNamespacePaths(q *lab.Q, record runc.StateRecord, p proc.Process) {
	for _, name := range slices.Sorted(maps.Keys(record.Namespaces)) {
		path := record.Namespaces[name]
		var st unix.Stat_t
		assert.NilError(q, unix.Stat(path, &st), "namespace_paths, %s", name)
		assert.Check(q, cmp.Equal(proc.Inode(st.Ino), p.NS[filepath.Base(path)]), "namespace_paths, %s: %s", name, path)
	}
	recordedPaths := strings.Join(slices.Sorted(maps.Values(record.Namespaces)), " ") + " "
	for _, ns := range p.OwnNamespaces(proc.Self(q).Identity) {
		assert.Check(q, cmp.Contains(recordedPaths, "/ns/"+ns+" "), "a namespace of its own is not recorded")
	}
	q.Fact("namespace_paths", slices.Sorted(maps.Keys(record.Namespaces)))
}

// assertCgroupPaths asserts that the recorded paths are directories of the cgroup, and that the process is in each of them.
func assertCgroupPaths(q *lab.Q, record runc.StateRecord, p proc.Process, g cgroup.Group) {
	assert.Check(q, len(record.Cgroups) > 0, "no cgroup_paths")
	for _, name := range slices.Sorted(maps.Keys(record.Cgroups)) {
		procs := file.Read(q, filepath.Join(record.Cgroups[name], "cgroup.procs"))
		assert.Check(q, cmp.Contains(strings.Fields(procs), strconv.Itoa(int(p.PID))), "cgroup_paths, %q", name)
		assert.Check(q, slices.Contains(g.Dirs(), record.Cgroups[name]), "%s is no directory of cgroup %s", record.Cgroups[name], g.Path)
	}
	q.Fact("cgroup_paths: directories of the cgroup, with the process in them", len(record.Cgroups))
}

// fileMode returns the mode of a file, with its type.
func fileMode(q *lab.Q, path string) os.FileMode {
	q.Helper()
	info, err := os.Stat(path)
	assert.NilError(q, err)
	return info.Mode()
}

// assertStatsOfCgroup compares the statistics that the runtime prints with the files of the container's cgroup.
func assertStatsOfCgroup(q *lab.Q, c *runc.Container, g cgroup.Group) {
	cpuTimeBefore := g.CPUTime()
	stats := c.Stats()
	cpuTimeAfter := g.CPUTime()
	for _, row := range []struct {
		statistic, controller string
		v1, v2                string // names of the file
		got                   uint64
	}{
		{"pids.current", "pids", "pids.current", "pids.current", stats.Pids.Current},
		{"pids.limit", "pids", "pids.max", "pids.max", stats.Pids.Limit},
		{"memory.usage.limit", "memory", "memory.limit_in_bytes", "memory.max", stats.Memory.Usage.Limit},
	} {
		name := row.v1
		if g.V2 {
			name = row.v2
		}
		assert.Check(q, cmp.Equal(strconv.FormatUint(row.got, 10), g.Read(row.controller, name)), "%s against %s", row.statistic, name)
		q.Fact(row.statistic+" is "+name, row.got)
	}
	total := stats.CPU.Usage.Total
	isBetween := 0 < cpuTimeBefore && cpuTimeBefore <= total && total <= cpuTimeAfter
	assert.Check(q, isBetween, "cpu.usage.total %d is not between the kernel's values before and after: %d, %d",
		total, cpuTimeBefore, cpuTimeAfter)
	q.Fact("cpu.usage.total: between the kernel's values before and after", isBetween)
	usage := stats.Memory.Usage.Usage
	limit := uint64(*c.Bundle.Spec.Linux.Resources.Memory.Limit)
	assert.Check(q, 0 < usage && usage <= limit, "memory.usage.usage %d", usage)
}

// assertLogsFailures runs an operation that fails and one that succeeds, both with --log, and reads the log of each. before is a time
// before the call of create.
func assertLogsFailures(q *lab.Q, c *runc.Container, clock check.Clock, before time.Time) {
	lines := c.LogOf("state", "no-such-container")
	assert.Assert(q, cmp.Len(lines, 1))
	assert.Check(q, cmp.Equal(lines[0].Level, "error"))
	assert.Check(q, cmp.Contains(lines[0].Msg, "does not exist"))
	clock.InOrder(q, "call of create", before.Truncate(time.Second), "line of the log", lines[0].Time)
	q.Fact("logged of a failure", lines[0].Level+": "+lines[0].Msg)
	linesOfSuccess := c.LogOf("state", c.ID)
	assert.Check(q, cmp.Len(linesOfSuccess, 0), "lines of a success")
	q.Fact("logged of a success: lines", len(linesOfSuccess))
}

// assertFeatures compares what `runc features` lists with what the kernel has, and with what the runtime does.
func assertFeatures(q *lab.Q, b *bundle.Bundle) {
	var f features.Features
	check.DecodeJSON(q, q.Must("runc", "features").Stdout, &f)
	assert.Check(q, cmp.DeepEqual(f.Hooks,
		[]string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"}))
	q.Fact("hooks", f.Hooks)
	assertNamespacesInKernel(q, f, b.Spec)
	assertCapabilitiesOfKernel(q, f)
	assert.Check(q, cmp.Contains(f.MountOptions, "noexec"))
	assert.Check(q, !slices.Contains(f.MountOptions, "nonsense"))
	q.Fact("mount options it knows", len(f.MountOptions))
	tryUnknownMountOption(q, b)
}

// assertNamespacesInKernel asserts that the runtime and the kernel have each type of namespace that config.json names.
func assertNamespacesInKernel(q *lab.Q, f features.Features, spec *specs.Spec) {
	kernelNamespaces := proc.Self(q).NS
	var inKernel []string
	for _, ns := range f.Linux.Namespaces {
		if _, ok := kernelNamespaces[proc.NamespaceName(ns)]; ok {
			inKernel = append(inKernel, ns)
		}
	}
	for _, ns := range bundle.NamespaceTypes(spec) {
		assert.Check(q, cmp.Contains(inKernel, ns),
			"the container has a namespace that runc features does not list, or the kernel does not have")
	}
	q.Fact("namespaces", f.Linux.Namespaces)
	q.Fact("of these, the kernel has", inKernel)
}

// assertCapabilitiesOfKernel compares how many capabilities the runtime knows with how many the kernel has.
func assertCapabilitiesOfKernel(q *lab.Q, f features.Features) {
	kernelCapabilities := check.Int(q, file.Read(q, "/proc/sys/kernel/cap_last_cap")) + 1
	q.Fact("capabilities, and the kernel's", []int{len(f.Linux.Capabilities), kernelCapabilities})
	// Each supported runc knows the 41 capabilities of Linux 5.9. Which ones a later kernel adds, an older runc cannot know.
	assert.Check(q, len(f.Linux.Capabilities) >= min(kernelCapabilities, 41),
		"the kernel has %d capabilities, runc features lists %d", kernelCapabilities, len(f.Linux.Capabilities))
}

// tryUnknownMountOption mounts with an option that is not in the list of `runc features`. The runtime does not refuse it: it passes the
// option to the file system.
func tryUnknownMountOption(q *lab.Q, b *bundle.Bundle) {
	unknownOption := runc.Variant(q, b, "odd", func(s *specs.Spec) {
		s.Mounts = append(s.Mounts,
			specs.Mount{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"nonsense"}})
	})
	create := unknownOption.Try("create")
	assert.Check(q, create.Code != 0, "create with an unknown mount option succeeds:\n%s", create)
	assert.Check(q, cmp.Contains(create.Stderr, "invalid argument"), "create fails, but not with the EINVAL of mount(2)")
	q.Fact("a mount option that it does not know: create's error", runc.StableMessage(create.Stderr))
}

// listWithoutRoot calls `runc list` where no container was ever made.
func listWithoutRoot(q *lab.Q) {
	q.Step("list succeeds and prints no container where no container was ever made: without --root, and without the default root")
	r := runc.InEmptyRun(q, "sh", "-c", "[ -e /run/runc ] && echo there; exec runc list -q")
	assert.Check(q, cmp.Equal(r.Code, 0), "exit code of list, while /run/runc does not exist:\n%s", r)
	assert.Check(q, cmp.Equal(r.Stdout, ""), "what list prints, while /run/runc does not exist")
	q.Fact("list while /run/runc does not exist: exit code", r.Code)
	q.Control("with --root, a directory that does not exist is an error: it may be misspelled")
	root := filepath.Join(q.Dir, "no-such-root")
	q.Cleanup(func() { _ = os.Remove(root) }) // runc 1.1 makes the directory before it looks into it
	missing := q.Exec("runc", "--root", root, "list", "-q")
	assert.Check(q, missing.Code != 0 || q.UnderTest("runc").Precedes("1.2.0-rc.1"), "list with a --root that does not exist:\n%s", missing)
	q.Fact("list with a --root that does not exist: exit code", missing.Code)
}
