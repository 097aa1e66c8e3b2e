//go:build linux && vmlab

package cdblab

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"cdblab/helpers/check"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"
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

// One file, state.json: who the first process is, where its namespaces and cgroups are, and the configuration.
//
// The pid is kept with its start time, so that a pid used again is not taken for the container. What changes is not in
// the file: status, processes and statistics are read from the kernel each time one asks, so the file is the same before
// and after the container's end. What went wrong is in the log alone, if the caller asks for one.
//
// Hint: read <root>/<id>/state.json before and after kill, and each path in it.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/runtime.md#state
// Kernel: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html, https://man7.org/linux/man-pages/man7/cgroups.7.html
func TestLifecycle_WhatDoesRuncRecordOfIt(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does runc record of it?")
	b := bundle.Busybox(q, "sleep", "300")
	memory, pids := int64(64<<20), int64(50)
	before := time.Now()
	c, sh, p := runc.StartWithShell(q, b, "recorded", func(s *specs.Spec) {
		s.Annotations = map[string]string{"org.example.note": "kept"}
		s.Linux.Resources = &specs.LinuxResources{
			Memory: &specs.LinuxMemory{Limit: &memory},
			Pids:   &specs.LinuxPids{Limit: &pids},
		}
	})
	after := time.Now()
	g := cgroup.Of(q, c.Bundle.Spec.Linux.CgroupsPath)
	path := filepath.Join(c.StateDir(), "state.json")

	q.Step("state.json: the process, by pid and start time, and when it was made")
	written := file.Read(q, path)
	var r record
	assert.NilError(q, json.Unmarshal([]byte(written), &r), "state.json is no JSON")
	assert.Check(q, cmp.Equal(r.ID, c.ID))
	assert.Check(q, cmp.Equal(r.PID, p.PID))
	assert.Check(q, cmp.Equal(r.Start, p.Start), "init_process_start is not field 22 of /proc/%d/stat", p.PID)
	assert.Check(q, r.Created.After(before) && r.Created.Before(after), "created %v is not between %v and %v", r.Created, before, after)
	q.Fact("init_process_pid", r.PID)
	q.Fact("init_process_start", r.Start)
	q.Fact("created", "between the call and its return")

	q.Step("its paths lead to the namespaces and the cgroups of the process")
	for _, name := range slices.Sorted(maps.Keys(r.Namespaces)) {
		path := r.Namespaces[name]
		var now unix.Stat_t
		assert.NilError(q, unix.Stat(path, &now), "namespace_paths, %s", name)
		assert.Check(q, cmp.Equal(proc.Inode(now.Ino), p.NS[filepath.Base(path)]), "namespace_paths, %s: %s", name, path)
	}
	recorded := strings.Join(slices.Sorted(maps.Values(r.Namespaces)), " ") + " "
	for _, ns := range p.OwnNamespaces(proc.Self(q).Identity) {
		assert.Check(q, cmp.Contains(recorded, "/ns/"+ns+" "), "a namespace of its own is not recorded")
	}
	q.Fact("namespace_paths", slices.Sorted(maps.Keys(r.Namespaces)))
	assert.Check(q, len(r.Cgroups) > 0, "no cgroup_paths")
	for _, name := range slices.Sorted(maps.Keys(r.Cgroups)) {
		procs := file.Read(q, filepath.Join(r.Cgroups[name], "cgroup.procs"))
		assert.Check(q, cmp.Contains(strings.Fields(procs), strconv.Itoa(int(p.PID))), "cgroup_paths, %q", name)
		assert.Check(q, slices.Contains(g.Dirs(), r.Cgroups[name]), "%s is no directory of cgroup %s", r.Cgroups[name], g.Path)
	}
	q.Fact("cgroup_paths", "each is a directory of the cgroup, with the process in it")

	q.Step("the configuration is in it, and with it what the caller noted")
	assert.Check(q, cmp.Contains(r.Config.Labels, "org.example.note=kept"))
	assert.Check(q, cmp.Contains(r.Config.Labels, "bundle="+c.Bundle.Dir))
	assert.Check(q, cmp.Equal(r.Config.Rootfs, c.Bundle.Rootfs()))
	q.Fact("labels", r.Config.Labels)
	document := c.State()
	assert.Check(q, cmp.DeepEqual(document.Annotations, c.Bundle.Spec.Annotations))
	assert.Check(q, cmp.Equal(document.Bundle, c.Bundle.Dir))
	q.Fact("annotations, as state says them", document.Annotations)
	info, err := os.Stat(path)
	assert.NilError(q, err)
	dir, err := os.Stat(c.StateDir())
	assert.NilError(q, err)
	q.Fact("modes of the file and its directory", []os.FileMode{info.Mode(), dir.Mode()})

	q.Step("list: what is below --root, each with the record and a status of this moment")
	listed := list(q, c)
	assert.Assert(q, cmp.Len(listed, 1))
	assert.Check(q, cmp.Equal(listed[0].ID, c.ID))
	assert.Check(q, cmp.Equal(listed[0].PID, p.PID))
	assert.Check(q, cmp.Equal(listed[0].Status, specs.StateRunning))
	assert.Check(q, listed[0].Created.Equal(r.Created), "created %v, in state.json %v", listed[0].Created, r.Created)
	assert.Check(q, cmp.Equal(listed[0].Owner, "root"), "owner of the state directory")
	q.Fact("list", []any{listed[0].ID, listed[0].PID, string(listed[0].Status), listed[0].Owner})

	q.Step("ps: the cgroup's processes")
	assert.Check(q, cmp.Equal(sh.Run("sleep 300 &").Code, 0))
	assert.Check(q, cmp.DeepEqual(ps(q, c), g.Procs()), "ps against cgroup.procs")
	assert.Check(q, cmp.Len(g.Procs(), 2))
	q.Fact("ps", len(g.Procs()))

	q.Step("events --stats: the cgroup's files")
	type stats struct {
		Type, ID string
		Data     struct {
			CPU    struct{ Usage struct{ Total uint64 } }
			Memory struct {
				Usage struct{ Limit, Usage uint64 }
			}
			Pids struct{ Current, Limit uint64 }
		}
	}
	var e stats
	used := g.CPUTime()
	check.DecodeJSON(q, c.Must("events", "--stats").Stdout, &e)
	for _, row := range []struct {
		statistic, controller string
		v1, v2                string // the file
		got                   uint64
	}{
		{"pids.current", "pids", "pids.current", "pids.current", e.Data.Pids.Current},
		{"pids.limit", "pids", "pids.max", "pids.max", e.Data.Pids.Limit},
		{"memory.usage.limit", "memory", "memory.limit_in_bytes", "memory.max", e.Data.Memory.Usage.Limit},
	} {
		name := row.v1
		if g.V2 {
			name = row.v2
		}
		assert.Check(q, cmp.Equal(strconv.FormatUint(row.got, 10), g.Read(row.controller, name)), "%s against %s", row.statistic, name)
		q.Fact(row.statistic+" is "+name, row.got)
	}
	assert.Check(q, used <= e.Data.CPU.Usage.Total && e.Data.CPU.Usage.Total <= g.CPUTime() && used > 0,
		"cpu.usage.total %d is not what the kernel said before and after: %d, %d", e.Data.CPU.Usage.Total, used, g.CPUTime())
	q.Fact("cpu.usage.total", "between what the kernel says before and after")
	assert.Check(q, e.Data.Memory.Usage.Usage > 0 && e.Data.Memory.Usage.Usage <= uint64(memory), "memory.usage.usage %d", e.Data.Memory.Usage.Usage)

	q.Step("--log: one line for what went wrong; nothing for what did not")
	logged := func(words ...string) []string {
		log := filepath.Join(q.Dir, "root-recorded", "log-"+strings.Join(words, "-"))
		argv := append([]string{"runc", "--root", c.Root, "--log", log, "--log-format", "json"}, words...)
		result := q.Exec(argv...)
		lines := strings.FieldsFunc(file.Read(q, log), func(r rune) bool { return r == '\n' })
		assert.NilError(q, os.Remove(log)) // it must not be taken for a container below the root
		if result.Code != 0 {
			assert.Check(q, result.Stderr != "", "the caller is told nothing")
		}
		return lines
	}
	lines := logged("state", "no-such-container")
	assert.Assert(q, cmp.Len(lines, 1), "%q", lines)
	var line struct {
		Level, Msg string
		Time       time.Time
	}
	check.DecodeJSON(q, lines[0], &line)
	assert.Check(q, cmp.Equal(line.Level, "error"))
	assert.Check(q, cmp.Contains(line.Msg, "does not exist"))
	assert.Check(q, !line.Time.Before(before.Truncate(time.Second)), "time %v is before the question's beginning %v", line.Time, before)
	q.Fact("of a failure", line.Level+": "+line.Msg)
	assert.Check(q, cmp.Len(logged("state", c.ID), 0), "lines of a success")
	q.Fact("of a success", "none")

	q.Step("features: what the runtime could do, here compared with what the kernel can")
	var f features.Features
	check.DecodeJSON(q, q.Must("runc", "features").Stdout, &f)
	assert.Check(q, cmp.DeepEqual(f.Hooks, []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"}))
	q.Fact("hooks", f.Hooks)
	kernel := proc.Self(q).NS
	var known, both []string
	for _, ns := range f.Linux.Namespaces {
		known = append(known, ns)
		if _, ok := kernel[kernelName(ns)]; ok {
			both = append(both, ns)
		}
	}
	for _, ns := range bundle.NamespaceTypes(c.Bundle.Spec) {
		assert.Check(q, cmp.Contains(both, ns), "the container has a namespace that features, or the kernel, does not know")
	}
	q.Fact("namespaces", known)
	q.Fact("of these, the kernel has", both)
	last, err := strconv.Atoi(file.Read(q, "/proc/sys/kernel/cap_last_cap"))
	assert.NilError(q, err)
	q.Fact("capabilities, and the kernel's", []int{len(f.Linux.Capabilities), last + 1})
	if q.UnderTest("runc").Pinned {
		assert.Check(q, len(f.Linux.Capabilities) >= last+1, "the kernel has %d capabilities, features %d", last+1, len(f.Linux.Capabilities))
	}
	assert.Check(q, cmp.Contains(f.MountOptions, "noexec"))
	assert.Check(q, !slices.Contains(f.MountOptions, "nonsense"))
	q.Fact("mount options it knows", len(f.MountOptions))
	// What is not in the list is not refused by the runtime: it is handed to the file system, which may know it.
	odd := runc.Variant(q, b, "odd", func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"nonsense"}})
	})
	made := odd.Try("create")
	assert.Check(q, made.Code != 0, "create with an option that nobody knows succeeds:\n%s", made)
	assert.Check(q, cmp.Contains(made.Stderr, "invalid argument"), "it is not mount(2) that refuses it")
	q.Fact("an option that it does not know", "EINVAL, from mount(2)")

	q.Control("the process is killed: the file is as it was, and list and ps have asked the kernel")
	c.Kill("KILL")
	proc.WaitFor(q, proc.Dead(p.Identity))
	assert.Check(q, cmp.Equal(file.Read(q, path), written), "state.json was written again")
	q.Fact("state.json", "the same bytes")
	listed = list(q, c)
	assert.Assert(q, cmp.Len(listed, 1))
	assert.Check(q, cmp.Equal(listed[0].Status, specs.StateStopped))
	q.Fact("list", listed[0].Status)
	assert.Check(q, cmp.Len(ps(q, c), 0))
	q.Fact("ps", ps(q, c))
	refused := c.Try("events", "--stats")
	assert.Check(q, refused.Code != 0, "events of a stopped container:\n%s", refused)
	q.Fact("events --stats", runc.LogMessage(strings.TrimSpace(refused.Stderr)))

	q.Control("deleted: no file, and no line in list")
	c.Delete()
	assert.Check(q, !file.Exists(path), "%s is still there", path)
	assert.Check(q, cmp.Len(list(q, c), 0))
	q.Fact("list", list(q, c))

	q.Answer("In state.json: process, namespaces, cgroups, configuration. What changes is asked of the kernel each time.")
}

// record is what this question reads of libcontainer's state.json.
type record struct {
	ID         string
	PID        proc.PID   `json:"init_process_pid"`
	Start      proc.Ticks `json:"init_process_start"`
	Created    time.Time
	Namespaces map[string]string `json:"namespace_paths"`
	Cgroups    map[string]string `json:"cgroup_paths"`
	Config     struct {
		Rootfs string
		Labels []string
	}
}

// listing is an element of what `runc list` prints.
type listing struct {
	ID      string
	PID     proc.PID
	Status  specs.ContainerState
	Created time.Time
	Owner   string
}

// list has the runtime list the containers below the container's root.
func list(q *lab.Q, c *runc.Container) []listing {
	q.Helper()
	var out []listing
	check.DecodeJSON(q, q.Must("runc", "--root", c.Root, "list", "--format", "json").Stdout, &out)
	return out
}

// ps has the runtime list the container's processes, sorted.
func ps(q *lab.Q, c *runc.Container) []int {
	q.Helper()
	var out []int
	check.DecodeJSON(q, c.Must("ps", "--format", "json").Stdout, &out)
	slices.Sort(out)
	return out
}

// kernelName is the name that /proc/PID/ns has for a namespace of config.json.
func kernelName(ns string) string {
	if name, ok := map[string]string{"mount": "mnt", "network": "net"}[ns]; ok {
		return name
	}
	return ns
}
