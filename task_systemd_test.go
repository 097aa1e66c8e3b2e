//go:build linux && vmlab

package cdblab

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/check"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
	"cdblab/helpers/systemd"
)

// KillMode=process in containerd's unit keeps tasks alive: systemd then ends only the daemon. By default systemd ends all processes of
// the unit's cgroup, and the shims are among them. A task without a shim is killed when containerd starts again, if not before.
//
// A shim is in the cgroup of the daemon that has started it, and stays there when the unit is stopped. The next daemon of the unit
// finds it. The task is in a cgroup of its own, so even by default systemd does not end the task itself. But no program can
// report its exit any more, and containerd, as it starts, kills a task without a shim.
//
// Delegate=yes keeps no task alive. With it, systemd enables all controllers for the unit's cgroup, and leaves the cgroups below it alone.
// An extended attribute of the cgroup shows that to other programs. Delegate=yes also makes OOMPolicy=continue the default. Without it,
// OOMPolicy=stop is the default: when the kernel's OOM killer kills a shim, systemd stops the whole unit (systemd.service(5)).
//
// Hint: systemd-cgls -u containerd; systemctl restart containerd; look at the pids of the shims before and after.
// Spec: https://github.com/containerd/containerd/blob/main/docs/ops.md#systemd
// Kernel: https://man7.org/linux/man-pages/man5/systemd.kill.5.html
func TestTask_WhatKeepsTasksAliveWhenSystemdStopsContainerd(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What keeps tasks alive when systemd stops containerd?",
		lab.Alone("systemd takes controllers from the cgroups of other questions when a unit starts or stops"))
	defer q.Recover()
	systemd.Require(q)
	unit := systemd.Service(q, "process")
	d := ctrd.StartAsService(q, unit, []string{"KillMode=process", "Delegate=yes"})
	ref, id := d.PullImage(), q.ID(ctrd.ContainerID)

	q.Step("start a task: its shim is in the cgroup of containerd's unit, and the task is not")
	d.CreateContainer(ref, id, "sleep", "3600")
	task := d.StartTaskAndWait(id)
	shim := proc.Snapshot(q, task.Parent)
	assert.Check(q, cmp.Equal(unit.Property("ControlGroup"), unit.Cgroup()))
	assert.Check(q, cmp.DeepEqual(unit.Processes(), check.Sorted(d.PID(), shim.PID)), "processes in the cgroup of the unit")
	check.OnlyProcessInCgroup(q, task.Identity, "/"+d.Namespace+"/"+id)
	assert.Check(q, unit.Delegated(), "the cgroup of a unit with Delegate=yes has no mark")
	q.Fact("KillMode=process: processes in the unit's cgroup", len(unit.Processes()))
	q.Fact("Delegate=yes: mark on the unit's cgroup", unit.Delegated())

	survives := func(act string) {
		assert.Assert(q, shim.Alive(), "the shim is dead after %s, with KillMode=process", act)
		assert.Assert(q, task.Alive(), "the task is dead after %s, with KillMode=process", act)
	}
	q.Step("systemctl restart: the daemon is a new process; shim and task are the same, and the new daemon manages them")
	before := d.PID()
	d.Restart()
	survives("systemctl restart")
	assert.Check(q, d.PID() != before, "systemctl restart has started no other containerd")
	assert.Check(q, cmp.DeepEqual(unit.Processes(), check.Sorted(d.PID(), shim.PID)), "processes in the cgroup of the unit")
	assert.Check(q, cmp.Contains(d.ExecShell(id, "echo it works"), "it works"))
	q.Fact("KillMode=process, restart: status of the task", string(d.TaskStatus(id).Status))

	q.Step("systemctl stop: the unit is not active, and the shim is still in its cgroup")
	assert.NilError(q, d.Stop())
	survives("systemctl stop")
	assert.Check(q, !unit.Active(), "the unit is active after systemctl stop")
	assert.Check(q, cmp.DeepEqual(unit.Processes(), []proc.PID{shim.PID}), "processes in the cgroup of a unit that was stopped")
	q.Fact("KillMode=process, stop: processes in the unit's cgroup", len(unit.Processes()))
	q.Step("systemctl start: the new daemon manages the task")
	d.Start()
	survives("systemctl start")
	assert.Check(q, cmp.Contains(d.ExecShell(id, "echo it works"), "it works"))
	q.Fact("KillMode=process, stop and start: status of the task", string(d.TaskStatus(id).Status))
	d.KillAndDeleteTask(id)
	proc.WaitFor(q, d.HasShims(0))
	assert.NilError(q, d.Stop())
	proc.WaitFor(q, unit.Gone()) // its cgroup is empty now

	for _, mode := range []string{"mixed", "control-group"} {
		q.Control("KillMode=%s: systemctl stop ends the shim as well, and the task does not survive the next start", mode)
		unit := systemd.Service(q, mode)
		// The default has Delegate=yes here as well: it does not help.
		delegate := map[string]string{"mixed": "no", "control-group": "yes"}[mode]
		d.RunBy(unit, "KillMode="+mode, "Delegate="+delegate)
		d.Start()
		assert.Check(q, cmp.Equal(unit.Delegated(), delegate == "yes"), "the mark on the cgroup of a unit with Delegate=%s", delegate)
		q.Fact("KillMode="+mode+": Delegate", unit.Property("Delegate"))
		task := d.StartTaskAndWait(id)
		shim := proc.Snapshot(q, task.Parent)
		assert.Check(q, cmp.DeepEqual(unit.Processes(), check.Sorted(d.PID(), shim.PID)), "processes in the cgroup of the unit")
		assert.NilError(q, d.Stop())
		proc.WaitFor(q, unit.Gone())
		assert.Check(q, !shim.Alive(), "the shim has survived systemctl stop with KillMode=%s", mode)
		q.Fact("KillMode="+mode+", stop: the shim is alive", shim.Alive())
		// containerd may notice the death of the shim before its own, and then kills the task.
		q.Fact("KillMode="+mode+", stop: the task is alive", lab.Chance(fmt.Sprint(task.Alive())))
		d.Start()
		proc.WaitFor(q, proc.Dead(task.Identity))
		r := d.TryCtr("tasks", "kill", id)
		assert.Check(q, r.Code != 0, "containerd has a task whose shim was ended")
		assert.Check(q, !file.Exists(d.Bundle(id)), "the bundle of the task whose shim was ended")
		q.Fact("KillMode="+mode+", stop and start: the task is alive", task.Alive())
		d.RemoveFIFOs(id)
		assert.NilError(q, d.Stop())
		proc.WaitFor(q, unit.Gone())
	}

	q.Answer("KillMode=process in the unit of containerd keeps tasks alive, because the shims are in the unit's cgroup. By default systemd " +
		"ends the shims with containerd, and no task survives the next start.")
}

// A task inherits from containerd's unit what neither config.json nor the runtime sets: the nice value, the I/O priority, no_new_privs, and
// limits that config.json does not name. Its oom_score_adj is the unit's plus one. The unit's environment, umask and cgroup limits do not
// reach it.
//
// systemd sets these for the daemon. Each child inherits them: the shim, runc, and the program. What runc sets replaces them. ctr's
// config.json names a limit of 1024 open files, and no limit of processes or of core files. The helper that starts a shim gives it a
// score one above containerd's. So if a shim and the daemon use the same memory, the OOM killer chooses the shim.
//
// Hint: systemctl show containerd; /proc/PID/limits, /proc/PID/status and /proc/PID/oom_score_adj of the daemon, a shim and a task.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config.md#posix-process
// Kernel: https://man7.org/linux/man-pages/man5/systemd.exec.5.html
func TestTask_WhatDoTasksInheritFromContainerdsUnit(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What do tasks inherit from containerd's unit?",
		lab.Alone("systemd takes controllers from the cgroups of other questions when a unit starts or stops"))
	defer q.Recover()
	systemd.Require(q)
	unit := systemd.Service(q, "plain")
	d := ctrd.StartAsService(q, unit, []string{"KillMode=process"})
	ref, usual, bare := d.PullImage(), q.ID(ctrd.ContainerID), q.ID(ctrd.ContainerID+"-bare")
	d.CreateContainer(ref, usual, "sleep", "3600")
	leaveOut := func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		s.Process.Rlimits, s.Process.NoNewPrivileges = nil, false
		return nil
	}
	d.CreateContainerByClient(ctrd.ClientOptions{Spec: []oci.SpecOpts{leaveOut}}, ref, bare, "sleep", "3600")
	names := []string{"containerd", "shim", "task", "task without limits and noNewPrivileges"}

	// observe starts both tasks, and returns the settings of the processes in the order of names.
	observe := func() (seen []map[string]string) {
		task, other := d.StartTaskAndWait(usual), d.StartTaskAndWait(bare)
		for _, pid := range []proc.PID{d.PID(), task.Parent, task.PID, other.PID} {
			p, settings := proc.Snapshot(q, pid), proc.Settings(q, pid)
			controller := map[string]string{"v1": "pids", "v2": ""}[cgroup.Version(q)]
			settings["pids.max"] = cgroup.Of(q, p.Cgroups[controller]).Read("pids", "pids.max")
			settings["COLOUR"] = fmt.Sprint(slices.Contains(p.Env, "COLOUR=blue"))
			seen = append(seen, settings)
		}
		d.KillAndDeleteTask(usual)
		d.KillAndDeleteTask(bare)
		proc.WaitFor(q, d.HasShims(0))
		return seen
	}
	q.Control("start two tasks of a containerd whose unit has no settings")
	without := observe()
	assert.NilError(q, d.Stop())
	proc.WaitFor(q, unit.Gone())

	rows := []struct {
		property, setting string
		want              [4]string // of the processes in the order of names
	}{
		{"Nice=5", "scheduler", [4]string{"policy 0, nice 5", "policy 0, nice 5", "policy 0, nice 5", "policy 0, nice 5"}},
		{"IOSchedulingPriority=6", "I/O priority",
			[4]string{"class 2, priority 6", "class 2, priority 6", "class 2, priority 6", "class 2, priority 6"}},
		{"OOMScoreAdjust=300", "oom_score_adj", [4]string{"300", "301", "301", "301"}},
		{"NoNewPrivileges=yes", "NoNewPrivs", [4]string{"1", "1", "1", "1"}},
		{"LimitNPROC=4321", "Max processes",
			[4]string{"4321 4321 processes", "4321 4321 processes", "4321 4321 processes", "4321 4321 processes"}},
		{"LimitNOFILE=8192", "Max open files", [4]string{"8192 8192 files", "8192 8192 files", "1024 1024 files", "8192 8192 files"}},
		{"UMask=0027", "Umask", [4]string{"0027", "0027", "0022", "0022"}},
		{"Environment=COLOUR=blue", "COLOUR", [4]string{"true", "true", "false", "false"}},
		{"TasksMax=333", "pids.max", [4]string{"333", "333", "max", "max"}},
	}
	q.Step("start the same tasks of a containerd whose unit has settings: compare each setting in /proc with the control")
	properties := []string{"KillMode=process"}
	for _, row := range rows {
		properties = append(properties, row.property)
	}
	unit = systemd.Service(q, "settings")
	d.RunBy(unit, properties...)
	d.Start()
	with := observe()
	for _, row := range rows {
		var reached []string
		for i, name := range names {
			before, now := without[i][row.setting], with[i][row.setting]
			assert.Check(q, cmp.Equal(now, row.want[i]), "%s of %s, whose unit has %s", row.setting, name, row.property)
			if before != now {
				reached = append(reached, name)
			}
		}
		assert.Check(q, slices.Contains(reached, "shim"), "%s makes no difference for the shim: %s", row.property, without[1][row.setting])
		q.Fact(row.property+": reaches", reached)
	}

	q.TearDown("stop containerd: systemd unloads the unit", func() {
		assert.NilError(q, d.Stop())
		proc.WaitFor(q, unit.Gone())
	})
	q.Answer("A task inherits the nice value, the I/O priority, no_new_privs and the limits that config.json does not name. Its " +
		"oom_score_adj is that of containerd's unit plus one. The environment, the umask and the cgroup limits of the unit do not reach it.")
}
