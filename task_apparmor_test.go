//go:build linux && vmlab

package cdblab

import (
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/apparmor"
	"cdblab/helpers/check"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/lab"
	"cdblab/helpers/runc"
)

// ctr gives a task no AppArmor profile unless a flag names one. --apparmor-profile names a profile that is loaded. With
// --apparmor-default-profile NAME, ctr itself loads containerd's default profile under the name NAME. It stays loaded after the task.
//
// config.json has only the name of a profile, and neither containerd's task service nor the runtime loads one. So the flag
// --apparmor-default-profile works only where ctr runs on the node itself. containerd's CRI plugin loads a profile of the same template
// for its containers, and that of Docker is similar. The profile refuses mounts. It also refuses to let a program write to most files
// below /proc and /sys. Capabilities do not change this. An exec is under the task's profile, because ctr copies the settings of the
// process. If the kernel has a profile of the name already, ctr does not load it again: after an upgrade the old rules hold until the
// node starts again.
//
// Hint: cat /proc/PID/attr/apparmor/current; grep the name in /sys/kernel/security/apparmor/profiles, after `ctr containers create`.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config.md#linux-process,
// https://docs.docker.com/engine/security/apparmor/
// Kernel: https://docs.kernel.org/admin-guide/LSM/apparmor.html
func TestTask_WhichAppArmorProfileDoesCtrGiveATask(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Which AppArmor profile does ctr give a task?")
	defer q.Recover()
	apparmor.Require(q)
	d := ctrd.Shared(q)
	ref := d.PullImage()
	create := func(name string, flags ...string) (id string) {
		id = q.ID(name)
		d.CreateContainerWith(append([]string{"--cap-add", "CAP_SYS_ADMIN"}, flags...), ref, id, "sleep", "3600")
		return id
	}
	// The same two acts in each task, by an exec.
	const mount, write = "mount -t tmpfs tmpfs /root", "echo text > /locked"
	try := func(what, id, act, refused string) {
		q.Helper()
		r := d.TryCtr("tasks", "exec", "--fifo-dir", d.FifoDir, "--exec-id", "act", id, "sh", "-c", act)
		assert.Check(q, cmp.Equal(r.Code != 0, refused != ""), "%s: %s:\n%s", what, act, r)
		assert.Check(q, cmp.Contains(r.Stderr, refused), "%s: %s", what, act)
		q.Fact(what+": "+act, map[bool]string{true: "works", false: check.LastLine(r.Stderr)}[r.Code == 0])
	}

	q.Control("start a task without a flag: it is under the profile of containerd, if any, and may mount")
	id := create("cdb-no-profile")
	assert.Check(q, cmp.Equal(d.Spec(id).Process.ApparmorProfile, ""), "apparmorProfile in config.json, without a flag")
	task := d.StartTaskAndWait(id)
	assert.Check(q, cmp.Equal(apparmor.Of(q, task.PID), apparmor.Of(q, d.PID())), "profile of a task without a flag, and of containerd")
	q.Fact("no flag: profile of the task", apparmor.Of(q, task.PID))
	try("no flag", id, mount, "")
	try("no flag", id, write, "")

	q.Step("--apparmor-profile: config.json has the name of a profile that is loaded, and the task and its exec are under it")
	own := apparmor.Load(q, "own", "deny /locked w")
	id = create("cdb-own-profile", "--apparmor-profile", own.Name)
	assertProfile(q, d, id, "--apparmor-profile", own.Name)
	try("--apparmor-profile", id, mount, "")
	try("--apparmor-profile", id, write, "Permission denied")

	q.Step("--apparmor-default-profile: ctr loads the profile, already when it creates the container")
	byDefault := q.Owner.ProfileName("default")
	assert.Assert(q, cmp.Equal(apparmor.Loaded(q, byDefault), ""), "the kernel has the profile before")
	id = create("cdb-default-profile", "--apparmor-default-profile", byDefault)
	assert.Check(q, cmp.Equal(apparmor.Loaded(q, byDefault), "enforce"), "mode of the default profile, before the task")
	q.Fact("--apparmor-default-profile: mode of the profile, before the task", apparmor.Loaded(q, byDefault))

	q.Step("start the task: the default profile refuses the mount, although the task has CAP_SYS_ADMIN, and allows the write")
	assertProfile(q, d, id, "--apparmor-default-profile", byDefault)
	try("--apparmor-default-profile", id, mount, "Permission denied")
	try("--apparmor-default-profile", id, write, "")

	q.Step("name a profile that is not loaded: ctr creates the container, and its task cannot start")
	missing := create("cdb-missing-profile", "--apparmor-profile", own.Name+"-missing")
	refused := d.TryStartTask(missing)
	assert.Check(q, refused.Code != 0, "a task starts with a profile that is not loaded")
	runc.AssertMessage(q, refused.Stderr, "apparmor")
	q.Fact("profile that is not loaded: error of the start", runc.StableMessage(refused.Stderr))
	d.RemoveFIFOs(missing)
	q.Step("give both flags: ctr refuses to create the container")
	both := d.Refused("conflicts with", "containers", "create", "--apparmor-profile", own.Name, "--apparmor-default-profile", byDefault,
		ref, q.ID("cdb-both-profiles"), "true")
	q.Fact("both flags: error", ctrd.CtrError(both))

	q.TearDown("delete the task and its container: the default profile stays in the kernel", func() {
		d.KillAndDeleteTask(id)
		d.Ctr("containers", "delete", id)
		assert.Check(q, cmp.Equal(apparmor.Loaded(q, byDefault), "enforce"), "mode of the default profile, after the container")
		q.Fact("after the delete: mode of the default profile", apparmor.Loaded(q, byDefault))
	})
	q.Answer("By itself, ctr gives a task no AppArmor profile. A flag names one that is loaded, or has ctr load containerd's default profile, " +
		"which then stays. The default profile refuses mounts, whatever capabilities the program has.")
}

// assertProfile starts a task whose container was created with a flag, and asserts that config.json, the program and an exec have the
// profile.
func assertProfile(q *lab.Q, d *ctrd.Daemon, id, flag, name string) {
	q.Helper()
	assert.Check(q, cmp.Equal(d.Spec(id).Process.ApparmorProfile, name), "apparmorProfile in config.json, with %s", flag)
	task := d.StartTaskAndWait(id)
	assert.Check(q, cmp.Equal(apparmor.Of(q, task.PID), name+" (enforce)"), "profile of the task, with %s", flag)
	ofExec := strings.TrimSpace(d.ExecShell(id, "cat /proc/self/attr/current"))
	assert.Check(q, cmp.Equal(ofExec, name+" (enforce)"), "profile of an exec, with %s", flag)
	q.Fact(flag+": task and exec are under the profile of config.json", apparmor.Of(q, task.PID) == ofExec)
}
