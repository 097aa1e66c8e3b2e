//go:build linux && vmlab

package cdblab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
	"cdblab/helpers/runc"
	"cdblab/helpers/systemd"
)

// KillMode=process in containerd's unit keeps tasks alive: systemd then ends only the daemon. By default systemd ends all processes of
// the unit's cgroup, and the shims are among them. A task without a shim is killed when containerd starts again, if not before.
//
// A shim is in the cgroup of the daemon that has started it, and stays there when the unit is stopped. The next daemon of the unit
// finds it. The task is in a cgroup of its own, so even by default systemd does not end the task itself. But no program can
// report its exit any more, and containerd, as it starts, kills a task without a shim.
//
// Delegate=yes keeps no task alive: TestTask_WhatDoesDelegateGiveContainerdsUnit asks what it does. An extended attribute of the cgroup
// shows it to other programs.
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
		d.Refused("not found", "tasks", "kill", id) // the task, whose shim was ended
		assert.Check(q, !file.Exists(d.Bundle(id)), "the bundle of the task whose shim was ended")
		q.Fact("KillMode="+mode+", stop and start: the task is alive", task.Alive())
		d.RemoveFIFOs(id)
		assert.NilError(q, d.Stop())
		proc.WaitFor(q, unit.Gone())
	}

	q.Answer("KillMode=process in the unit of containerd keeps tasks alive, because the shims are in the unit's cgroup. By default systemd " +
		"ends the shims with containerd, and no task survives the next start.")
}

// A task inherits from containerd's unit what neither config.json nor the runtime sets: the nice value, the I/O priority, no_new_privs,
// and limits that config.json does not name. Its oom_score_adj is the unit's plus one. The unit's environment, umask, cgroup limits and
// log do not reach it.
//
// systemd sets these for the daemon. Each child inherits them: the shim, runc, and the program. What runc sets replaces them. ctr's
// config.json names a limit of 1024 open files, and no limit of processes or of core files. The helper that starts a shim gives it a
// score one above containerd's. So if a shim and the daemon use the same memory, the OOM killer chooses the shim.
//
// By default, standard output and standard error of a unit are a socket of systemd-journald. So containerd's own log, with the messages
// of the shims, is in the journal of the unit. The output of a task is not: it goes where the client has said.
//
// Hint: systemctl show containerd; /proc/PID/limits, /proc/PID/status and /proc/PID/oom_score_adj of the daemon, a shim and a task;
// journalctl -u containerd.
// Spec: https://github.com/opencontainers/runtime-spec/blob/main/config.md#posix-process
// Kernel: https://man7.org/linux/man-pages/man5/systemd.exec.5.html, "Logging and Standard Input/Output"
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
	q.Control("start two tasks of a containerd whose unit has no settings, and whose log is a file")
	without := observe()
	logged := strings.Contains(unit.Journal(), "containerd successfully booted")
	assert.Check(q, !logged, "the journal has the log of a unit that logs into a file")
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
	properties := []string{"KillMode=process", "StandardOutput=journal", "StandardError=journal"}
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
	assertLogInJournal(q, d, unit, ref)

	q.TearDown("stop containerd: systemd unloads the unit", func() {
		assert.NilError(q, d.Stop())
		proc.WaitFor(q, unit.Gone())
	})
	q.Answer("A task inherits the nice value, the I/O priority, no_new_privs and the limits that config.json does not name. Its " +
		"oom_score_adj is that of containerd's unit plus one. The environment, the umask, the cgroup limits and the log of the unit do not " +
		"reach it.")
}

// assertLogInJournal asserts that the journal has the log of a containerd whose unit has StandardError=journal, and not the output of a
// task.
func assertLogInJournal(q *lab.Q, d *ctrd.Daemon, unit *systemd.Unit, ref string) {
	q.Helper()
	q.Step("StandardError=journal: the journal has the log of containerd and of the shim. It does not have the output of a task")
	const words = "cdb-words-of-a-task"
	id, output := q.ID(ctrd.ContainerID+"-prints"), filepath.Join(q.Mkdir("output"), "task")
	init, shim := startScript(q, d, ref, id, "echo "+words+"; sleep 3600 & wait", "--log-uri", "file://"+output)
	proc.WaitFor(q, file.Contains(output, words))
	var writers []string
	for _, p := range []struct {
		name string
		pid  proc.PID
	}{{"containerd", d.PID()}, {"shim", shim.PID}, {"task", init.PID}} {
		if out, err := unit.WritesToJournal(p.pid, 1), unit.WritesToJournal(p.pid, 2); out || err {
			assert.Check(q, out && err, "only one of descriptors 1 and 2 of %s is the socket of the journal", p.name)
			writers = append(writers, p.name)
		}
	}
	assert.Check(q, cmp.DeepEqual(writers, []string{"containerd"}), "processes whose descriptors 1 and 2 are the socket of the journal")
	journal := unit.Journal()
	assert.Check(q, cmp.Contains(journal, "containerd successfully booted"), "messages of containerd")
	assert.Check(q, cmp.Contains(journal, id), "messages about the shim")
	assert.Check(q, !strings.Contains(journal, words), "the journal of containerd's unit has the output of a task")
	q.Fact("StandardError=journal: processes that write into the journal", writers)
	q.Fact("StandardError=journal: the journal has the output of a task", strings.Contains(journal, words))
	d.KillAndDeleteTask(id)
	proc.WaitFor(q, d.HasShims(0))
}

// A task goes into a scope of systemd only if two settings agree: SystemdCgroup=true in the options of the runtime, and in config.json
// a cgroupsPath of the form slice:prefix:name, or an empty one. systemd makes the scope. The task and its execs are in its cgroup, and
// the shim is not.
//
// The option is in the record of the container, and the shim calls the runtime with --systemd-cgroup for it. The client writes both
// settings. containerd's plugin for the kubelet does, and ctr does with the two flags of the hint. With the option and the default of
// containerd's client, the path /namespace/id, the runtime refuses to create the task. Without the option, slice:prefix:name is the name
// of a directory, and systemd knows nothing of the task. A scope is a unit of its own, beside that of containerd.
//
// Hint: ctr run --runc-systemd-cgroup --cgroup system.slice:cdb:task …; systemd-cgls; systemctl status of the scope.
// Spec: https://github.com/containerd/containerd/blob/main/docs/cri/config.md#cgroup-driver,
// https://github.com/opencontainers/runc/blob/main/docs/systemd.md#systemd-unit-name-and-placement
// Kernel: https://man7.org/linux/man-pages/man5/systemd.scope.5.html
func TestTask_WhereDoesATaskGoWithTheSystemdCgroupDriver(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Where does a task go with the systemd cgroup driver?",
		lab.Alone("systemd takes controllers from the cgroups of other questions when a unit starts or stops"))
	defer q.Recover()
	systemd.Require(q)
	d := ctrd.Shared(q)
	ref, id := d.PullImage(), q.ID(ctrd.ContainerID)
	scope := systemd.Scope(q, "by-shim")
	inScope := func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		scope.Container(s)
		return nil
	}
	limit := oci.WithPidsLimit(50)
	g := cgroup.Of(q, scope.Cgroup())

	q.Step("SystemdCgroup=true and slice:prefix:name: systemd has a scope, and the task is the only process in its cgroup")
	assert.Assert(q, !scope.Loaded(), "systemd has the scope before the task")
	d.CreateContainerByClient(ctrd.ClientOptions{SystemdCgroup: true, Spec: []oci.SpecOpts{limit, inScope}}, ref, id, "sleep", "3600")
	task := d.StartTaskAndWait(id)
	shim := proc.Snapshot(q, task.Parent)
	check.OnlyProcessInCgroup(q, task.Identity, scope.Cgroup())
	assert.Check(q, cmp.Equal(scope.Property("ControlGroup"), scope.Cgroup()), "the cgroup of the scope")
	assert.Check(q, cmp.Equal(scope.Property("ActiveState"), "active"), "state of the scope")
	assert.Check(q, cmp.Equal(scope.Property("Slice"), "system.slice"), "slice of the scope")
	assert.Check(q, cmp.DeepEqual(shim.Cgroups, proc.Snapshot(q, d.PID()).Cgroups), "cgroups of the shim, and of containerd")
	q.Fact("scope: processes in its cgroup", len(scope.Processes()))
	q.Fact("scope: state by systemctl show", scope.Property("ActiveState"))

	q.Step("compare the limit in config.json, of the scope, in the cgroup and in the metrics: they are the same")
	assert.Check(q, cmp.Equal(g.Read("pids", "pids.max"), "50"), "pids.max of the scope's cgroup")
	assert.Check(q, cmp.Equal(scope.Property("TasksMax"), "50"), "TasksMax of the scope")
	metrics := parseMetricsTable(q, d.Ctr("tasks", "metrics", id).Stdout)
	assert.Check(q, cmp.Equal(fmt.Sprint(metrics["pids limit"]), "50"), "limit of processes in the metrics")
	assert.Check(q, cmp.Equal(fmt.Sprint(metrics["pids"]), g.Read("pids", "pids.current")), "processes in the metrics")
	q.Fact("scope: TasksMax and pids.max", scope.Property("TasksMax"))

	q.Step("execute a program in the task: it is in the cgroup of the scope, too")
	d.ExecDetached(id, "second", "sleep", "3601")
	proc.WaitFor(q, g.HasProcesses(2))
	assert.Check(q, cmp.Equal(len(scope.Processes()), 2), "processes of the scope, with an exec: %v", scope.Processes())
	q.Fact("scope: processes in its cgroup, with an exec", len(scope.Processes()))

	q.Control("the same cgroupsPath without SystemdCgroup: it is the name of a directory, and systemd has no scope")
	plain, plainID := systemd.Scope(q, "plain"), q.ID(ctrd.ContainerID+"-plain")
	name := "system.slice:cdb:" + strings.TrimSuffix(strings.TrimPrefix(plain.Name, "cdb-"), ".scope")
	d.CreateContainerByClient(ctrd.ClientOptions{Spec: []oci.SpecOpts{oci.WithCgroup(name)}}, ref, plainID, "sleep", "3600")
	other := d.StartTaskAndWait(plainID)
	for hierarchy, path := range other.Cgroups {
		assert.Check(q, cmp.Equal(filepath.Base(path), name), "cgroup of the task, hierarchy %q: %s", hierarchy, path)
	}
	assert.Check(q, !plain.Loaded(), "systemd has the scope of a task without SystemdCgroup")
	q.Fact("without SystemdCgroup: systemd has a scope", plain.Loaded())
	d.KillAndDeleteTask(plainID)

	q.Step("SystemdCgroup=true and containerd's own default, a path: the task is refused")
	byPath := q.ID(ctrd.ContainerID + "-path")
	d.CreateContainerByClient(ctrd.ClientOptions{SystemdCgroup: true}, ref, byPath, "sleep", "3600")
	refused := d.TryStartTask(byPath)
	assert.Check(q, refused.Code != 0, "a task starts by the systemd driver with cgroupsPath %s", d.Spec(byPath).Linux.CgroupsPath)
	runc.AssertMessage(q, refused.Stderr, "slice:prefix:name")
	assert.Check(q, !file.Exists(d.Bundle(byPath)), "a refused task left its bundle")
	message, _, _ := strings.Cut(runc.StableMessage(refused.Stderr), ", got")
	q.Fact("SystemdCgroup with a path: error", message)
	d.RemoveFIFOs(byPath)
	proc.WaitFor(q, d.HasShims(1)) // that of the task in the scope

	q.TearDown("kill the task: systemd removes the scope with the last process. Delete the task: no cgroup is left", func() {
		d.Ctr("tasks", "kill", "-s", "SIGKILL", id)
		proc.WaitFor(q, proc.Dead(task.Identity))
		proc.WaitFor(q, scope.Gone())
		proc.WaitFor(q, d.TaskStopped(id))
		q.Fact("after the kill, before delete: systemd has the scope", scope.Loaded())
		d.DeleteTask(id)
		assert.Check(q, !scope.Loaded(), "systemd has the scope after delete")
		check.NoCgroup(q, scope.Cgroup())
		q.Fact("after delete: systemd has the scope", scope.Loaded())
	})
	q.Answer("With SystemdCgroup=true in the options of the runtime and slice:prefix:name in config.json, a task and its execs are in a " +
		"scope of systemd, and the shim is not. systemd removes the scope with the last process. Without SystemdCgroup, " +
		"slice:prefix:name is the name of a cgroup directory. With SystemdCgroup and a path, the task is refused.")
}

// Delegate=yes says that the cgroups below the unit's own belong to the unit: on cgroup v2, systemd gives the unit all controllers, and
// it changes nothing below the unit. A task has its cgroup there only if the client puts it there. By default it is elsewhere. There
// systemd changes no limits, but it may take away controllers that none of its own units needs, such as cpuset.
//
// The default is /namespace/id, at the root of the hierarchy. So Delegate=yes makes no difference for such a task, and its limit of
// processes stays at a daemon-reload. A task can also have its cgroup below the unit's, for example where the systemd of an ordinary
// user runs containerd. Without Delegate, systemd manages all that is below the unit's cgroup. At a daemon-reload, systemd sets its
// cgroups up again. On cgroup v2 it then takes the controllers from the cgroups below, and the limits are gone with them. No command
// reports that. On v1 the limits stay.
//
// On v2, the question moves the daemon into a cgroup below the unit's, too: a cgroup that has processes cannot give controllers to
// others.
//
// With Delegate=yes, OOMPolicy=continue is the default: when the kernel's OOM killer kills a shim, the unit goes on. Otherwise the
// default is systemd's DefaultOOMPolicy, usually stop: on cgroup v2, systemd then stops the unit. This question reads only the
// property.
//
// Hint: systemctl show -p Delegate,DelegateControllers,OOMPolicy containerd; cgroup.controllers and cgroup.subtree_control of its cgroup.
// Spec: https://systemd.io/CGROUP_DELEGATION/, https://github.com/containerd/containerd/blob/main/docs/ops.md#systemd
// Kernel: https://docs.kernel.org/admin-guide/cgroup-v2.html#no-internal-process-constraint,
// https://man7.org/linux/man-pages/man5/systemd.resource-control.5.html
func TestTask_WhatDoesDelegateGiveContainerdsUnit(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What does Delegate=yes give containerd's unit?",
		lab.Alone("systemctl daemon-reload takes controllers from the cgroups of other questions"))
	defer q.Recover()
	systemd.Require(q)

	q.Step("Delegate=yes: on cgroup v2, the unit's cgroup has all controllers that systemd delegates")
	unit, without := delegatedUnit(q, "yes"), delegatedUnit(q, "no")
	d := ctrd.StartAsService(q, unit, []string{"KillMode=process", "Delegate=yes"})
	ref, usual := d.PullImage(), q.ID(ctrd.ContainerID)
	d.CreateContainerByClient(ctrd.ClientOptions{Spec: []oci.SpecOpts{oci.WithPidsLimit(50)}}, ref, usual, "sleep", "3600")
	group := cgroup.Of(q, unit.Cgroup())
	delegated := strings.Fields(unit.Property("DelegateControllers"))
	assert.Check(q, cmp.Contains(delegated, "pids"), "DelegateControllers")
	if group.V2 {
		given := strings.Fields(group.Read("", "cgroup.controllers"))
		for _, controller := range delegated {
			assert.Check(q, !group.Has(controller) || slices.Contains(given, controller), "the unit's cgroup has %q, and not %s", given, controller)
		}
		// A runtime gives more controllers to the slice, if it was there before.
		missing := func(controller string) bool { return !slices.Contains(given, controller) }
		q.Fact("Delegate=yes: delegated controllers of the unit's cgroup", slices.DeleteFunc(delegated, missing))
	}
	assert.Check(q, cmp.Equal(unit.Property("OOMPolicy"), "continue"), "OOMPolicy of a unit with Delegate=yes")
	q.Fact("Delegate=yes: OOMPolicy", unit.Property("OOMPolicy"))

	q.Step("start a task in its usual place and one below the unit's cgroup, each with a limit of 50 processes. daemon-reload: both limits stay")
	kept := reloadSystemd(q, d, unit, ref, usual)
	assert.Check(q, cmp.DeepEqual(kept, reloaded{Usual: "50", Below: "50"}), "limits after daemon-reload, with Delegate=yes")
	q.Fact("Delegate=yes, daemon-reload: limit of a task in the usual place", kept.Usual)
	q.Fact("Delegate=yes, daemon-reload: limit of a task below the unit's cgroup", kept.Below)

	q.Control("Delegate=no: on cgroup v2 the task below the unit's cgroup loses its limit, and the other one does not")
	unit = without
	d.RunBy(unit, "KillMode=process", "Delegate=no")
	d.Start()
	assert.Check(q, cmp.Equal(unit.Property("DelegateControllers"), ""), "DelegateControllers of a unit with Delegate=no")
	byDefault := strings.TrimSpace(q.Must("systemctl", "show", "--property=DefaultOOMPolicy", "--value").Stdout)
	assert.Check(q, cmp.Equal(unit.Property("OOMPolicy"), byDefault), "OOMPolicy of a unit with Delegate=no, and systemd's DefaultOOMPolicy")
	q.Fact("Delegate=no: OOMPolicy", unit.Property("OOMPolicy"))
	lost := reloadSystemd(q, d, unit, ref, usual)
	want := map[bool]string{true: "no pids.max", false: "50"}[group.V2]
	assert.Check(q, cmp.DeepEqual(lost, reloaded{Usual: "50", Below: want}), "limits after daemon-reload, with Delegate=no")
	q.Fact("Delegate=no, daemon-reload: limit of a task in the usual place", lost.Usual)
	q.Fact("Delegate=no, daemon-reload: limit of a task below the unit's cgroup", lost.Below)

	q.Answer("With Delegate=yes, systemd does not change the cgroups below containerd's unit, and on cgroup v2 gives it all controllers. " +
		"Without it, on cgroup v2, a task whose cgroup is below the unit's loses its limit of processes at a daemon-reload. A task in containerd's " +
		"usual place, which is not below the unit, keeps it.")
}

// delegatedUnit returns a service for containerd, below whose cgroup a task may have its own.
func delegatedUnit(q *lab.Q, name string) *systemd.Unit {
	q.Helper()
	unit := systemd.Service(q, "delegate-"+name)
	// For the cleanup: on v1, runc makes the unit's cgroup in each hierarchy, and systemd removes it from those that it manages.
	cgroup.Of(q, unit.Cgroup()).Make()
	return unit
}

// reloaded has the limits of processes that hold for tasks after a daemon-reload: see limitOf.
type reloaded struct{ Usual, Below string }

// reloadSystemd starts a task in the usual place and another one below the unit's cgroup, and has systemd read its configuration again.
// It returns the limits of both tasks, then deletes them and stops the unit. On cgroup v2 the daemon moves into a cgroup below the
// unit's.
func reloadSystemd(q *lab.Q, d *ctrd.Daemon, unit *systemd.Unit, ref, usual string) reloaded {
	q.Helper()
	below := usual + "-below-" + unit.Property("Delegate")
	ids, places := []string{usual, below}, []string{"/" + d.Namespace + "/" + usual, unit.Cgroup() + "/" + below}
	before := d.PID()
	if group := cgroup.Of(q, unit.Cgroup()+"/daemon"); group.V2 {
		dir := group.Dir("")
		q.LogCommandAs("mkdir "+dir+" && echo PID > "+dir+"/cgroup.procs   # containerd",
			fmt.Sprintf("mkdir %s && echo %d > %s/cgroup.procs", dir, before, dir))
		assert.NilError(q, os.Mkdir(dir, 0o755)) // systemd removes it with the unit's cgroup
		group.Add(before)
	}
	options := ctrd.ClientOptions{Spec: []oci.SpecOpts{oci.WithPidsLimit(50), oci.WithCgroup(places[1])}}
	d.CreateContainerByClient(options, ref, below, "sleep", "3600")
	var tasks []proc.Process
	for i, id := range ids {
		tasks = append(tasks, d.StartTaskAndWait(id))
		check.OnlyProcessInCgroup(q, tasks[i].Identity, places[i])
		assert.Check(q, cmp.Equal(limitOf(q, tasks[i].PID, places[i]), "50"), "limit of the task %s, before daemon-reload", id)
	}
	q.Must("systemctl", "daemon-reload")
	unit.Property("ActiveState") // systemd sets up the cgroups before it answers the next call
	for i, id := range ids {
		assert.Check(q, tasks[i].Alive(), "the task %s is dead after daemon-reload", id)
		assert.Check(q, cmp.Contains(d.ExecShell(id, "echo it works"), "it works"))
	}
	assert.Check(q, cmp.Equal(d.PID(), before), "daemon-reload has restarted containerd")
	seen := reloaded{Usual: limitOf(q, tasks[0].PID, places[0]), Below: limitOf(q, tasks[1].PID, places[1])}
	for _, id := range ids {
		d.KillAndDeleteTask(id)
	}
	proc.WaitFor(q, d.HasShims(0))
	assert.NilError(q, d.Stop())
	proc.WaitFor(q, unit.Gone())
	return seen
}

// limitOf returns the limit of processes that a cgroup gives to a process: "50". It returns "another cgroup" if the process is not in
// this cgroup, and "no pids.max" if the cgroup has no controller pids.
func limitOf(q *lab.Q, pid proc.PID, path string) string {
	q.Helper()
	controller := map[string]string{"v1": "pids", "v2": ""}[cgroup.Version(q)]
	limit, err := cgroup.Of(q, path).Try("pids", "pids.max")
	switch {
	case proc.Snapshot(q, pid).Cgroups[controller] != path:
		return "another cgroup"
	case errors.Is(err, fs.ErrNotExist):
		return "no pids.max"
	}
	assert.NilError(q, err)
	return limit
}
