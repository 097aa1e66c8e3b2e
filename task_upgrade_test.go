//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/cgroup"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/failure"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// earlierContainerds are the releases from which containerd is upgraded, and to which it is downgraded.
var earlierContainerds = []string{"1.7.29", "2.0.7"}

// Running tasks run on with their old shims, and the new containerd uses them. A task with a shim of its own gets the new shim when it is
// started again; a pod, when its sandbox is replaced. Restart the daemon as soon as its files are replaced, without killing the shims.
//
// A shim is a process of its own, so an upgrade is a restart: exec, pause, metrics, kill, exit status and delete go through the old shim.
// Old shims keep the bugs of the old release. Where a package has replaced their file, their /proc/PID/exe ends with "(deleted)".
//
// A file in the task's bundle holds the shim's address. containerd 1.7 writes the file `address`. containerd 2 reads `bootstrap.json`. If
// that is missing, containerd 2 makes it from `address`. At each start, containerd deletes the tasks that have stopped.
//
// The daemon starts each new task with the shim file on the disk. Since 2.3, shims have another start protocol. So an older daemon cannot
// start a task after the files were replaced and before its own restart: the shim of 2.4.2 refuses the daemons 1.7.29 and 2.0.7. A shim of
// 2.3 starts, and an older daemon takes its answer for a wrong address. That shim ends only if it finds its bundle removed.
//
// The restart must not end the shims. They are in the daemon's cgroup, and systemd's default, KillMode=control-group, kills all processes
// there. At its next start, containerd kills the tasks of dead shims: TestTask_WhatKeepsTasksAliveWhenSystemdStopsContainerd.
//
// containerd supports upgrades by one minor release, or from one long-term release to the next. The upgrades of this question, from 1.7.29
// and from 2.0.7 to 2.4.2, skip releases, and so are not supported.
//
// Hint: ls -l /proc/PID/exe of the shims, before and after the upgrade.
// Spec: https://github.com/containerd/containerd/blob/main/RELEASES.md#upgrade-path
// Spec: https://github.com/containerd/containerd/blob/main/docs/runtime-v2.md#bootstrap-protocol-23
// Spec: https://github.com/containerd/containerd/blob/main/docs/ops.md#systemd
func TestTask_WhatHappensToRunningTasksWhenContainerdIsUpgraded(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What happens to running tasks when containerd is upgraded?")
	defer q.Recover()
	var columns []*failure.Victim
	observed := map[*failure.Victim]failure.Observation{}
	for _, from := range earlierContainerds {
		q.Run("from-"+from, func(q *lab.Q) {
			if q.UnderTest("containerd").Precedes(from) {
				q.Skipf("the containerd under test is older than %s: TestTask_CanContainerdBeDowngraded asks about that", from)
			}
			u := startUpgrade(q, from)
			u.replaceFiles()
			u.replaceDaemon()

			q.Step("%s: pause, resume and read the metrics of the old task through the new containerd", from)
			pids := pauseAndResume(q, u.d, u.running)
			q.Fact(from+": processes, by the metrics of the old shim", pids)

			q.Step("%s: let the program of another old task end with 7: the old shim tells the new containerd", from)
			u.ends.Kill()
			u.ends.WaitForEvent("exit init 7")
			u.ends.WaitUntilReported()
			u.stream.TakeEvents()

			q.Step("%s: run an exec, kill the task, delete it, and start a new one: the new task has the new shim", from)
			victims := u.victims()
			maps.Copy(observed, failure.Observe(q, u.d, victims))
			columns = append(columns, victims...)
			u.assertRows(observed)

			q.Control("%s: look at the task whose shim was killed with the daemon, as systemd does by default: the new containerd kills it", from)
			observed[u.killed].AssertRows(u.killed, failure.Observation{
				"init": "dead", "exec": "dead", "shim": "dead", "bundle": "gone", "rootfs mount": "gone", "cgroup": "gone",
				"runtime's state": "gone", "container": "there", "new client: task": "no task", "event 1": "-", "a new task": "possible",
			})
			q.Fact(from+": processes of the task whose shim was killed, after the upgrade", u.killed.Living())
		})
	}
	if len(columns) == 0 && !q.Failed() {
		q.Skip("there is no earlier release to upgrade from; the subtests say why")
	}
	if len(columns) == 4*len(earlierContainerds) { // no subtest was skipped, or has failed before
		failure.AssertTable(q, "upgrade.golden", "after the upgrade", columns, observed)
	}
	q.Answer("Running tasks run on with their old shims, and the new containerd uses them. A task with a shim of its own gets the new shim " +
		"when it is started again; a pod, when its sandbox is replaced. Restart the daemon as soon as its files are replaced, without " +
		"killing the shims.")
}

// upgrade is an upgrade of a containerd that has tasks.
type upgrade struct {
	q      *lab.Q
	from   string // the release
	d      *ctrd.Daemon
	ref    string
	stream *ctrd.Stream // of the daemon that runs now

	running, ends, stopped, killed *failure.Victim

	next    string // the container whose task is first started with the new shim
	refused bool   // by the new shim, because the daemon is old
}

func (u *upgrade) victims() []*failure.Victim {
	return []*failure.Victim{u.running, u.ends, u.stopped, u.killed}
}

// startUpgrade starts an earlier containerd, and a task for each column of the table.
func startUpgrade(q *lab.Q, from string) *upgrade {
	q.Helper()
	d := ctrd.StartEarlier(q, "from "+from, from)
	u := &upgrade{q: q, from: from, d: d, ref: d.PullImage(), stream: d.Listen(), next: q.ID("cdb-next-" + from)}
	victim := func(killed, when, name string) *failure.Victim {
		return failure.NewVictim(q, d, u.ref, u.stream,
			failure.Death{Killed: killed, Signal: unix.SIGTERM, When: when, Name: name + " " + from})
	}
	q.Step("%s: start two tasks with an exec, a task that ends with 7, and a task whose shim will be killed", from)
	u.running, u.ends = victim(failure.Shim, failure.Running, "running"), victim(failure.Init, failure.Running, "ends later")
	u.stopped, u.killed = victim(failure.Shim, failure.Stopped, "stopped"), victim(failure.Shim, failure.Down, "shim killed")
	assert.Check(q, cmp.Equal(ctrd.ReleaseOf(u.running.Shim.PID), "v"+from), "release of the shim")
	assert.Check(q, cmp.DeepEqual(u.running.Shim.Cgroups, proc.Snapshot(q, d.PID()).Cgroups), "cgroups of the shim, and of the daemon")
	d.CreateContainer(u.ref, u.next, "sleep", "3600")
	u.stream.TakeEvents()
	return u
}

// replaceFiles replaces the programs, while the old daemon runs on.
func (u *upgrade) replaceFiles() {
	q, d, from := u.q, u.d, u.from
	q.Helper()
	q.Step("%s: replace the files, as a package does: the old daemon and the old shims run on, and an exec works", from)
	q.UseUnderTest()
	d.Ctr("tasks", "exec", "--fifo-dir", d.FifoDir, "--exec-id", "between", u.running.ID, "true")
	u.running.WaitForEvent("exit between 0")
	assert.Check(q, cmp.Equal(ctrd.ReleaseOf(d.PID()), "v"+from), "release of the daemon that runs")
	start := d.TryCtr("tasks", "start", "-d", "--fifo-dir", d.FifoDir, u.next)
	u.refused = start.Code != 0
	if remedy := "you may need to restart the daemon"; ctrd.Knows(q, "containerd-shim-runc-v2", remedy) {
		assert.Check(q, u.refused && strings.Contains(start.Stderr, remedy), "the new shim says to an old daemon what to do:\n%s", start)
	}
	if u.refused {
		d.RemoveFIFOs(u.next)
		endStrayShims(q, d, u.next)
	}
	q.Fact(from+": the old daemon can start a task with the new shim", start.Code == 0)
}

// replaceDaemon replaces the daemon that runs. In between, the shim of one task is killed.
func (u *upgrade) replaceDaemon() {
	q, d, from := u.q, u.d, u.from
	q.Helper()
	q.Step("%s: stop containerd, and start the new one over the same root, state and configuration: the processes are the same", from)
	u.stream.TakeEvents()
	files := ctrd.AddressFiles(q, u.running.Bundle)
	for _, v := range u.victims() {
		v.RememberEvents()
	}
	assert.NilError(q, d.Stop())
	waitForOldClients(q, u.running, u.ends, u.killed)
	u.killed.Kill()
	assert.Check(q, cmp.DeepEqual(u.killed.Living(), []string{failure.Init, failure.Exec}), "%s, while containerd is down", u.killed)
	d.Start()
	u.running.AssertSameProcesses()
	u.ends.AssertSameProcesses()
	u.stream = d.Listen()
	for _, v := range u.victims() {
		v.Reconnect(u.stream)
		v.WaitUntilReported()
	}
	assert.Check(q, cmp.Equal(ctrd.ReleaseOf(u.running.Shim.PID), "v"+from), "release of the shim, after the upgrade")
	assert.Check(q, ctrd.ReadsAddressFile(q, files), "the containerd under test reads none of %v in the old bundle", files)
	q.Fact(from+": release of the shim after the upgrade", ctrd.ReleaseOf(u.running.Shim.PID))
	after := ctrd.AddressFiles(q, u.running.Bundle)
	if ctrd.Knows(q, "containerd", "bootstrap.json") {
		assert.Check(q, cmp.Contains(after, "bootstrap.json"), "files with the shim's address, after the upgrade")
	}
	q.Fact(from+": files with the shim's address before", files)
	q.Fact(from+": files with the shim's address after", after)
}

// assertRows asserts what the upgrade promises to tasks whose shim was not killed. The other rows are in the table only.
func (u *upgrade) assertRows(observed map[*failure.Victim]failure.Observation) {
	q, d := u.q, u.d
	q.Helper()
	observed[u.running].AssertRows(u.running, failure.Observation{
		"init": "alive", "exec": "alive", "shim": "alive", "bundle": "there", "rootfs mount": "there", "shim's socket": "there",
		"cgroup": "there", "runtime's state": "there", "new client: task": "RUNNING", "new client: exec": "RUNNING",
		"event 1": "exit between 0 (before)", "event 2": "/tasks/paused", "event 3": "/tasks/resumed",
		"another exec": "works", "a new task": "after kill, delete",
	})
	observed[u.ends].AssertRows(u.ends, failure.Observation{
		"new client: task": "STOPPED 7", "event 2": "exit init 7", "a new task": "after delete",
	})
	observed[u.stopped].AssertRows(u.stopped, failure.Observation{
		"old Wait: task": "7", "container": "there", "new client: task": "no task", "event 2": "-", "a new task": "possible",
	})
	u.running.WaitForEvent("exit init 137")
	task, err := u.running.Task()
	assert.NilError(q, err)
	shim := proc.Snapshot(q, proc.Snapshot(q, proc.PID(task.Pid())).Parent)
	assert.Check(q, slices.Contains(d.Shims(), shim.PID), "the new task has the shim %s, and not the one under test", shim.Exe)
	if u.refused {
		d.StartTaskAndWait(u.next) // nothing but the old daemon was in the way
	}
}

// waitForOldClients waits until the clients of a daemon that was stopped have noticed it.
func waitForOldClients(q *lab.Q, victims ...*failure.Victim) {
	q.Helper()
	for _, v := range victims {
		proc.WaitFor(q, v.TaskWait.Returned())
		proc.WaitFor(q, v.ExecWait.Returned())
	}
}

// pauseAndResume pauses a task and resumes it, and compares its metrics with the cgroup. It returns how many processes the metrics report.
func pauseAndResume(q *lab.Q, d *ctrd.Daemon, v *failure.Victim) (pids string) {
	q.Helper()
	group := cgroup.Of(q, "/"+d.Namespace+"/"+v.ID)
	d.PauseTask(v.ID)
	assert.Check(q, group.Frozen(), "%s: the freezer's state after pause", v)
	d.Ctr("tasks", "resume", v.ID)
	assert.Check(q, group.Thawed(), "%s: the freezer's state after resume", v)
	pids = fmt.Sprint(parseMetricsTable(q, d.Ctr("tasks", "metrics", v.ID).Stdout)["pids"])
	assert.Check(q, cmp.Equal(pids, group.Read("pids", "pids.current")), "%s: pids in the metrics, and in the cgroup", v)
	v.WaitForEvent("/tasks/resumed") // the shim publishes it after it has answered
	return pids
}

// endStrayShims ends the shim that was started for a container whose task could not start. A shim of containerd 2.3 ends by itself if the
// daemon has removed the bundle before the shim opens its log there. It usually does so, but no order is promised.
func endStrayShims(q *lab.Q, d *ctrd.Daemon, id string) {
	q.Helper()
	for _, shim := range proc.FindIdentities(q, func(_ proc.PID, comm string, args []string) bool {
		return strings.HasPrefix(comm, "containerd-shim") && slices.Contains(args, id)
	}) {
		q.LogCommand("kill -KILL %d   # a shim that no containerd knows", shim.PID)
		assert.NilError(q, proc.Kill(shim))
		proc.WaitFor(q, proc.Dead(shim))
	}
	removeStaleSocket(q, filepath.Join(d.SocketDir, d.SocketName(id)))
}

// A task survives a downgrade if the old containerd can find its shim. Tasks with an old shim survive. Tasks that containerd 2 has started
// with the new shim survive a downgrade to 2.0, but containerd 1.7 kills their processes and loses their shims.
//
// A daemon finds a shim by a file in the bundle. containerd 1.7 reads only the file `address`. A bundle of containerd 2 has
// `bootstrap.json` instead. So containerd 1.7 takes the shim for dead, and has runc kill the task. The shim itself runs on, and no
// containerd will ever end it. So drain the node before a downgrade below 2.0. Or keep the old shim on the disk until you are sure that you
// stay with the new containerd: containerd 2.4.2 can start tasks with the shims of 1.7.29 and 2.0.7.
//
// The database is no obstacle. Its schema has version 3 in 1.7.29 and 4 in 2.0.7 and 2.4.2, and 1.7.29 opens version 4. The
// configuration is an obstacle: containerd refuses a configuration file of a newer version. So keep the old file. containerd promises none
// of this: formats of files are not covered by its rules of stability.
//
// Hint: look for bootstrap.json and address in the bundles, which are below the state directory, /run/containerd.
// Spec: https://github.com/containerd/containerd/blob/main/RELEASES.md#not-covered
func TestTask_CanContainerdBeDowngraded(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Can containerd be downgraded?")
	defer q.Recover()
	var columns []*failure.Victim
	observed := map[*failure.Victim]failure.Observation{}
	for _, to := range earlierContainerds {
		q.Run("to-"+to, func(q *lab.Q) {
			if q.UnderTest("containerd").Precedes(to) {
				q.Skipf("the containerd under test is older than %s: TestTask_WhatHappensToRunningTasksWhenContainerdIsUpgraded asks about that", to)
			}
			// containerd 1.7 finds a shim only by the file that a containerd before 2.0 writes.
			survives := strings.HasPrefix(to, "2.") || q.UnderTest("containerd").Precedes("2.0.0")
			g := startDowngrade(q, to)
			g.upgrade()
			g.downgrade()

			q.Step("%s: look at the tasks: a task lives if the old containerd can find its shim", to)
			assert.Assert(q, !g.before.Lost && !g.kept.Lost && !g.ends.Lost, "tasks with an old shim do not survive: %v", g.readable)
			assert.Check(q, cmp.Equal(!g.after.Lost, survives), "%s: containerd %s finds the new shim", g.after, to)
			g.assertProcesses()

			q.Step("%s: use the tasks that survived: pause, resume, metrics and an exit status of the program's own work", to)
			for _, v := range []*failure.Victim{g.before, g.after, g.kept} {
				if !v.Lost {
					q.Fact(v.String()+": processes, by the metrics", pauseAndResume(q, g.d, v))
				}
			}
			g.ends.Kill()
			g.ends.WaitForEvent("exit init 7")
			g.ends.WaitUntilReported()

			q.Step("%s: exec, kill, delete and a new task work, too. For a new task of a container whose shim is lost, end the shim", to)
			maps.Copy(observed, failure.Observe(q, g.d, g.victims()))
			columns = append(columns, g.victims()...)
			g.assertRows(observed)

			q.Control("%s: have the old containerd read the configuration of the new one: it refuses a newer version", to)
			r := q.Exec("containerd", "--config", g.newConfig, "config", "dump")
			assert.Check(q, cmp.Equal(r.Code != 0, g.newVersion > g.oldVersion), "a configuration of version %s, and this one writes %s:\n%s",
				g.newVersion, g.oldVersion, r)
			q.Fact(to+": versions of the configuration, of the old and the new containerd", []string{g.oldVersion, g.newVersion})
		})
	}
	if len(columns) == 0 && !q.Failed() {
		q.Skip("there is no earlier release to downgrade to; the subtests say why")
	}
	if len(columns) == 4*len(earlierContainerds) { // no subtest was skipped, or has failed before
		failure.AssertTable(q, "downgrade.golden", "after the downgrade", columns, observed)
	}
	q.Answer("A task survives a downgrade if the old containerd can find its shim. Tasks with an old shim survive. Tasks that containerd 2 " +
		"has started with the new shim survive a downgrade to 2.0, but containerd 1.7 kills their processes.")
}

// downgrade is an upgrade of a containerd that has tasks, and the way back.
type downgrade struct {
	q      *lab.Q
	to     string // the release
	d      *ctrd.Daemon
	ref    string
	stream *ctrd.Stream // of the daemon that runs now

	before, ends, after, kept *failure.Victim
	readable                  map[string]bool // by the victim: the old daemon reads a file with the shim's address

	schema                 []int64 // versions of the database's schema, before and after the upgrade
	oldVersion, newVersion string  // of the configuration
	newConfig              string  // path of a configuration of the new version
}

func (g *downgrade) victims() []*failure.Victim {
	return []*failure.Victim{g.before, g.ends, g.after, g.kept}
}

func (g *downgrade) victim(killed, name string) *failure.Victim {
	g.q.Helper()
	return failure.NewVictim(g.q, g.d, g.ref, g.stream,
		failure.Death{Killed: killed, Signal: unix.SIGTERM, When: failure.Running, Name: name + " " + g.to})
}

// startDowngrade starts an earlier containerd, and the tasks that it starts.
func startDowngrade(q *lab.Q, to string) *downgrade {
	q.Helper()
	d := ctrd.StartEarlier(q, "to "+to, to)
	g := &downgrade{q: q, to: to, d: d, ref: d.PullImage(), stream: d.Listen(), readable: map[string]bool{}}
	q.Step("%s: start two tasks, and upgrade to the containerd under test", to)
	g.before, g.ends = g.victim(failure.Containerd, "old task"), g.victim(failure.Init, "ends later")
	return g
}

// upgrade starts the containerd under test, and tasks with the new and with the old shim.
func (g *downgrade) upgrade() {
	q, d, to := g.q, g.d, g.to
	q.Helper()
	assert.NilError(q, d.Stop())
	g.schema = []int64{d.SchemaVersion()}
	assert.Check(q, cmp.Equal(g.schema[0], map[string]int64{"1.7.29": 3, "2.0.7": 4}[to]), "version of the schema of containerd %s", to)
	files := ctrd.AddressFiles(q, g.before.Bundle)
	written := map[bool]string{true: "address", false: "bootstrap.json"}[strings.HasPrefix(to, "1.")]
	assert.Check(q, slices.Contains(files, written), "files with the shim's address, written by containerd %s: %v", to, files)
	g.oldVersion = ctrd.ConfigVersion(q)
	q.UseUnderTest()
	g.newVersion = ctrd.ConfigVersion(q)
	d.Start()
	g.stream = d.Listen()

	q.Step("%s: start a task with the new shim, and one with the old shim: the new daemon starts both", to)
	g.after = g.victim(failure.Containerd, "new task")
	q.Use(q.Earlier("containerd-shim-runc-v2", to))
	g.kept = g.victim(failure.Containerd, "new task, old shim")
	for _, v := range []*failure.Victim{g.before, g.ends, g.kept} {
		assert.Check(q, cmp.Equal(ctrd.ReleaseOf(v.Shim.PID), "v"+to), "%s: release of the shim", v)
	}
	q.UseUnderTest("containerd-shim-runc-v2")
	assert.Check(q, slices.Contains(d.Shims(), g.after.Shim.PID), "%s: the shim is not the one under test", g.after)
	g.newConfig = filepath.Join(q.Dir, "new-"+to+".toml")
	assert.NilError(q, os.WriteFile(g.newConfig, []byte(q.Must("containerd", "config", "default").Stdout), 0o644))
	q.Cleanup(func() { assert.Check(q, os.Remove(g.newConfig)) })
}

// downgrade starts the old containerd again.
func (g *downgrade) downgrade() {
	q, d, to := g.q, g.d, g.to
	q.Helper()
	q.Step("%s: stop containerd, put the old files back, and start the old one over the same root and state", to)
	assert.NilError(q, d.Stop())
	waitForOldClients(q, g.victims()...)
	g.schema = append(g.schema, d.SchemaVersion())
	atLeast := map[bool]int64{true: 3, false: 4}[q.UnderTest("containerd").Precedes("2.0.0")] // a later release may have a newer one
	assert.Check(q, g.schema[1] >= atLeast, "version of the schema, after the upgrade from containerd %s: %d, not %d or later",
		to, g.schema[1], atLeast)
	ctrd.UseEarlier(q, to)
	for _, v := range g.victims() {
		files := ctrd.AddressFiles(q, v.Bundle)
		g.readable[v.String()] = ctrd.ReadsAddressFile(q, files)
		v.Lost = !g.readable[v.String()]
		q.Fact(v.String()+": files with the shim's address", files)
		q.Cleanup(func() {
			if v.Lost && v.Shim.Alive() { // no containerd knows it any more
				q.KillProcess(v.Shim)
			}
		})
	}
	d.Start()
	g.stream = d.Listen()
	for _, v := range g.victims() {
		v.Reconnect(g.stream)
	}
	q.Fact(to+": version of the database's schema, before and after the upgrade", g.schema)
}

// assertProcesses asserts that the tasks whose shim the old containerd finds are as before, and that it has killed the others.
func (g *downgrade) assertProcesses() {
	q := g.q
	q.Helper()
	for _, v := range g.victims() {
		if !v.Lost {
			v.AssertSameProcesses()
			v.WaitUntilReported()
			continue
		}
		proc.WaitFor(q, proc.Dead(v.Init.Identity))
		proc.WaitFor(q, proc.Dead(v.Exec.Identity))
		assert.Check(q, cmp.DeepEqual(v.Living(), []string{failure.Shim}), "%s: the processes that live", v)
		status, _ := v.Statuses()
		assert.Check(q, cmp.Equal(status, "no task"), v)
	}
	for _, v := range g.victims() {
		q.Fact(v.String()+": alive after the downgrade", v.Living())
	}
}

// assertRows asserts what can be done with the tasks after the downgrade. The other rows are in the table only.
func (g *downgrade) assertRows(observed map[*failure.Victim]failure.Observation) {
	q, to := g.q, g.to
	q.Helper()
	for _, v := range []*failure.Victim{g.before, g.after, g.kept} {
		want := failure.Observation{
			"new client: task": "RUNNING", "new client: exec": "RUNNING", "event 1": "/tasks/paused", "event 2": "/tasks/resumed",
			"another exec": "works", "a new task": "after kill, delete",
		}
		if v.Lost {
			want = failure.Observation{"container": "there", "new client: task": "no task", "a new task": "after the shim's end"}
		}
		observed[v].AssertRows(v, want)
	}
	observed[g.ends].AssertRows(g.ends, failure.Observation{
		"new client: task": "STOPPED 7", "event 2": "exit init 7", "a new task": "after delete",
	})
	if g.after.Lost {
		task, err := g.after.Task()
		assert.NilError(q, err)
		shim := proc.Snapshot(q, proc.PID(task.Pid())).Parent
		assert.Check(q, cmp.Equal(ctrd.ReleaseOf(shim), "v"+to), "release of the new task's shim")
		q.Fact(to+", container of the lost shim: release of the new task's shim", ctrd.ReleaseOf(shim))
	}
}
