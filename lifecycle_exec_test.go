//go:build linux && vmlab

package cdblab

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
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
	"cdblab/helpers/seccomp"
)

// An exec joins the container's cgroup, and those namespaces of its first process whose types config.json lists. It is not a child of
// that process.
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
	b := bundle.Busybox(q, "sleep", "3600").Edit(configureProcess)
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
	fromConfig := settingsOfConfig()
	// runc 1.1 forgets the umask in exec. runc 1.2.0-rc.1 sets it, and is the first one whose features name mountExtensions.
	if !runc.KnowsSince(q, "mountExtensions", "1.2.0-rc.1") {
		q.Fact("exec: Umask, ignored by this runtime", ofExec["Umask"])
		delete(fromConfig, "Umask")
		ofExec["Umask"] = ofInit["Umask"]
	}
	assertSettingsOfConfig(q, ofExec, fromConfig)
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
	// The container's /dev/null has the same path, so compare the file as well.
	assert.Check(q, cmp.Equal(joined.FDs[0]+", "+nullOfStdin(q, joined.PID), "/dev/null, the host's"), "stdin of the executed program")
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
	other := execWithFlags(q, c)
	assert.Check(q, cmp.DeepEqual(proc.Settings(q, init.PID), ofInit), "settings of the first program, before and after")

	q.Control("exec --preserve-fds 1 passes descriptor 3 of the caller on, and no other one")
	preserved := runc.ExecSleepAfter(q, c, "preserved", "exec 3< bundle/config.json 9< /", "--preserve-fds", "1")
	assert.Check(q, cmp.DeepEqual(slices.Sorted(maps.Keys(preserved.FDs)), []int{0, 1, 2, 3}), "descriptors: %q", preserved.FDs)
	assert.Check(q, cmp.Equal(preserved.FDs[3], b.Config()), "the file that the caller has as descriptor 3")
	q.Fact("exec --preserve-fds 1: descriptors", slices.Sorted(maps.Keys(preserved.FDs)))

	q.Control("exec --cgroup puts the program into a cgroup below that of the container")
	execInCgroupBelow(q, c, init)

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
	refused := execInStopped(q, b)
	assert.Check(q, refused.Code != 0, "exec in a stopped container succeeds:\n%s", refused)
	q.Fact("exec in a stopped container: error", runc.LastLogMessage(refused))

	q.Answer("An exec joins the container's cgroup, and those namespaces of pid 1 whose types config.json lists. It has a pid, a parent and " +
		"an exit code of its own. User, capabilities, limits and environment are those of config.json, unless a flag of exec sets others.")
}

// Bits of capabilities (linux/capability.h).
const chownBit, killBit, bindBit, rawBit, sysTimeBit = 1 << 0, 1 << 5, 1 << 10, 1 << 13, 1 << 25

// configureProcess edits the process of config.json. Each value differs from what a process has without config.json.
func configureProcess(s *specs.Spec) {
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
}

// settingsOfConfig returns what [proc.Settings] has to return for a process of [configureProcess].
func settingsOfConfig() map[string]string {
	return map[string]string{
		"Uid": "1000 1000 1000 1000", "Gid": "2000 2000 2000 2000", "Groups": "3000 4000", "Umask": "0027", "cwd": "/tmp",
		"NoNewPrivs": "1", "Seccomp": "2", "oom_score_adj": "321",
		"Max open files": "500 600 files", "Max core file size": "4096 8192 bytes",
		"CapBnd": proc.Mask(killBit | chownBit | bindBit).String(), "CapInh": proc.Mask(killBit | bindBit).String(),
		// Of a user other than root, execve(2) keeps as permitted and effective what is ambient (capabilities(7)).
		"CapPrm": proc.Mask(bindBit).String(), "CapEff": proc.Mask(bindBit).String(), "CapAmb": proc.Mask(bindBit).String(),
	}
}

// assertSettingsOfConfig asserts that an executed program has the settings that config.json decides.
func assertSettingsOfConfig(q *lab.Q, ofExec, fromConfig map[string]string) {
	q.Helper()
	for _, key := range slices.Sorted(maps.Keys(fromConfig)) {
		assert.Check(q, cmp.Equal(ofExec[key], fromConfig[key]), "%s of the executed program; config.json decides it", key)
		q.Fact("exec: "+key, ofExec[key])
	}
}

// execWithFlags executes a program with flags that set what config.json sets to other values, and returns its process.
func execWithFlags(q *lab.Q, c *runc.Container) proc.Process {
	q.Helper()
	p := runc.ExecSleep(q, c, "other", "--env", "LESSON=other", "--cwd", "/root", "--user", "0:0", "--cap", "CAP_SYS_TIME")
	assert.Check(q, slices.Contains(p.Env, "LESSON=other"), "environ: %q", p.Env)
	cwd := proc.Cwd(q, p.PID)
	assert.Check(q, cmp.Equal(cwd, "/root"))
	assert.Check(q, cmp.Equal(p.UID, 0))
	q.Fact("exec with flags: uid and cwd", []string{fmt.Sprint(p.UID), cwd})
	bounding := proc.Bits(q, p.PID, "CapBnd")
	assert.Check(q, cmp.Equal(bounding, proc.Mask(killBit|chownBit|bindBit|sysTimeBit)), "CapBnd after exec --cap CAP_SYS_TIME")
	q.Fact("exec with flags: CapBnd", bounding)
	return p
}

// execInStopped waits until the program of a container has ended, and executes another one in it.
func execInStopped(q *lab.Q, b *bundle.Bundle) lab.Result {
	q.Helper()
	stopped := runc.Variant(q, b, "stopped", bundle.Args("true"))
	stopped.Create()
	p := stopped.Process()
	stopped.Start()
	proc.WaitFor(q, proc.Dead(p.Identity))
	return stopped.Exec("true")
}

// execInCgroupBelow makes a cgroup below that of the container, and executes a program in it.
func execInCgroupBelow(q *lab.Q, c *runc.Container, init proc.Process) {
	group := cgroup.Of(q, c.Bundle.Spec.Linux.CgroupsPath)
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
}

// A flag of exec changes the field of process that it names, and the settings that follow from this field. It does so only for the
// executed program. A flag can also give more than config.json does: another user, a capability, or a program without no_new_privs.
//
// `runc exec` takes process from config.json. --cwd, --user and --no-new-privs overwrite a field of it. --cap and --additional-gids add
// to what is there. --env adds a variable, or replaces the one of this name. What no flag names stays: --user 1001 keeps the group and
// the additional groups of config.json. The effective capabilities follow from the user, and so does HOME if env does not set it. So,
// where config.json has no inheritable capabilities, --user 1001 --cap CAP_NET_RAW gives a capability that the program cannot use. With
// --process, runc takes process from the file, and ignores these flags. oomScoreAdj and, since 1.2.0, the umask come from state.json in
// each case, and so do the capabilities if the file has none. If it has no limits, those of runc's caller stay; if it names no AppArmor
// profile, the program is under none. runc ignores an unknown capability, with a warning. Any other value that it cannot apply is an
// error: no program runs. With --preserve-fds N the caller should have the descriptors 3 to N+2 open: for one that it lacks, runc up to
// 1.5.2 passes on a file of its own, or fails. exec ignores LISTEN_FDS. Where config.json has no process.capabilities, exec --cap crashes
// (runc 1.1.3 to 1.5.2).
//
// Hint: compare /proc/PID/{status,limits,environ,cwd,fd} of an exec with a flag, and of an exec without it.
// Spec: https://github.com/opencontainers/runc/blob/main/man/runc-exec.8.md (exec is runc's own operation)
// Kernel: https://man7.org/linux/man-pages/man5/proc_pid_status.5.html
func TestLifecycle_WhatCanTheFlagsOfExecChange(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What can the flags of `exec` change?")
	defer q.Recover()
	runc.SkipUnlessRunc(q, "the flags of exec")
	b := bundle.Busybox(q, "sleep", "3600").Edit(setFieldsForFlags)
	c := runc.New(q, b)
	init := c.CreateAndStart()
	ofInit, config := proc.Settings(q, init.PID), file.Read(q, b.Config())

	q.Control("an exec without a flag: its settings are those of config.json")
	plain := runc.ExecSleep(q, c, "plain")
	ofPlain := sortedSettings(q, plain)
	assert.Check(q, cmp.Equal(ofPlain["environ"], "HOME=/root LESSON=config PATH=/bin"))
	assert.Check(q, cmp.Equal(ofPlain["CapEff"], proc.Mask(killBit).String()))
	q.Fact("without a flag: user, groups and capabilities",
		[]string{ofPlain["Uid"], ofPlain["Gid"], ofPlain["Groups"], ofPlain["CapEff"]})

	q.Step("execute a program with one flag each time: only what the flag names changes, and what follows from it. The user decides HOME " +
		"and the effective capabilities")
	for i, row := range flagsOfExec() {
		flags := strings.Join(row.flags, " ")
		p := runc.ExecSleep(q, c, fmt.Sprintf("flags-%d", i), row.flags...)
		changed := sortedSettings(q, p)
		maps.DeleteFunc(changed, func(key, value string) bool { return value == ofPlain[key] })
		// runc may set the group twice: the flag has two names, and the parser of flags copies its value from one to the other.
		if twice := map[string]string{"Groups": "3000 4000 4000"}; flags == "--additional-gids 4000" && maps.Equal(changed, twice) {
			row.want = twice
		}
		assert.Check(q, cmp.DeepEqual(changed, row.want), "exec %s: settings that differ from those of an exec without flags", flags)
		assert.Check(q, cmp.DeepEqual(p.FDs, plain.FDs), "exec %s: descriptors, and those of an exec without flags", flags)
		q.Fact("exec "+flags+": settings that it changes", len(changed))
		for _, key := range slices.Sorted(maps.Keys(changed)) {
			q.Fact("exec "+flags+": "+key, changed[key])
		}
		q.KillProcess(p)
		proc.WaitFor(q, proc.Dead(p.Identity))
	}
	warned := q.Exec("runc", "--root", c.Root, "exec", "--cap", "CAP_NO_SUCH", c.ID, "true")
	assert.Check(q, cmp.Equal(warned.Code, 0), "exec with an unknown capability:\n%s", warned)
	runc.AssertMessage(q, warned.Stderr, "ignoring unknown or unavailable capabilities: .CAP_NO_SUCH")
	q.Fact("exec --cap CAP_NO_SUCH: warning", runc.LastLogMessage(warned))
	assert.Check(q, cmp.DeepEqual(proc.Settings(q, init.PID), ofInit), "settings of the first program, before and after the execs")
	assert.Check(q, cmp.Equal(file.Read(q, b.Config()), config), "config.json, before and after the execs")

	q.Step("exec --process: runc takes process from the file, and ignores the flags that set fields of process")
	ofFile := settingsOfExecProcess(q, c, "from-file", *b.Spec.Process, "--user", "1001", "--env", "MORE=yes", "--cwd", "/etc")
	assert.Check(q, cmp.DeepEqual(ofFile, ofPlain), "settings of exec --process with other flags, and of an exec without flags")
	q.Fact("exec --process with --user, --env and --cwd: Uid, cwd and environ", []string{ofFile["Uid"], ofFile["cwd"], ofFile["environ"]})
	takenFromState(q, c, ofPlain)

	q.Step("config.json without process.capabilities: exec --cap gives the capability, or it fails")
	without := runc.Variant(q, b, "no-capabilities", func(s *specs.Spec) { s.Process.Capabilities = nil })
	without.CreateAndStart()
	given := q.Exec("runc", "--root", without.Root, "exec", "--cap", "CAP_KILL", without.ID, "grep", "CapEff", "/proc/self/status")
	hasKill := strings.Contains(given.Stdout, proc.Mask(killBit).String())
	assert.Check(q, cmp.Equal(hasKill, given.Code == 0), "exec --cap CAP_KILL: the program has only CAP_KILL, and exec succeeds:\n%s", given)
	q.Fact("no process.capabilities: exec --cap gives the capability", hasKill)
	if !hasKill { // runc 1.1.3 to 1.5.2: exec appends to the lists of a structure that is missing
		runc.AssertMessage(q, given.Stderr, "nil pointer dereference")
	}
	q.Fact("no process.capabilities: runc panics", strings.Contains(given.Stderr, "nil pointer dereference"))

	q.Control("touch in the container, by an exec without a flag: it makes a file")
	const ran = "/dev/shm/ran"
	ranOnHost := fmt.Sprintf("/proc/%d/root%s", init.PID, ran)
	touched := c.Exec("touch", ran)
	assert.Check(q, cmp.Equal(touched.Code, 0), "exec of touch:\n%s", touched)
	q.Fact("exec of touch: the file exists", file.Exists(ranOnHost))
	file.Remove(q, ranOnHost)

	q.Step("values that cannot be applied are errors, and no program runs")
	for _, row := range refusedFlagsOfExec(q) {
		r := q.Exec("runc", "--root", c.Root, "exec", row.flag, row.value, c.ID, "touch", ran)
		assert.Check(q, r.Code != 0, "exec %s %s succeeds:\n%s", row.flag, row.value, r)
		runc.AssertMessage(q, r.Stderr, row.message)
		q.Fact("exec "+row.flag+" "+row.value+": error", runc.StableMessage(r.Stderr))
	}
	assert.Check(q, !file.Exists(ranOnHost), "a refused exec has run its program")
	assert.Check(q, cmp.DeepEqual(cgroup.Of(q, b.Spec.Linux.CgroupsPath).Procs(), check.Sorted(init.PID, plain.PID)),
		"processes in the cgroup after refused execs: those from before")

	q.Step("LISTEN_FDS is for run and create: an executed program gets neither the descriptor nor the variable")
	listening := runc.ExecSleepAfter(q, c, "listening", "exec 3< bundle/config.json; export LISTEN_FDS=1 LISTEN_PID=$$")
	assert.Check(q, cmp.DeepEqual(listening.FDs, plain.FDs), "descriptors of an exec whose caller passes one as LISTEN_FDS")
	assert.Check(q, cmp.DeepEqual(sortedSettings(q, listening), ofPlain), "settings of an exec whose caller has LISTEN_FDS")
	q.Fact("exec with LISTEN_FDS=1: descriptors", slices.Sorted(maps.Keys(listening.FDs)))

	q.Answer("A flag of exec changes the field of process that it names, and the settings that follow from it, only for the executed " +
		"program. It can also give more than config.json does: another user, a capability, or a program without no_new_privs.")
}

// setFieldsForFlags sets fields of process that flags of exec can change.
func setFieldsForFlags(s *specs.Spec) {
	kill := []string{"CAP_KILL"}
	s.Process.Env = []string{"PATH=/bin", "LESSON=config"}
	s.Process.User = specs.User{GID: 2000, AdditionalGids: []uint32{3000}}
	s.Process.NoNewPrivileges = true
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: kill, Permitted: kill, Effective: kill}
	s.Process.User.Umask, s.Process.OOMScoreAdj = new(uint32(0o27)), new(321)
	s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 500, Hard: 600}}
}

// takenFromState asserts what exec --process takes from state.json: always the umask and oomScoreAdj, and capabilities if the file has
// none. Limits it takes from the file only: without an entry, those of runc's caller stay. ofPlain are the settings of an exec without
// flags.
func takenFromState(q *lab.Q, c *runc.Container, ofPlain map[string]string) {
	q.Helper()
	const openFiles = "Max open files"
	assert.Check(q, cmp.Equal(ofPlain["oom_score_adj"], "321"), "oom_score_adj of an exec without flags; config.json decides it")
	assert.Check(q, cmp.Equal(ofPlain[openFiles], "500 600 files"), "limit of an exec without flags; config.json decides it")

	q.Step("the file has no capabilities and no limits, and another umask and oomScoreAdj: the capabilities and both values are those of " +
		"state.json, and the limits those of runc's caller")
	process := *c.Bundle.Spec.Process
	process.User.Umask, process.OOMScoreAdj = new(uint32(0o77)), new(500)
	process.Capabilities, process.Rlimits = nil, nil
	without := settingsOfExecProcess(q, c, "without", process)
	hard := strings.Fields(without[openFiles])[1] // the lab has raised its soft limit, as each program in Go does
	ofCaller := proc.Limit(q, proc.Self(q).PID, openFiles)[1]
	assert.Check(q, cmp.Equal(hard, ofCaller), "hard limit of open files of exec --process, whose file has no limits, and of runc's caller")
	q.Fact("file without capabilities and limits: hard limit of open files is that of runc's caller", hard == ofCaller)
	without[openFiles] = ofPlain[openFiles]
	assert.Check(q, cmp.DeepEqual(without, ofPlain), "settings of exec --process, whose file has no capabilities and limits")
	q.Fact("file without capabilities and limits: umask, oom_score_adj and CapEff",
		[]string{without["Umask"], without["oom_score_adj"], without["CapEff"]})

	q.Control("a file that has other capabilities and limits: the program has them, but the umask and oomScoreAdj of state.json")
	raw := []string{"CAP_NET_RAW"}
	process.Capabilities = &specs.LinuxCapabilities{Bounding: raw, Permitted: raw, Effective: raw}
	process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 50, Hard: 60}}
	with := settingsOfExecProcess(q, c, "with", process)
	shown := []string{with["Umask"], with["oom_score_adj"], with["CapEff"], with[openFiles]}
	assert.Check(q, cmp.DeepEqual(shown, []string{ofPlain["Umask"], "321", proc.Mask(rawBit).String(), "50 60 files"}),
		"umask, oom_score_adj, CapEff and limit of open files of exec --process, whose file has other ones")
	q.Fact("file with other capabilities and limits: umask, oom_score_adj, CapEff and open files", shown)
}

// settingsOfExecProcess executes sleep by exec --process with this process in the file, and with these flags. It ends the program, and
// returns the settings that it had. The pid file is <name>.pid.
func settingsOfExecProcess(q *lab.Q, c *runc.Container, name string, process specs.Process, flags ...string) map[string]string {
	q.Helper()
	process.Args = []string{"sleep", "3601"}
	p := runc.ExecSleep(q, c, name, append([]string{"--process", writeProcess(q, c.Bundle, process)}, flags...)...)
	settings := sortedSettings(q, p)
	q.KillProcess(p)
	proc.WaitFor(q, proc.Dead(p.Identity))
	return settings
}

// sortedSettings returns the settings of a process with its variables sorted: the runtime may write them in any order.
func sortedSettings(q *lab.Q, p proc.Process) map[string]string {
	q.Helper()
	settings := proc.Settings(q, p.PID)
	settings["environ"] = strings.Join(slices.Compact(slices.Sorted(strings.FieldsSeq(settings["environ"]))), " ")
	return settings
}

// writeProcess writes the file of exec --process into the bundle's directory, and returns its path.
func writeProcess(q *lab.Q, b *bundle.Bundle, process specs.Process) string {
	q.Helper()
	data, err := json.Marshal(process)
	assert.NilError(q, err)
	q.WriteLine(filepath.Join(b.Dir, "process.json"), string(data))
	return filepath.Join(b.Name, "process.json")
}

// flagOfExec is one flag of exec or several, and which settings of the program they change, with the new values.
type flagOfExec struct {
	flags []string
	want  map[string]string
}

// flagsOfExec returns flags that runc accepts for a container whose program has only CAP_KILL.
func flagsOfExec() []flagOfExec {
	none, withRaw := proc.Mask(0).String(), proc.Mask(killBit|rawBit).String()
	return []flagOfExec{
		// Of a user other than root, execve(2) keeps as permitted and effective what is ambient. HOME is the user's: 1001 has none.
		{[]string{"--user", "1001"}, map[string]string{"Uid": "1001 1001 1001 1001", "CapPrm": none, "CapEff": none,
			"environ": "HOME=/ LESSON=config PATH=/bin"}},
		{[]string{"--user", "0:2001"}, map[string]string{"Gid": "2001 2001 2001 2001"}},
		{[]string{"--additional-gids", "4000"}, map[string]string{"Groups": "3000 4000"}},
		{[]string{"--cwd", "/etc"}, map[string]string{"cwd": "/etc"}},
		{[]string{"--env", "MORE=yes"}, map[string]string{"environ": "HOME=/root LESSON=config MORE=yes PATH=/bin"}},
		{[]string{"--env", "LESSON=flag"}, map[string]string{"environ": "HOME=/root LESSON=flag PATH=/bin"}},
		{[]string{"--cap", "CAP_NET_RAW"}, map[string]string{"CapBnd": withRaw, "CapPrm": withRaw, "CapEff": withRaw}},
		{[]string{"--user", "1001", "--cap", "CAP_NET_RAW"}, map[string]string{"Uid": "1001 1001 1001 1001", "CapBnd": withRaw,
			"CapPrm": none, "CapEff": none, "environ": "HOME=/ LESSON=config PATH=/bin"}},
		{[]string{"--cap", "CAP_NO_SUCH"}, map[string]string{}}, // a warning, and the program runs without it
		{[]string{"--no-new-privs=false"}, map[string]string{"NoNewPrivs": "0"}},
	}
}

// refusedFlagOfExec is a flag of exec with a value that cannot be applied. message is a regular expression that matches the error.
type refusedFlagOfExec struct{ flag, value, message string }

// refusedFlagsOfExec returns flags with such values.
func refusedFlagsOfExec(q *lab.Q) []refusedFlagOfExec {
	controller := "pids:" // on v1 a cgroup for each controller
	if cgroup.Version(q) == "v2" {
		controller = ""
	}
	return []refusedFlagOfExec{
		{"--user", "root", `(uid|parsing).{1,40}root`}, // /etc/passwd of the container has this user, but runc does not read names there
		{"--additional-gids", "-1", "additional-gids"},
		{"--cwd", "etc", "absolute path"},
		{"--cwd", "/missing", "no such file or directory"},
		{"--env", "MORE", "environment variable"},
		{"--cgroup", controller + "../..", "sub cgroup path"},
		{"--cgroup", controller + "missing", "no such file or directory"},
		{"--apparmor", "cdb-missing", "apparmor"},
		{"--process-label", "cdb-missing", "selinux|label|keycreate|invalid argument"}, // the kernel's error, where SELinux is on
	}
}

// `runc run` and `runc create` pass on the open files of their caller that LISTEN_FDS announces, and after them as many as
// --preserve-fds says. Each keeps its number. `runc exec` ignores LISTEN_FDS: there --preserve-fds counts from descriptor 3.
//
// A service manager such as systemd opens the sockets of a service, and passes them from descriptor 3 on. LISTEN_FDS is their number,
// and LISTEN_PID is the pid of the process that they are for. runc takes the files only if LISTEN_PID is its own pid. It gives the
// program LISTEN_FDS and LISTEN_PID=1, because a container's first process has this pid in its pid namespace. In a container without a
// pid namespace the program has another pid, and a program that compares LISTEN_PID with its own (sd_listen_fds) takes no socket. runc
// does not pass LISTEN_FDNAMES on. If LISTEN_PID is another pid, runc ignores LISTEN_FDS, and --preserve-fds counts from descriptor 3.
//
// With create and with --detach, and without a terminal, stdin, stdout and stderr are passed on as well. In the foreground the program
// gets pipes instead. Where one of the three is the host's /dev/null, runc opens the container's in its place, but not for exec.
//
// runc does not know which open files are its caller's, and which are its own. With a number that is too large, releases up to 1.5.2
// pass on their own: among them is the host's /sys/fs/cgroup, through which a program can leave its rootfs. Only a number without a
// file is refused. (runc 1.5.2 then leaves an empty state directory.)
//
// Hint: give the caller of runc some open files, and compare /proc/PID/fd and /proc/PID/environ of the program.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/runtime-linux.md#file-descriptors
// Kernel: https://man7.org/linux/man-pages/man3/sd_listen_fds.3.html, https://man7.org/linux/man-pages/man5/proc_pid_fd.5.html
func TestLifecycle_WhichOpenFilesOfItsCallerDoesRuncPassOn(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Which open files of its caller does runc pass on?")
	defer q.Recover()
	runc.SkipUnlessRunc(q, "what LISTEN_FDS and --preserve-fds do")
	b := bundle.Busybox(q, "sleep", "3600")
	caller := openFilesOfCaller(q)
	const own, others = "; export LISTEN_FDS=1 LISTEN_FDNAMES=web LISTEN_PID=$$", "; export LISTEN_FDS=1 LISTEN_FDNAMES=web LISTEN_PID=1"
	announced := []string{"LISTEN_FDS=1", "LISTEN_PID=1"}

	for _, row := range []struct {
		name, step, exports string
		operation           string
		edit                func(*specs.Spec)
		passed              []int
		env                 []string
	}{
		{"run with LISTEN_FDS and --preserve-fds", "open descriptors 3, 4 and 5, and run with LISTEN_FDS=1 and --preserve-fds 1: the program " +
			"has descriptor 3, which the variables announce, and 4", own, "run --detach --preserve-fds 1", nil, []int{3, 4}, announced},
		{"create with LISTEN_FDS and --preserve-fds", "create and start in place of run: the same", own, "create --preserve-fds 1", nil,
			[]int{3, 4}, announced},
		{"run with LISTEN_FDS", "run without --preserve-fds: the program has descriptor 3", own, "run --detach", nil, []int{3}, announced},
		{"run without a pid namespace", "the same without a pid namespace: LISTEN_PID is 1, and the program has another pid", own,
			"run --detach", bundle.WithoutNamespace(specs.PIDNamespace), []int{3}, announced},
		{"run with --preserve-fds", "run without LISTEN_FDS: --preserve-fds 1 counts from descriptor 3", "", "run --detach --preserve-fds 1", nil,
			[]int{3}, nil},
		{"run with another LISTEN_PID", "run with LISTEN_FDS for another process: the program gets no variable, and --preserve-fds 1 counts " +
			"from descriptor 3", others, "run --detach --preserve-fds 1", nil, []int{3}, nil},
		{"run with neither", "run with neither: the program has none of the descriptors 3 to 5", "", "run --detach", nil, nil, nil},
	} {
		if row.exports == own {
			q.Step("%s", row.step)
		} else {
			q.Control("%s", row.step)
		}
		c := runc.Variant(q, b, strings.ReplaceAll(row.name, " ", "-"), func(s *specs.Spec) {
			if row.edit != nil {
				row.edit(s)
			}
		})
		argv := strings.Fields(row.operation)
		c.MustAfter(caller.opens+row.exports, argv[0], argv[1:]...)
		if argv[0] == "create" {
			c.Must("start")
		}
		pid := c.PID()
		proc.WaitFor(q, proc.Runs(pid, "sleep"))
		p := proc.Snapshot(q, pid)
		caller.assertPassed(q, row.name, p, row.passed, row.env)
		isOwn := slices.Contains(p.Env, fmt.Sprintf("LISTEN_PID=%d", proc.InnerPID(q, pid)))
		assert.Check(q, cmp.Equal(isOwn, row.env != nil && row.edit == nil), "%s: LISTEN_PID is the pid of the program, which is %d: %q",
			row.name, proc.InnerPID(q, pid), p.Env)
		q.Fact(row.name+": LISTEN_PID is the program's own pid", isOwn)
		c.KillAndDelete(p)
	}

	q.Step("say --preserve-fds 4 and more, and the caller has three files: runc up to 1.5.2 passes on files that it has itself open")
	ofRunc, leaves := caller.filesOfRunc(q, b)
	q.Fact("more files than the caller has: the program has files of runc", len(ofRunc) > 0)
	q.Fact("more files than the caller has: the program has a directory named /sys/fs/cgroup", slices.Contains(ofRunc, "/sys/fs/cgroup"))
	q.Fact("more files than the caller has: files of the host can be reached from there", leaves)

	q.Step("exec with LISTEN_FDS=1: the program gets no variable. --preserve-fds 1 passes on descriptor 3, and --preserve-fds 2 both")
	c := runc.New(q, b)
	init := c.CreateAndStart()
	var execs []proc.Process
	for _, preserve := range []int{0, 1, 2} {
		name := fmt.Sprintf("exec --preserve-fds %d", preserve)
		p := runc.ExecSleepAfter(q, c, fmt.Sprintf("exec-%d", preserve), caller.opens+own, "--preserve-fds", strconv.Itoa(preserve))
		caller.assertPassed(q, name, p, []int{3, 4}[:preserve], nil)
		execs = append(execs, p)
	}

	q.Step("look at stdin, which for runc is the host's /dev/null: the program has the container's, and a program of exec has the host's")
	nulls := []string{nullOfStdin(q, init.PID), nullOfStdin(q, execs[0].PID)}
	assert.Check(q, cmp.DeepEqual(nulls, []string{"the container's", "the host's"}), "/dev/null of the container's program, and of exec")
	q.Fact("/dev/null of the container's program, and of exec", nulls)

	q.TearDown("kill and delete the container", func() { c.KillAndDelete(init) })
	q.Answer("`runc run` and create pass on the open files that LISTEN_FDS announces for runc, and after them as many as --preserve-fds says. " +
		"The program gets LISTEN_FDS and LISTEN_PID=1. `runc exec` ignores LISTEN_FDS, and passes on only what --preserve-fds counts from " +
		"descriptor 3.")
}

// nullOfStdin returns which /dev/null a process in a container has as its stdin: "the host's", or "the container's".
func nullOfStdin(q *lab.Q, pid proc.PID) string {
	q.Helper()
	info, err := os.Stat(fmt.Sprintf("/proc/%d/fd/0", pid))
	assert.NilError(q, err)
	stdin := info.Sys().(*syscall.Stat_t)
	for _, of := range []struct {
		root proc.PID
		name string
	}{{pid, "the container's"}, {proc.PID(os.Getpid()), "the host's"}} {
		if null := check.StatInRoot(q, of.root, "/dev/null"); null.Dev == stdin.Dev && null.Ino == stdin.Ino {
			return of.name
		}
	}
	return fmt.Sprintf("no /dev/null: device %#x, inode %d", stdin.Dev, stdin.Ino)
}

// callersFiles are the files that a caller of runc has open as the descriptors 3 to 5. The name of each is its number.
type callersFiles struct {
	dir   string
	opens string // a command of the shell
}

// openFilesOfCaller makes the files.
func openFilesOfCaller(q *lab.Q) callersFiles {
	q.Helper()
	files := callersFiles{dir: q.Mkdir("caller"), opens: "exec"}
	for fd := 3; fd <= 5; fd++ {
		q.WriteLine(filepath.Join(files.dir, strconv.Itoa(fd)), "a file of the caller")
		files.opens += fmt.Sprintf(" %[1]d< caller/%[1]d", fd)
	}
	return files
}

// filesOfRunc runs containers with one descriptor more each time than the caller has, until runc refuses one. It returns what these
// descriptors lead to, and whether the question's directory, which no container has, can be reached from one of them.
func (f callersFiles) filesOfRunc(q *lab.Q, b *bundle.Bundle) (targets []string, leaves bool) {
	q.Helper()
	for n := 4; ; n++ {
		c := runc.Variant(q, b, fmt.Sprintf("preserve-%d", n))
		r := c.TryAfter(f.opens, "run", "--detach", "--preserve-fds", strconv.Itoa(n))
		if r.Code != 0 {
			runc.AssertMessage(q, r.Stderr, "preserved-fd")
			assert.Check(q, !file.Exists(c.StateFile()), "a refused run left its state: %s", c.StateFile())
			q.Fact("number without a file: error of run", regexp.MustCompile(`\d+`).ReplaceAllString(runc.StableMessage(r.Stderr), "N"))
			q.Fact("number without a file: the state directory stays", file.Exists(c.StateDir()))
			return targets, leaves
		}
		proc.WaitFor(q, proc.Runs(c.PID(), "sleep"))
		p := proc.Snapshot(q, c.PID())
		assert.Check(q, cmp.Equal(p.FDs[5], filepath.Join(f.dir, "5")), "--preserve-fds %d: the last descriptor of the caller", n)
		targets = append(targets, p.FDs[n+2])
		assert.Check(q, !strings.HasPrefix(p.FDs[n+2], f.dir), "--preserve-fds %d: a file of the caller, which has three: %s", n, p.FDs[n+2])
		if p.FDs[n+2] == "/sys/fs/cgroup" {
			_, err := os.Stat(fmt.Sprintf("/proc/%d/fd/%d/../../..%s", p.PID, n+2, q.Dir))
			leaves = err == nil
		}
		assert.Assert(q, n < 100, "runc accepts --preserve-fds %d of a caller that has three files", n)
		c.KillAndDelete(p)
	}
}

// assertPassed asserts that the process has these descriptors of the caller besides stdin, stdout and stderr, each with the caller's
// number, and these variables with the prefix LISTEN_.
func (f callersFiles) assertPassed(q *lab.Q, name string, p proc.Process, descriptors []int, variables []string) {
	q.Helper()
	want, got := map[int]string{}, maps.Clone(p.FDs)
	for _, fd := range descriptors {
		want[fd] = filepath.Join(f.dir, strconv.Itoa(fd))
	}
	maps.DeleteFunc(got, func(fd int, _ string) bool { return fd <= 2 })
	assert.Check(q, cmp.DeepEqual(got, want), "%s: descriptors above 2", name)
	var env []string
	for _, variable := range p.Env {
		if strings.HasPrefix(variable, "LISTEN_") {
			env = append(env, variable)
		}
	}
	assert.Check(q, cmp.DeepEqual(slices.Sorted(slices.Values(env)), variables), "%s: environment of the program", name)
	q.Fact(name+": descriptors above 2", slices.Sorted(maps.Keys(got)))
	q.Fact(name+": variables of the program", env)
}

// An exec has the namespaces, the cgroup and the seccomp filter of the container. It does not have the restrictions that init put on
// itself after its start: an exec still has the capabilities that init dropped. They come from config.json, or from the flags of exec.
//
// Many programs begin as root, and then take another user, lower their limits, set no_new_privs or call chroot. An exec is not a child
// of init, and does not inherit these restrictions. It gets process from config.json, or from the file of --process, which may even name
// more capabilities. The seccomp filter, the cgroup and its device rules come from state.json, which create wrote: no flag and no file
// takes them away. The umask and oomScoreAdj come from there, too. The namespaces are those in which init is now, of the types that
// config.json lists. An exec does not join a namespace of another type that init has made for itself. The root directory is that of the
// mount namespace.
//
// Hint: let the container's program drop its rights, and compare /proc/PID/status of pid 1 and of an exec.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config.md#process (exec itself is runc's own operation)
// Kernel: https://man7.org/linux/man-pages/man2/setns.2.html, https://man7.org/linux/man-pages/man2/seccomp.2.html,
// https://man7.org/linux/man-pages/man7/capabilities.7.html
func TestLifecycle_IsAnExecConfinedLikeInit(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Is an exec confined like init?")
	defer q.Recover()
	runc.SkipUnlessRunc(q, "exec, which the specification does not describe")
	b := bundle.Busybox(q, "sleep", "3600").Edit(confineInit)

	q.Control("a program that gives nothing up: an exec has the same settings as init")
	idle := runc.Variant(q, b, "idle")
	ofIdle := proc.Settings(q, idle.CreateAndStart().PID)
	ofIdleExec := proc.Settings(q, runc.ExecSleep(q, idle, "idle").PID)
	delete(ofIdle, "Umask") // runc sets that of init, and takes the caller's for exec
	delete(ofIdleExec, "Umask")
	assert.Check(q, cmp.DeepEqual(ofIdleExec, ofIdle), "settings of an exec, and of init")
	q.Fact("init gives nothing up: settings in common", len(ofIdleExec))

	q.Step("a program that gives up rights by itself: it runs as another user, has no capability, and may gain none. An exec has what " +
		"config.json gives")
	// busybox has no command that only changes the user: start-stop-daemon -c does.
	c := runc.Variant(q, b, "dropping", bundle.Args("sh", "-c", "ulimit -n 64; umask 077; cd /tmp; renice -n 5 -p $$; export LESSON=init; "+
		"exec unshare -u sh -c 'hostname moved; exec setpriv --nnp start-stop-daemon -S -c 65534 -x /bin/sleep -- 3600'"))
	c.Create()
	created := c.Process()
	c.Start()
	proc.WaitFor(q, proc.Runs(created.PID, "sleep"))
	init := proc.Snapshot(q, created.PID)
	executed := runc.ExecSleep(q, c, "executed")
	ofInit, ofExec := proc.Settings(q, init.PID), proc.Settings(q, executed.PID)
	none, all := proc.Mask(0).String(), ofIdle["CapEff"]
	for _, row := range []struct{ key, init, exec string }{
		{"Uid", "65534 65534 65534 65534", "0 0 0 0"},
		{"CapPrm", none, all},
		{"CapEff", none, all},
		{"NoNewPrivs", "1", "0"},
		{"Max open files", "64 64 files", "500 600 files"},
		{"cwd", "/tmp", "/"},
	} {
		assert.Check(q, cmp.Equal(ofInit[row.key], row.init), "%s of init, which has changed it", row.key)
		assert.Check(q, cmp.Equal(ofExec[row.key], row.exec), "%s of an exec: config.json decides it, not what init did to itself", row.key)
		q.Fact(row.key+" of init", ofInit[row.key])
		q.Fact(row.key+" of an exec", ofExec[row.key])
	}
	// The program has added 5 to the nice value of runc's caller. It cannot be above 19.
	if before := ofIdle["scheduler"]; !strings.HasSuffix(before, "nice 19") {
		assert.Check(q, ofInit["scheduler"] != before, "scheduler of init, which has changed its nice value: %s", before)
	}
	q.Fact("scheduler of an exec: that of runc's caller", ofExec["scheduler"] == ofIdleExec["scheduler"])
	delete(ofExec, "Umask")
	assert.Check(q, cmp.DeepEqual(ofExec, ofIdleExec), "settings of an exec; they must not depend on what init gave up")

	q.Step("look at the exec: it is in init's present namespaces, even in the uts namespace that init made itself, in the same cgroups, and " +
		"under the same filter")
	assert.Check(q, init.NS["uts"] != created.NS["uts"], "init is still in the uts namespace that create made: %d", init.NS["uts"])
	assert.Check(q, cmp.DeepEqual(executed.NS, init.NS), "namespaces of an exec, and of init")
	assert.Check(q, cmp.DeepEqual(executed.Cgroups, init.Cgroups), "cgroups of an exec, and of init")
	hostname := strings.TrimSpace(c.Exec("hostname").Stdout)
	assert.Check(q, cmp.Equal(hostname, "moved"), "hostname that an exec sees")
	assert.Check(q, cmp.Equal(ofExec["Seccomp"], "2"), "Seccomp of an exec")
	q.Fact("namespaces in common with init", executed.SharedNamespaces(init.Identity))
	q.Fact("hostname that an exec sees", hostname)

	q.Step("a program that calls chroot: an exec has the container's root directory")
	jailed := runc.Variant(q, b, "jailed", bundle.WithCapability("CAP_SYS_CHROOT"),
		bundle.Args("sh", "-c", "mount --bind /bin /tmp && exec chroot /tmp /busybox sleep 3600"))
	jailed.Create()
	ofJail := jailed.PID()
	jailed.Start()
	proc.WaitFor(q, proc.Runs(ofJail, "busybox"))
	outside := runc.ExecSleep(q, jailed, "outside")
	isRoot := func(pid proc.PID, dir string) bool {
		return file.Same(fmt.Sprintf("/proc/%d/root", pid), b.Rootfs(dir))
	}
	assert.Check(q, isRoot(ofJail, "bin"), "init has called chroot, and its root directory is not /bin of the rootfs")
	assert.Check(q, isRoot(outside.PID, ""), "the root directory of an exec is not the rootfs, although init has called chroot")
	q.Fact("init has called chroot: its root directory is that of the container", isRoot(ofJail, ""))
	q.Fact("init has called chroot: root directory of an exec is that of the container", isRoot(outside.PID, ""))

	q.Step("exec --process with more than config.json: the exec has the capabilities, but the container's filter and device rules still apply")
	more := []string{"CAP_SYS_ADMIN", "CAP_MKNOD", "CAP_SYSLOG"}
	privileged := *b.Spec.Process
	privileged.Capabilities = &specs.LinuxCapabilities{Bounding: more, Permitted: more, Effective: more}
	free := runc.Variant(q, b, "free", bundle.Resources(func(r *specs.LinuxResources) {
		r.Devices = append(r.Devices, specs.LinuxDeviceCgroup{Allow: true, Access: "rwm"})
	}), func(s *specs.Spec) { s.Linux.Seccomp = nil })
	free.CreateAndStart()
	execPrivileged(q, c, "confined", privileged, true)
	q.Control("a container without filter and device rules: the same acts succeed")
	execPrivileged(q, free, "free", privileged, false)

	q.Answer("An exec has the namespaces, the cgroup and the seccomp filter of the container. It does not have the restrictions that init " +
		"put on itself after its start, such as dropped capabilities: an exec has those of config.json or of its flags.")
}

// confineInit sets what the program of a container can drop, and a filter, which it cannot drop.
func confineInit(s *specs.Spec) {
	caps := []string{"CAP_SETUID", "CAP_SETGID", "CAP_SYS_ADMIN"}
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Permitted: caps, Effective: caps}
	s.Process.NoNewPrivileges = false
	s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 500, Hard: 600}}
	// An error that mkdir(2) does not return by itself.
	s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: seccomp.NativeArch(),
		Syscalls: []specs.LinuxSyscall{
			{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActErrno, ErrnoRet: new(uint(unix.EXDEV))},
		}}
	bundle.ScratchAtTmp(s)
}

// privilegedAct is a command that an exec executes, which needs a capability.
type privilegedAct struct {
	name, command string
	refused       string // the error in a container that has the filter and the device rules; "" if they allow the act
}

var privilegedActs = []privilegedAct{
	{"mount, which a capability allows", "mount -t tmpfs tmpfs /root", ""},
	{"mkdir, which the filter refuses", "mkdir /tmp/new", "Invalid cross-device link"},
	{"open /dev/kmsg, which the device rules refuse", "mknod /tmp/kmsg c 1 11 && : </tmp/kmsg", "Operation not permitted"},
}

// execPrivileged executes each of the acts by exec --process, with the capabilities of process. container is the container's name in the
// facts. confined says that it has the filter and the device rules, so that some of the acts must fail.
func execPrivileged(q *lab.Q, c *runc.Container, container string, process specs.Process, confined bool) {
	for _, act := range privilegedActs {
		process.Args = []string{"sh", "-c", act.command}
		r := q.Exec("runc", "--root", c.Root, "exec", "--process", writeProcess(q, c.Bundle, process), c.ID)
		if refused := confined && act.refused != ""; refused {
			assert.Check(q, r.Code != 0 && strings.Contains(r.Stderr, act.refused), "%s: in the %s container it must fail with %q:\n%s",
				act.name, container, act.refused, r)
			q.Fact(container+": "+act.name, check.LastLine(r.Stderr))
			continue
		}
		assert.Check(q, cmp.Equal(r.Code, 0), "%s: in the %s container it must succeed:\n%s", act.name, container, r)
		q.Fact(container+": "+act.name, fmt.Sprintf("exit code %d", r.Code))
	}
}
