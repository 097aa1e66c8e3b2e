//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
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

// The namespaces and the cgroup of the container's process, and nothing of its family.
//
// An exec is another process, with a pid, a parent and an exit code of its own, and to the program in the container it
// has come from nowhere: its parent's pid, seen from inside, is 0. From config.json it takes env, cwd, user and
// capabilities, all of which the command line can change. Its death means nothing to the container; the container's
// death, the death of pid 1, ends it.
//
// Hint: compare /proc/PID/{ns,cgroup,stat,status} of both; who is pid 1 of a pid namespace?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config.md#process
// Kernel: https://man7.org/linux/man-pages/man2/setns.2.html
func TestLifecycle_WhatDoesExecJoin(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does `exec` join?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "300")
	b.Edit(func(s *specs.Spec) {
		s.Process.Env = append(s.Process.Env, "LESSON=exec")
		s.Process.Cwd = "/tmp"
		s.Process.User = specs.User{UID: 1000, GID: 1000}
	})
	c := runc.New(q, b)
	init := c.CreateAndStart()

	q.Step("the same namespaces, the same cgroup, the same mounts")
	joined := runc.ExecSleep(q, c, "joined")
	assert.Check(q, cmp.DeepEqual(joined.NS, init.NS))
	assert.Check(q, cmp.DeepEqual(joined.Cgroups, init.Cgroups))
	assert.Check(q, cmp.DeepEqual(joined.Mounts, init.Mounts))
	assert.Check(q, cmp.DeepEqual(cgroup.Of(q, b.Spec.Linux.CgroupsPath).Procs(), check.Sorted(init.PID, joined.PID)))
	q.Fact("namespaces in common", joined.SharedNamespaces(init.Identity))
	q.Fact("processes in the cgroup", 2)

	q.Step("its stdin is the host's /dev/null: the file stays root's, though a program of another user has it open")
	assert.Check(q, cmp.Equal(joined.FDs[0], "/dev/null"), "stdin of the executed program")
	// runc gives files that it gets as stdin, stdout and stderr to the user, so that the program can open them again. runc 1.1.4
	// did that with the null device of the host.
	owner := file.Owner(q, "/dev/null")
	assert.Check(q, cmp.Equal(owner, "0:0"), "owner of the host's /dev/null, which the program of user %d has as stdin", joined.UID)
	q.Fact("/dev/null on the host: owner", owner)

	q.Step("another pid, and a parent from outside: seen from inside it has none")
	assert.Check(q, joined.PID != init.PID)
	assert.Check(q, cmp.Equal(proc.InnerPID(q, init.PID), 1))
	inner := proc.InnerPID(q, joined.PID)
	assert.Check(q, inner > 1, "its pid in the namespace is %d", inner)
	assert.Check(q, joined.Parent != init.PID, "the container's process is its parent")
	innerParent := strings.TrimSpace(c.Exec("sh", "-c", "cut -d' ' -f4 /proc/"+strconv.Itoa(inner)+"/stat").Stdout)
	assert.Check(q, cmp.Equal(innerParent, "0"), "its parent, as the container sees it")
	// Which pid it gets depends on the number of threads that the runtime has just had in the namespace.
	q.Fact("pids in the namespace", []any{1, lab.VolatileNames("inner pid", strconv.Itoa(inner))})
	q.Fact("its parent, seen from inside", innerParent)

	q.Step("an exit code of its own, and it is exec's")
	exits9 := c.Exec("sh", "-c", "exit 9")
	assert.Check(q, cmp.Equal(exits9.Code, 9), "%s", exits9)
	assert.Check(q, cmp.Equal(c.State().Status, specs.StateRunning))
	q.Fact("exit code", exits9.Code)

	q.Step("what it takes from config.json: env, cwd, user and capabilities")
	assert.Check(q, cmp.Contains(joined.Env, "LESSON=exec"))
	assert.Check(q, cmp.Equal(proc.Cwd(q, joined.PID), "/tmp"))
	assert.Check(q, cmp.DeepEqual(proc.IDs(q, joined.PID, "Uid"), proc.IDs(q, init.PID, "Uid")))
	for _, set := range []string{"CapBnd", "CapEff", "CapPrm", "CapInh", "CapAmb"} {
		assert.Check(q, cmp.Equal(proc.Bits(q, joined.PID, set), proc.Bits(q, init.PID, set)), set)
	}
	assert.Check(q, cmp.Equal(proc.Status(q, joined.PID, "NoNewPrivs"), proc.Status(q, init.PID, "NoNewPrivs")))
	q.Fact("uid", joined.UID)
	q.Fact("cwd", proc.Cwd(q, joined.PID))
	q.Fact("CapBnd", proc.Bits(q, joined.PID, "CapBnd"))

	q.Control("the command line can set other values, for this one process")
	other := runc.ExecSleep(q, c, "other", "--env", "LESSON=other", "--cwd", "/root", "--user", "0:0")
	assert.Check(q, slices.Contains(other.Env, "LESSON=other"), "environ: %q", other.Env)
	assert.Check(q, cmp.Equal(proc.Cwd(q, other.PID), "/root"))
	assert.Check(q, cmp.Equal(other.UID, 0))
	assert.Check(q, cmp.Equal(proc.Snapshot(q, init.PID).UID, 1000), "the container's own process changed")
	q.Fact("uid and cwd with flags of exec", []string{fmt.Sprint(other.UID), proc.Cwd(q, other.PID)})

	q.Step("its death does not end the container …")
	q.KillProcess(other)
	proc.WaitFor(q, proc.Dead(other.Identity))
	assert.Check(q, cmp.Equal(c.State().Status, specs.StateRunning))
	assert.Check(q, proc.Alive(init.PID))
	q.Fact("the container, after the death of an exec", c.State().Status)

	q.Step("… but the death of pid 1 ends it")
	c.KillAndDelete(init)
	proc.WaitFor(q, proc.Dead(joined.Identity))
	q.Fact("an exec, after the death of pid 1", "dead")

	q.Step("nothing can be executed in a container that does not run")
	stopped := runc.Variant(q, b, "stopped", bundle.Args("true"))
	stopped.Create()
	p := stopped.Process()
	stopped.Start()
	proc.WaitFor(q, proc.Dead(p.Identity))
	refused := stopped.Exec("true")
	assert.Check(q, refused.Code != 0, "exec in a stopped container succeeds:\n%s", refused)
	q.Fact("exec in a stopped container: error", runc.LastLogMessage(refused))

	q.Answer("All namespaces and the cgroup of pid 1. Pid, parent, exit code are its own; env, cwd and user are config.json's.")
}
