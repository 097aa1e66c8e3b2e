//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"maps"
	"path/filepath"
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
	"cdblab/helpers/seccomp"
)

// An exec joins all namespaces and the cgroup of the container's first process, and it is not a child of that process.
//
// An exec is another process, with a pid, a parent and an exit code of its own. Its parent is outside of the pid namespace, so
// a process inside reads 0 as the pid of its parent. It has what config.json gives to the first program: user, groups,
// capabilities, limits, environment, directory and seccomp filter. Flags of exec change some of these. The end of an exec does
// not end the container. The end of pid 1 ends the container and each exec.
//
// Hint: compare /proc/PID/{ns,cgroup,stat,status,limits,fd} of both processes. Which one is pid 1 of the pid namespace?
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config.md#process (exec itself is runc's own operation)
// Kernel: https://man7.org/linux/man-pages/man2/setns.2.html
func TestLifecycle_WhatDoesExecJoin(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does `exec` join?")
	defer q.Recover()
	b := bundle.Busybox(q, "sleep", "3600")
	// Each value differs from what a process has without config.json.
	b.Edit(func(s *specs.Spec) {
		s.Process.Env = append(s.Process.Env, "LESSON=exec")
		s.Process.Cwd = "/tmp"
		s.Process.User = specs.User{UID: 1000, GID: 2000, AdditionalGids: []uint32{3000, 4000}, Umask: new(uint32(0o27))}
		s.Process.NoNewPrivileges = true
		s.Process.OOMScoreAdj = new(321)
		s.Process.Rlimits = []specs.POSIXRlimit{
			{Type: "RLIMIT_NOFILE", Soft: 500, Hard: 600}, {Type: "RLIMIT_CORE", Soft: 4096, Hard: 8192},
		}
		kill, chown, bind := "CAP_KILL", "CAP_CHOWN", "CAP_NET_BIND_SERVICE"
		s.Process.Capabilities = &specs.LinuxCapabilities{
			Bounding: []string{kill, chown, bind}, Permitted: []string{kill, bind}, Effective: []string{kill, bind},
			Inheritable: []string{kill, bind}, Ambient: []string{bind},
		}
		s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: seccomp.NativeArch(),
			Syscalls: []specs.LinuxSyscall{{Names: []string{"getcwd"}, Action: specs.ActErrno}}}
	})
	const chownBit, killBit, bindBit = 1 << 0, 1 << 5, 1 << 10 // linux/capability.h
	fromConfig := map[string]string{
		"Uid": "1000 1000 1000 1000", "Gid": "2000 2000 2000 2000", "Groups": "3000 4000", "Umask": "0027", "cwd": "/tmp",
		"NoNewPrivs": "1", "Seccomp": "2", "oom_score_adj": "321",
		"Max open files": "500 600 files", "Max core file size": "4096 8192 bytes",
		"CapBnd": proc.Mask(killBit | chownBit | bindBit).String(), "CapInh": proc.Mask(killBit | bindBit).String(),
		// Of a user other than root, execve(2) keeps as permitted and effective what is ambient (capabilities(7)).
		"CapPrm": proc.Mask(bindBit).String(), "CapEff": proc.Mask(bindBit).String(), "CapAmb": proc.Mask(bindBit).String(),
	}
	c := runc.New(q, b)
	init := c.CreateAndStart()

	q.Step("exec of another program: it has the namespaces, the cgroups and the mounts of the first one")
	joined := runc.ExecSleepAfter(q, c, "joined", "exec 9< /")
	assert.Check(q, cmp.DeepEqual(joined.NS, init.NS))
	assert.Check(q, cmp.DeepEqual(joined.Cgroups, init.Cgroups))
	assert.Check(q, cmp.DeepEqual(joined.Mounts, init.Mounts))
	members := cgroup.Of(q, b.Spec.Linux.CgroupsPath).Procs()
	assert.Check(q, cmp.DeepEqual(members, check.Sorted(init.PID, joined.PID)), "processes in the cgroup")
	q.Fact("namespaces in common", joined.SharedNamespaces(init.Identity))
	q.Fact("processes in the cgroup", len(members))

	q.Step("it has what config.json says of the process, as the first program does: ids, capabilities, limits, filter")
	ofInit, ofExec := proc.Settings(q, init.PID), proc.Settings(q, joined.PID)
	// runc 1.1 forgets the umask in exec. runc 1.2.0-rc.1 sets it, and is the first one whose features name mountExtensions.
	if !runc.KnowsSince(q, "mountExtensions", "1.2.0-rc.1") {
		q.Fact("exec: Umask, ignored by this runtime", ofExec["Umask"])
		delete(fromConfig, "Umask")
		ofExec["Umask"] = ofInit["Umask"]
	}
	for _, key := range slices.Sorted(maps.Keys(fromConfig)) {
		assert.Check(q, cmp.Equal(ofExec[key], fromConfig[key]), "%s of the executed program; config.json decides it", key)
		q.Fact("exec: "+key, ofExec[key])
	}
	assert.Check(q, cmp.Contains(joined.Env, "LESSON=exec"))
	allCPUs := cgroup.Of(q, b.Spec.Linux.CgroupsPath).CPUs()
	assert.Check(q, cmp.Equal(ofExec["Cpus_allowed_list"], allCPUs), "CPUs of the executed program, and those of the cgroup")
	// Whole: also what config.json does not mention, such as the limits without an entry and the signals that are ignored.
	assert.Check(q, cmp.DeepEqual(ofExec, ofInit), "settings of the executed program, and those of the first program")
	q.Fact("settings that both programs have in common", len(ofExec))

	q.Step("its open files are stdin, stdout and stderr: descriptor 9 of the caller, a directory of the host, is not passed on")
	assert.Check(q, cmp.DeepEqual(joined.FDs, init.FDs), "descriptors of the executed program, and those of the first program")
	assert.Check(q, cmp.DeepEqual(slices.Sorted(maps.Keys(joined.FDs)), []int{0, 1, 2}), "descriptors: %q", joined.FDs)
	q.Fact("exec: descriptors", slices.Sorted(maps.Keys(joined.FDs)))

	q.Step("its stdin is the host's /dev/null: the file stays root's, though a program of another user has it open")
	assert.Check(q, cmp.Equal(joined.FDs[0], "/dev/null"), "stdin of the executed program")
	// runc gives files that it gets as stdin, stdout and stderr to the user, so that the program can open them again. runc 1.1.4
	// did that with the null device of the host.
	owner := file.Owner(q, "/dev/null")
	assert.Check(q, cmp.Equal(owner, "0:0"), "owner of the host's /dev/null, which the program of user %d has as stdin", joined.UID)
	q.Fact("/dev/null on the host: owner", owner)

	q.Step("it has another pid, and its parent is outside of the pid namespace: inside, the parent's pid reads 0")
	assert.Check(q, joined.PID != init.PID)
	assert.Check(q, cmp.Equal(proc.InnerPID(q, init.PID), 1))
	inner := proc.InnerPID(q, joined.PID)
	assert.Check(q, inner > 1, "its pid in the namespace is %d", inner)
	assert.Check(q, joined.Parent != init.PID, "the container's process is its parent")
	innerParent := strings.TrimSpace(c.Exec("sh", "-c", "cut -d' ' -f4 /proc/"+strconv.Itoa(inner)+"/stat").Stdout)
	assert.Check(q, cmp.Equal(innerParent, "0"), "its parent, as the container sees it")
	// Which pid it gets depends on the number of threads that the runtime has just had in the namespace.
	q.Fact("pids in the namespace", []any{proc.InnerPID(q, init.PID), lab.VolatileNames("inner pid", strconv.Itoa(inner))})
	q.Fact("its parent, seen from inside", innerParent)

	q.Step("it has an exit code of its own, which exec returns, and the container runs on")
	exits9 := c.Exec("sh", "-c", "exit 9")
	assert.Check(q, cmp.Equal(exits9.Code, 9), "%s", exits9)
	assert.Check(q, cmp.Equal(c.State().Status, specs.StateRunning))
	q.Fact("exit code", exits9.Code)

	q.Control("flags of exec set other values, for this one process: even a capability that the container does not have")
	const sysTimeBit = 1 << 25
	other := runc.ExecSleep(q, c, "other", "--env", "LESSON=other", "--cwd", "/root", "--user", "0:0", "--cap", "CAP_SYS_TIME")
	assert.Check(q, slices.Contains(other.Env, "LESSON=other"), "environ: %q", other.Env)
	assert.Check(q, cmp.Equal(proc.Cwd(q, other.PID), "/root"))
	assert.Check(q, cmp.Equal(other.UID, 0))
	bounding := proc.Bits(q, other.PID, "CapBnd")
	assert.Check(q, cmp.Equal(bounding, proc.Mask(killBit|chownBit|bindBit|sysTimeBit)), "CapBnd after exec --cap CAP_SYS_TIME")
	assert.Check(q, cmp.DeepEqual(proc.Settings(q, init.PID), ofInit), "settings of the first program, before and after")
	q.Fact("exec with flags: uid and cwd", []string{fmt.Sprint(other.UID), proc.Cwd(q, other.PID)})
	q.Fact("exec with flags: CapBnd", bounding)

	q.Control("exec --preserve-fds 1 passes descriptor 3 of the caller on, and no other one")
	preserved := runc.ExecSleepAfter(q, c, "preserved", "exec 3< bundle/config.json 9< /", "--preserve-fds", "1")
	assert.Check(q, cmp.DeepEqual(slices.Sorted(maps.Keys(preserved.FDs)), []int{0, 1, 2, 3}), "descriptors: %q", preserved.FDs)
	assert.Check(q, cmp.Equal(preserved.FDs[3], b.Config()), "the file that the caller has as descriptor 3")
	q.Fact("exec --preserve-fds 1: descriptors", slices.Sorted(maps.Keys(preserved.FDs)))

	q.Control("exec --cgroup puts the program into a cgroup below that of the container")
	group := cgroup.Of(q, b.Spec.Linux.CgroupsPath)
	hierarchy, dir, flag := "pids", group.Dir("pids"), "pids:sub" // on v1 a cgroup for each controller; without the flag the container's
	if group.V2 {
		hierarchy, flag = "", "sub"
	}
	q.Must("mkdir", filepath.Join(dir, "sub")) // delete removes it with the container's cgroup
	below := runc.ExecSleep(q, c, "below", "--cgroup", flag)
	wantCgroups := maps.Clone(init.Cgroups)
	wantCgroups[hierarchy] += "/sub"
	assert.Check(q, cmp.DeepEqual(below.Cgroups, wantCgroups), "cgroups of the program, after exec --cgroup %s", flag)
	q.Fact("exec --cgroup: the cgroup", below.Cgroups[hierarchy])

	q.Step("the end of an exec does not end the container …")
	q.KillProcess(other)
	proc.WaitFor(q, proc.Dead(other.Identity))
	afterExec := c.State().Status
	assert.Check(q, cmp.Equal(afterExec, specs.StateRunning))
	assert.Check(q, proc.Alive(init.PID))
	q.Fact("the container, after the end of an exec", afterExec)

	q.Step("… but the end of pid 1 ends each exec: the kernel kills all processes of the pid namespace")
	c.KillAndDelete(init)
	proc.WaitFor(q, proc.Dead(joined.Identity))
	q.Fact("exec, after the end of pid 1: alive", proc.Alive(joined.PID))

	q.Step("exec in a stopped container is refused")
	stopped := runc.Variant(q, b, "stopped", bundle.Args("true"))
	stopped.Create()
	p := stopped.Process()
	stopped.Start()
	proc.WaitFor(q, proc.Dead(p.Identity))
	refused := stopped.Exec("true")
	assert.Check(q, refused.Code != 0, "exec in a stopped container succeeds:\n%s", refused)
	q.Fact("exec in a stopped container: error", runc.LastLogMessage(refused))

	q.Answer("An exec joins all namespaces and the cgroup of pid 1. It has a pid, a parent and an exit code of its own. " +
		"User, capabilities, limits and environment are those of config.json, unless a flag of exec sets others.")
}
