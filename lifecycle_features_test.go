//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"runtime"
	"slices"
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
	"cdblab/helpers/lab"
	"cdblab/helpers/runc"
	"cdblab/helpers/seccomp"
)

// `runc features` lists what this build of runc knows of config.json. It does not ask what the machine can do: an entry may be true, and
// create fails with it, because the kernel or the host lacks something.
//
// runc translates the words of the lists. It refuses a seccomp action that it does not know, warns of an unknown capability, and gives
// an unknown mount option to the file system as data. A file system takes its own options, such as size, and refuses others. One option
// of the list is treated like an unknown one: defaults, with which runc up to 1.5.2 cannot mount a tmpfs. Each action of seccomp is one
// of the kernel's. The list of architectures is the same on each machine, but a filter cannot have those of the other byte order. The
// cgroup entries v1, v2 and systemd are always true, although a machine has one kind of hierarchy for its controllers, and may have no
// systemd. The options idmap and ridmap are not in mountOptions: linux.mountExtensions has an entry for them.
//
// Hint: use an entry that your machine cannot have, such as cgroup.systemd where process 1 is not systemd.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/features.md#mount-options,
// https://github.com/opencontainers/runtime-spec/blob/main/features-linux.md#cgroup,
// https://github.com/opencontainers/runtime-spec/blob/main/features-linux.md#seccomp
// Kernel: https://man7.org/linux/man-pages/man2/seccomp.2.html, /proc/sys/kernel/seccomp/actions_avail
func TestLifecycle_WhatDoesRuncFeaturesPromise(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does `runc features` promise?")
	defer q.Recover()
	runc.SkipUnlessRunc(q, "the lists of `runc features`")
	b := bundle.Busybox(q, "sleep", "3600")
	f := runc.Features(q)
	isComplete := f.Linux != nil && f.Linux.Seccomp != nil && f.Linux.Cgroup != nil
	assert.Assert(q, isComplete, "`runc features` has no linux.seccomp or no linux.cgroup: %+v", f)

	q.Step("mountOptions: mount a tmpfs with each option of the list that a new tmpfs can have: create succeeds")
	options := optionsOfTmpfs(f.MountOptions)
	withTmpfs := func(options ...string) func(*specs.Spec) {
		return func(s *specs.Spec) {
			for _, option := range options {
				s.Mounts = append(s.Mounts, specs.Mount{Destination: "/options/" + option, Type: "tmpfs", Source: "tmpfs", Options: []string{option}})
			}
		}
	}
	c := runc.Variant(q, b, "options", withTmpfs(options...))
	r := c.Try("create")
	assert.Assert(q, cmp.Equal(r.Code, 0), "create with a tmpfs for each of these options, which `runc features` lists, %v:\n%s", options, r)
	var mounted []string
	for _, m := range check.Mounts(q, c.Process()) {
		if option, ok := strings.CutPrefix(m.Mountpoint, "/options/"); ok {
			mounted = append(mounted, option)
		}
	}
	assert.Check(q, cmp.DeepEqual(mounted, options), "options with which the container has a tmpfs")
	q.Fact("mountOptions: options with which a tmpfs was mounted", len(mounted))
	c.Delete()

	q.Control("an option that is not in the list: runc gives it to the tmpfs, which refuses it")
	assert.Check(q, !slices.Contains(f.MountOptions, "no-option"), "mountOptions: %v", f.MountOptions)
	r = runc.Variant(q, b, "unknown-option", withTmpfs("no-option")).MustRefuse("invalid argument")
	q.Fact("option that is not listed: error of create", runc.StableMessage(r.Stderr))

	q.Step("the option defaults, of fstab(5), is in the list, but runc translates it to nothing: it goes to the tmpfs, too")
	r = runc.Variant(q, b, "defaults", withTmpfs("defaults")).Try("create")
	assert.Check(q, slices.Contains(f.MountOptions, "defaults"), "mountOptions: %v", f.MountOptions)
	q.Fact("option defaults of a tmpfs: create succeeds", r.Code == 0)
	if r.Code != 0 { // runc 1.1.11 to 1.5.2
		runc.AssertMessage(q, r.Stderr, "invalid argument")
		q.Fact("option defaults of a tmpfs: error of create", runc.StableMessage(r.Stderr))
	}

	q.Step("seccomp.actions: make a call with each action of the list but SCMP_ACT_NOTIFY: the program gets the error or the signal, or goes on")
	actionsAct(q, b, f.Linux.Seccomp.Actions)

	q.Step("seccomp.archs: make a filter with an architecture that this machine does not have. Only one with the same byte order is possible")
	archsAct(q, b, f.Linux.Seccomp.Archs)

	q.Step("cgroup: v1 and v2 are both true, and this machine has only one of them for its controllers")
	for _, row := range []struct {
		name string
		is   *bool
	}{{"v1", f.Linux.Cgroup.V1}, {"v2", f.Linux.Cgroup.V2}, {"systemd", f.Linux.Cgroup.Systemd}} {
		assert.Check(q, row.is != nil && *row.is, "cgroup.%s of `runc features`", row.name)
		q.Fact("cgroup."+row.name, row.is != nil && *row.is)
	}
	inCgroup := runc.New(q, b)
	p := inCgroup.CreateAndStart()
	check.OnlyProcessInCgroup(q, p.Identity, b.Spec.Linux.CgroupsPath)
	q.Fact("cgroups of this machine", cgroup.Version(q))
	inCgroup.KillAndDelete(p)
	q.Run("systemd", func(q *lab.Q) { systemdIsRefused(q, b) })

	q.Answer("`runc features` lists what this build of runc knows. A mount option that is in no list goes to the file system, which may " +
		"refuse it. An entry does not promise that the machine can do it: cgroup.systemd is true where no systemd runs, and seccomp.archs names " +
		"architectures of the other byte order.")
}

// optionsOfTmpfs returns those of the listed mount options that a new tmpfs can have.
func optionsOfTmpfs(listed []string) (options []string) {
	for _, option := range listed {
		recursive := strings.HasPrefix(option, "r") && slices.Contains(listed, option[1:]) // rro, rbind, rshared: for the mounts below
		// bind and remount need a mount that is there. Mandatory locks are an option of old kernels. defaults has a step of its own.
		if !recursive && !slices.Contains([]string{"bind", "remount", "mand", "defaults"}, option) {
			options = append(options, option)
		}
	}
	return options
}

// actionAct is a command that makes a system call with this action of the filter.
type actionAct struct {
	action  specs.LinuxSeccompAction
	kernel  string // its name in /proc/sys/kernel/seccomp/actions_avail
	calls   []string
	command string
	outcome string // what the shell prints
	passes  bool   // the call goes on: the filter's default action has to refuse it, so that the rule makes a difference
}

var killed = fmt.Sprintf("status %d", 128+int(unix.SIGSYS))

// actionActs are the actions of the specification, without SCMP_ACT_NOTIFY, which needs an agent. The four that kill look the same to a
// program of one thread, and LOG looks like ALLOW.
var actionActs = []actionAct{
	{specs.ActErrno, "errno", []string{"chmod", "fchmodat", "fchmodat2"}, "chmod 700 /tmp", "Operation not permitted", false},
	{specs.ActTrace, "trace", []string{"mknod", "mknodat"}, "mkfifo /tmp/fifo", "Function not implemented", false}, // no tracer is there
	{specs.ActTrap, "trap", []string{"symlink", "symlinkat"}, "ln -s file /tmp/link", killed, false},
	{specs.ActKill, "kill_thread", []string{"sethostname"}, "hostname filtered", killed, false},
	{specs.ActKillThread, "kill_thread", []string{"sync"}, "sync", killed, false},
	{specs.ActKillProcess, "kill_process", []string{"mkdir", "mkdirat"}, "mkdir /tmp/dir", killed, false},
	{specs.ActLog, "log", []string{"link", "linkat"}, "ln /tmp/file /tmp/other", "status 0", true},
	{specs.ActAllow, "allow", []string{"rename", "renameat", "renameat2"}, "mv /tmp/file /tmp/moved", "status 0", true},
}

// actionsAct asserts that a filter can have each of the listed actions, that the kernel has it, and that it does what its name says.
func actionsAct(q *lab.Q, b *bundle.Bundle, listed []string) {
	q.Helper()
	filter := func(defaultAction specs.LinuxSeccompAction, rules ...specs.LinuxSyscall) func(*specs.Spec) {
		return func(s *specs.Spec) {
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: defaultAction, Architectures: seccomp.NativeArch(), Syscalls: rules}
		}
	}
	var acts []actionAct
	stopping, passing := []specs.LinuxSyscall{}, []specs.LinuxSyscall{{Names: seccomp.ShellSyscalls, Action: specs.ActAllow}}
	for _, act := range actionActs {
		if !slices.Contains(listed, string(act.action)) {
			continue
		}
		acts = append(acts, act)
		rule := specs.LinuxSyscall{Names: act.calls, Action: act.action}
		if act.passes {
			passing = append(passing, rule)
		} else {
			stopping = append(stopping, rule)
		}
	}
	assert.Assert(q, len(acts) > 0, "seccomp.actions has none of the actions that the specification names: %v", listed)
	kernel := strings.Fields(file.Read(q, "/proc/sys/kernel/seccomp/actions_avail"))
	_, ofStopping, _ := runc.StartWithShell(q, b, "actions", bundle.ScratchAtTmp, filter(specs.ActAllow, stopping...))
	_, ofPassing, _ := runc.StartWithShell(q, b, "passing", bundle.ScratchAtTmp, filter(specs.ActErrno, passing...))
	for _, act := range acts {
		assert.Check(q, slices.Contains(kernel, act.kernel), "the kernel has no action for %s: %v", act.action, kernel)
		sh := ofStopping
		if act.passes {
			sh = ofPassing
		}
		sh.Run("true > /tmp/file")
		lines := strings.Split(sh.Run("("+act.command+"); echo status $?").Out, "\n")
		i := slices.IndexFunc(lines, func(line string) bool { return strings.Contains(line, act.outcome) })
		if assert.Check(q, i >= 0, "%s of %v: %q prints %q, and not %q", act.action, act.calls, act.command, lines, act.outcome) {
			q.Fact(fmt.Sprintf("seccomp.actions, %s: %s", act.action, act.command), lines[i])
		}
	}
	refused := ofPassing.Run("mkdir /tmp/dir") // of the default action
	assert.Check(q, cmp.Contains(refused.Out, "Operation not permitted"), "a call without a rule, where the default action is an error")
	q.Fact("seccomp: a call without a rule, where the default action is SCMP_ACT_ERRNO", check.LastLine(refused.Out))
	const unknown = specs.LinuxSeccompAction("SCMP_ACT_NONE")
	assert.Check(q, !slices.Contains(listed, string(unknown)), "seccomp.actions: %v", listed)
	rule := specs.LinuxSyscall{Names: []string{"mkdir"}, Action: unknown}
	r := runc.Variant(q, b, "unknown-action", filter(specs.ActAllow, rule)).MustRefuse("not a valid action")
	q.Fact("action that is not listed: error of create", runc.StableMessage(r.Stderr))
}

// archsAct asserts that a filter can have another architecture of the list with the byte order of this machine, and none with the other
// byte order.
func archsAct(q *lab.Q, b *bundle.Bundle, listed []string) {
	q.Helper()
	other := specs.ArchX86_64
	if runtime.GOARCH == "amd64" {
		other = specs.ArchAARCH64
	}
	const bigEndian = specs.ArchS390X
	filter := func(archs ...specs.Arch) func(*specs.Spec) {
		return func(s *specs.Spec) {
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: archs,
				Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: specs.ActErrno}}}
		}
	}
	for _, arch := range append(seccomp.NativeArch(), other, bigEndian) {
		assert.Check(q, slices.Contains(listed, string(arch)), "seccomp.archs has no %s: %v", arch, listed)
	}
	c := runc.Variant(q, b, "other-arch", filter(append(seccomp.NativeArch(), other)...))
	p := c.CreateAndStart()
	mode := check.ProcessSettings(q, p)["Seccomp"]
	assert.Check(q, cmp.Equal(mode, "2"), "Seccomp of a process whose filter has %s, too", other)
	q.Fact("architecture of the same byte order: Seccomp", mode)
	c.KillAndDelete(p)
	r := runc.Variant(q, b, "big-endian", filter(append(seccomp.NativeArch(), bigEndian)...)).MustRefuse("architecture")
	q.Fact("architecture of the other byte order: error of create", runc.StableMessage(r.Stderr))
}

// systemdIsRefused asserts that create by the systemd cgroup driver fails where no systemd runs.
func systemdIsRefused(q *lab.Q, b *bundle.Bundle) {
	if file.Exists("/run/systemd/system") {
		q.Skip("process 1 is systemd here: TestLifecycle_WhereDoesAContainerGoWithTheSystemdCgroupDriver asks what create does there")
	}
	q.Step("cgroup.systemd is true, and no systemd runs here: create by the systemd cgroup driver fails")
	c := runc.Variant(q, b, "systemd", func(s *specs.Spec) { s.Linux.CgroupsPath = "system.slice:cdb:" + q.ID("features") })
	r := q.Exec("runc", "--systemd-cgroup", "--root", c.Root, "create", "--bundle", c.Bundle.Name, c.ID)
	assert.Check(q, r.Code != 0, "create by the systemd cgroup driver, without systemd:\n%s", r)
	runc.AssertMessage(q, r.Stderr, "systemd not running")
	assert.Check(q, !file.Exists(c.StateDir()), "a refused create left its state: %s", c.StateDir())
	q.Fact("cgroup.systemd without systemd: error of create", runc.StableMessage(r.Stderr))
}
