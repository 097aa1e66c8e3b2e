//go:build linux && vmlab

package cdblab

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
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
)

// When create fails, it leaves no state, no cgroup of the container, no process and no mount, and the id can be used again.
//
// Create builds a container step by step: process, cgroup, namespaces, mounts, hooks, the check of the program. It can fail at each
// step. The error names the step, and create takes down what it has built until then. (runc 1.5.2 leaves an empty state directory if
// --preserve-fds counts a descriptor that is not open.) If the runtime itself is killed, no process takes anything down. Killed while a
// createRuntime hook runs, it leaves a state directory without state.json, a cgroup, and the hook. Killed after it has written
// state.json, which is after all hooks of createRuntime and createContainer, it leaves this file as well, and perhaps `runc init`.
//
// Hint: compare the host before and after. Which leftovers would a monitor see?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/runtime.md#create
// Kernel: https://man7.org/linux/man-pages/man7/cgroups.7.html
func TestLifecycle_WhatIsLeftWhenCreateFails(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What is left when create fails?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "3600")
	c := runc.Variant(q, b, "failing")

	for _, row := range createFailures {
		q.Run(row.cause, func(q *lab.Q) {
			c := c.InSubtest(q)
			q.Step("create fails for %s", row.cause)
			c.Bundle.Edit(row.edit)
			before := q.TakeInventory()
			create := c.Try("create")
			c.Bundle.Restore()
			assert.Assert(q, create.Code != 0, "create succeeds:\n%s", create)
			runc.AssertMessage(q, create.Stderr, row.error)
			q.Fact(row.cause+": create's error", runc.StableMessage(create.Stderr))
			proc.WaitFor(q, c.NoLeftovers(before))
			q.Fact(row.cause+": leftovers", c.Leftovers(before))
			assert.Check(q, !file.Exists(c.StateDir()), "the state directory is left")
			check.NoCgroup(q, c.Bundle.Spec.Linux.CgroupsPath)
		})
	}
	q.Clause("Lifecycle: If the runtime is unable to create the environment specified in the config.json, "+
		"it MUST generate an error.", lab.Met)
	q.Clause("Create: If the runtime cannot apply a property as specified in the configuration, it MUST "+
		"generate an error and a new container MUST NOT be created.", lab.Met)

	q.Step("create fails, and the parent of the container's cgroup was missing: only the container's own cgroup is removed")
	deep, above := belowMissingCgroup(q, b, "deep", bundle.Args("no-such-program"))
	failed := deep.Try("create")
	assert.Check(q, failed.Code != 0, "create succeeds:\n%s", failed)
	check.NoCgroup(q, deep.Bundle.Spec.Linux.CgroupsPath)
	undone := countExisting(above) == 0
	q.Fact("cgroup above the container's: left after a failed create", !undone)
	q.Clause("Errors: Unless otherwise stated, generating an error MUST leave the state of the environment "+
		"as if the operation were never attempted - modulo any possible trivial ancillary changes "+
		"such as logging.", lab.DeviatesUnless(undone, "the cgroup that create has made above the container's stays"))

	q.Control("the same id and a valid config.json: the container is created, and it is seen on the host")
	before := q.TakeInventory()
	c.Create()
	p := c.Process()
	assert.Check(q, len(c.Leftovers(before)) > 0, "a created container is not seen on the host")
	status := c.State().Status
	assert.Check(q, cmp.Equal(status, specs.StateCreated), "status after a create that succeeds")
	q.Fact("created", status)
	c.Must("delete", "--force")
	proc.WaitFor(q, proc.Dead(p.Identity))

	q.Step("kill runc while it waits for a hook of create: a state directory without state.json, a cgroup and the hook are left")
	killed, log := runc.WithHooks(q, b, "killed", func(h *specs.Hooks, dir string) {
		h.CreateRuntime = []specs.Hook{{
			Path: "/bin/sh", Args: []string{"sh", "-c", "echo $$ > $1/pid; echo hook >> $1/order; exec sleep 3600", "sh", dir},
			Env: []string{"PATH=/bin:/usr/bin"},
		}}
	})
	before = q.TakeInventory()
	create := q.StartBackground(killed.Argv("create")...)
	proc.WaitFor(q, log.HasEntries(1))
	hook := proc.PID(check.Int(q, file.Read(q, filepath.Join(log.Dir, "pid"))))
	create.Signal(unix.SIGKILL)
	assert.Check(q, cmp.Equal(create.ExitCode(), -1))
	leftovers := killed.Leftovers(before)
	assert.Check(q, len(leftovers) > 0, "a killed create leaves nothing: the answer to this question is wrong")
	assert.Check(q, file.Exists(killed.StateDir()), "a killed create leaves no state directory")
	assert.Check(q, !file.Exists(killed.StateFile()), "create has written state.json before its createRuntime hooks")
	q.Fact("left: a state directory", file.Exists(killed.StateDir()))
	q.Fact("left: state.json", file.Exists(killed.StateFile()))
	var cgroups []string
	for _, dir := range cgroup.Of(q, killed.Bundle.Spec.Linux.CgroupsPath).Dirs() {
		if file.Exists(dir) {
			cgroups = append(cgroups, dir)
		}
	}
	assert.Check(q, len(cgroups) > 0, "a killed create leaves no cgroup")
	q.Fact("left: cgroups", cgroups)
	assert.Check(q, proc.Alive(hook), "the hook has ended with runc, and is no leftover")
	q.Fact("left: the process of the hook", proc.Alive(hook))
	listed := q.Must("runc", "--root", killed.Root, "list", "-q").Stdout
	if runc.IsRunc(q) && !file.Exists(killed.StateFile()) { // a directory without state.json is no container for runc
		assert.Check(q, cmp.Equal(strings.TrimSpace(listed), ""), "what runc list -q prints after a killed create")
	}
	q.Fact("runc list prints", strings.TrimSpace(listed))
	removeKilledCreate(q, killed)
	assert.Check(q, !proc.Alive(hook), "the hook, process %d, is still there after the lab's cleanup", hook)

	q.Answer("A create that fails leaves no state, no cgroup of the container, no process and no mount, and its id is free. A create that " +
		"is killed while it waits for a createRuntime hook leaves a state directory, a cgroup and the hook.")
}

// createFailure is an edit of config.json that makes create fail, and the error.
type createFailure struct {
	cause string // of the failure
	edit  func(*specs.Spec)
	error string // regular expression
}

// createFailures lists failures at each step of create: namespaces, cgroup, mounts, hooks, and the check of the program.
var createFailures = []createFailure{
	{"a namespace that cannot be joined", func(s *specs.Spec) {
		for i := range s.Linux.Namespaces {
			if s.Linux.Namespaces[i].Type == specs.NetworkNamespace {
				s.Linux.Namespaces[i].Path = "/no/such/namespace"
			}
		}
	}, "no such file|does not exist|lstat"},
	{"a limit that the kernel refuses", func(s *specs.Spec) {
		s.Linux.Resources = &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "4096"}}
	}, "cpuset|Cpus"},
	{"a limit that is invalid", func(s *specs.Spec) {
		s.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: new(int64(-12))}}
	}, "memory"},
	{"a mount whose source is missing", func(s *specs.Spec) {
		s.Mounts = append(s.Mounts,
			specs.Mount{Destination: "/data", Type: "bind", Source: "/no/such/source", Options: []string{"bind"}})
	}, "no such file"},
	{"a mount of an unknown file system", func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/tmp", Type: "nosuchfs", Source: "none"})
	}, "no such device|invalid"},
	{"a hook", func(s *specs.Spec) {
		s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "exit 5"}}}}
	}, "exit status 5"},
	{"a program that is not there", func(s *specs.Spec) { s.Process.Args = []string{"no-such-program"} }, "no-such-program"},
	{"a program that may not be run", func(s *specs.Spec) { s.Process.Args = []string{"/etc/passwd"} }, "permission denied"},
	{"a working directory that cannot be entered", func(s *specs.Spec) {
		s.Process.Cwd = "/etc/passwd/x"
	}, "(?i)not a directory|chdir|cwd"},
}

// removeKilledCreate removes what a killed create has left: its processes, which are in the container's cgroup or still
// in the caller's, the state directory and the cgroup.
func removeKilledCreate(q *lab.Q, c *runc.Container) {
	q.Helper()
	all, err := host.Processes()
	assert.NilError(q, err)
	for _, found := range all {
		if !found.OwnedBy(q.Owner) {
			continue
		}
		p, err := proc.Read(proc.PID(found.PID))
		if err == nil && (p.Comm == "sleep" || p.Comm == "sh" || strings.Contains(p.Comm, "runc:")) {
			q.KillProcess(p)
			proc.WaitFor(q, proc.Dead(p.Identity))
		}
	}
	c.Try("delete", "--force")
	for _, dir := range cgroup.Of(q, c.Bundle.Spec.Linux.CgroupsPath).Dirs() {
		if file.Exists(dir) {
			proc.WaitFor(q, cgroup.Removed(dir))
		}
	}
}
