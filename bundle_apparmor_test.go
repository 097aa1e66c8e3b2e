//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/apparmor"
	"cdblab/helpers/bundle"
	"cdblab/helpers/check"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/runc"
)

// An AppArmor profile can refuse root what root's capabilities and the modes of the files allow. It applies from the program's execve on,
// to the program and its children. The host can replace or remove the profile while they run.
//
// process.apparmorProfile is only a name: the host has to load the profile before create. `runc init` asks the kernel to apply the
// profile at execve. So the profile does not apply to runc's own work in the container, such as its mounts. An exec is under the
// profile of config.json, and the flag --apparmor names another one. With exec --process the file decides: if it names no profile, the
// program keeps that of runc, which usually has none. Seccomp decides by the number and the arguments of a call, and cannot read a
// path. AppArmor decides by what the call is about: this path, this capability, a mount.
//
// Hint: read /proc/PID/attr/apparmor/current, and /sys/kernel/security/apparmor/profiles.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config.md#linux-process
// Kernel: https://docs.kernel.org/admin-guide/LSM/apparmor.html
func TestBundle_WhatDoesAnAppArmorProfileRefuse(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does an AppArmor profile refuse?")
	defer q.Recover()
	apparmor.Require(q)
	locked := apparmor.Load(q, "locked", "deny /tmp/locked/** w", "deny mount", "deny capability chown")
	open := apparmor.Load(q, "open")
	b := bundle.Busybox(q, "sleep", "3600").Edit(func(s *specs.Spec) {
		all := []string{"CAP_SYS_ADMIN", "CAP_CHOWN", "CAP_DAC_OVERRIDE"}
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Permitted: all, Effective: all}
		bundle.ScratchAtTmp(s)
	})
	under := func(p *apparmor.Profile) func(*specs.Spec) {
		return func(s *specs.Spec) { s.Process.ApparmorProfile = p.Name }
	}
	enforced := func(p *apparmor.Profile) string { return p.Name + " (enforce)" }

	q.Step("create the container: `runc init` is not under the profile yet")
	c := runc.Variant(q, b, "locked", under(locked))
	sh := c.UseShell()
	c.Create()
	created := c.Process()
	ofInit := apparmor.Of(q, created.PID)
	assert.Check(q, ofInit != enforced(locked), "runc init is under the profile before start")

	q.Step("start the container: execve puts the program under the profile, and its children inherit the profile")
	c.Start()
	proc.WaitFor(q, proc.Runs(created.PID, "sh"))
	assert.Check(q, cmp.Equal(apparmor.Of(q, created.PID), enforced(locked)), "profile of the program")
	ofChild := sh.Run("cat /proc/self/attr/current").Out
	assert.Check(q, cmp.Equal(ofChild, enforced(locked)), "profile of a child")
	q.Covers("process.apparmorProfile")
	q.Fact("program and its child: under the same profile", apparmor.Of(q, created.PID) == ofChild)

	q.Step("act as root: the profile refuses what its rules deny, even if root's capabilities allow it, and nothing else")
	tryActs(q, "profile", sh, true)
	const chown, override, admin = 1 << 0, 1 << 1, 1 << 21 // linux/capability.h
	effective := proc.Status(q, created.PID, "CapEff")
	assert.Check(q, cmp.Equal(effective, proc.Mask(chown|override|admin).String()), "CapEff of the program, which may not use CAP_CHOWN")
	q.Fact("program: CapEff", effective)

	q.Control("without a profile the same acts succeed")
	_, free, freeProcess := runc.StartWithShell(q, b, "free")
	assert.Check(q, apparmor.Of(q, freeProcess.PID) != enforced(locked))
	tryActs(q, "no profile", free, false)

	q.Run("exec", func(q *lab.Q) {
		runc.SkipUnlessRunc(q, "exec --apparmor")
		q.Step("execute a program: it is under the profile of config.json, unless --apparmor names another profile or `unconfined`")
		for i, row := range []struct {
			flags []string
			what  string
			want  string
		}{
			{nil, "exec", enforced(locked)},
			{[]string{"--apparmor", open.Name}, "exec --apparmor with another profile", enforced(open)},
			{[]string{"--apparmor", "unconfined"}, "exec --apparmor unconfined", "unconfined"},
		} {
			executed := runc.ExecSleep(q, c, fmt.Sprintf("exec-%d", i), row.flags...)
			assert.Check(q, cmp.Equal(apparmor.Of(q, executed.PID), row.want), "profile of a program that was started by %s", row.what)
			q.Fact(row.what+": is under the profile of config.json", apparmor.Of(q, executed.PID) == enforced(locked))
		}

		q.Step("execute a program by --process, with a file that names no profile: the program keeps that of runc init, usually none")
		silent := *c.Bundle.Spec.Process
		silent.Args = []string{"sleep", "3601"} // a second shell would take commands of the first one
		silent.ApparmorProfile = ""
		executed := runc.ExecProcess(q, c, &silent)
		assert.Check(q, cmp.Equal(apparmor.Of(q, executed.PID), ofInit), "profile of exec --process, whose file names none, and of runc init")
		q.Fact("exec --process without a profile in the file: profile", apparmor.Of(q, executed.PID))
	})

	q.Step("create a container with a profile that is not loaded: runc refuses it")
	missing := runc.Variant(q, b, "missing", func(s *specs.Spec) { s.Process.ApparmorProfile = locked.Name + "-missing" })
	refused := missing.Try("create")
	assert.Check(q, refused.Code != 0, "create succeeds with a profile that does not exist:\n%s", refused)
	runc.AssertMessage(q, refused.Stderr, "apparmor")
	q.Fact("create with a profile that is not loaded: error", runc.StableMessage(refused.Stderr))

	q.Step("replace the profile while the program runs: the new rules apply at once")
	locked.Replace("deny /tmp/other/** w")
	other := sh.Run("mkdir /tmp/other && echo text > /tmp/other/file")
	assert.Check(q, other.Code != 0, "the program writes what the new rules deny")
	assert.Check(q, cmp.Contains(other.Out, "Permission denied"))
	tryActs(q, "replaced profile", sh, false)
	q.Fact("replaced profile: write below /tmp/other", check.LastLine(other.Out))

	q.Step("remove the profile: the running program is unconfined")
	assert.Check(q, cmp.Equal(apparmor.Of(q, created.PID), enforced(locked)), "profile of the program before the removal")
	locked.Remove()
	assert.Check(q, cmp.Equal(apparmor.Of(q, created.PID), "unconfined"), "profile of the program after the removal")
	assert.Check(q, cmp.Equal(sh.Run("echo text > /tmp/other/file").Code, 0), "without the profile the program may not write below /tmp/other")
	q.Fact("profile of the program after the removal", apparmor.Of(q, created.PID))

	q.Answer("From the program's execve on, an AppArmor profile refuses root what the rules of the profile deny: a path, a capability, a " +
		"mount. It also applies to the program's children and, unless the caller names another profile, to an exec. The host can replace or " +
		"remove the profile while the program runs.")
}

// actsOfRoot are acts that root's capabilities allow, and the errors with which a profile refuses some of them. Its rules are: deny
// /tmp/locked/** w, deny mount, deny capability chown.
var actsOfRoot = []struct{ name, act, refused string }{
	{"write below /tmp/locked", "mkdir -p /tmp/locked && echo text > /tmp/locked/file", "Permission denied"},
	{"write elsewhere in /tmp", "echo text > /tmp/file", ""},
	{"mount", "mount -t tmpfs tmpfs /root", "Permission denied"},
	{"chown", "touch /tmp/owned && chown 1 /tmp/owned", "Operation not permitted"},
}

// tryActs tries each of actsOfRoot. If the shell is confined by the profile, those that it denies have to fail.
func tryActs(q *lab.Q, what string, sh *runc.Shell, confined bool) {
	q.Helper()
	for _, act := range actsOfRoot {
		r := sh.Run(act.act)
		if confined && act.refused != "" {
			assert.Check(q, r.Code != 0, "%s: %s succeeds", what, act.name)
			assert.Check(q, cmp.Contains(r.Out, act.refused), "%s: %s", what, act.name)
			q.Fact(what+": "+act.name, check.LastLine(r.Out))
			continue
		}
		assert.Check(q, cmp.Equal(r.Code, 0), "%s: %s fails: %s", what, act.name, r.Out)
		q.Fact(what+": "+act.name, fmt.Sprintf("exit code %d", r.Code))
	}
}
