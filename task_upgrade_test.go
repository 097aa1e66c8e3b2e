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
			d := ctrd.StartEarlier(q, "from "+from, from)
			ref, stream := d.PullImage(), d.Listen()
			victim := func(when, name string) *failure.Victim {
				return failure.NewVictim(q, d, ref, stream,
					failure.Death{Killed: failure.Shim, Signal: unix.SIGTERM, When: when, Name: name + " " + from})
			}

			q.Step("%s: start a task with an exec, a task that ends with 7, and a task whose shim will be killed", from)
			running, stopped, killed := victim(failure.Running, "running"), victim(failure.Stopped, "stopped"), victim(failure.Down, "shim killed")
			victims := []*failure.Victim{running, stopped, killed}
			assert.Check(q, cmp.Equal(ctrd.ReleaseOf(running.Shim.PID), "v"+from), "release of the shim")
			assert.Check(q, cmp.DeepEqual(running.Shim.Cgroups, proc.Snapshot(q, d.PID()).Cgroups), "cgroups of the shim, and of the daemon")
			next := q.ID("cdb-next-" + from)
			d.CreateContainer(ref, next, "sleep", "3600")
			stream.TakeEvents()

			q.Step("%s: replace the files, as a package does: the old daemon and the old shims run on, and an exec works", from)
			q.UseUnderTest()
			d.Ctr("tasks", "exec", "--fifo-dir", d.FifoDir, "--exec-id", "between", running.ID, "true")
			running.WaitForEvent("exit between 0")
			assert.Check(q, cmp.Equal(ctrd.ReleaseOf(d.PID()), "v"+from), "release of the daemon that runs")
			start := d.TryCtr("tasks", "start", "-d", "--fifo-dir", d.FifoDir, next)
			refused := start.Code != 0
			if remedy := "you may need to restart the daemon"; ctrd.Knows(q, "containerd-shim-runc-v2", remedy) {
				assert.Check(q, refused && strings.Contains(start.Stderr, remedy), "the new shim says to an old daemon what to do:\n%s", start)
			}
			if refused {
				d.RemoveFIFOs(next)
				endStrayShims(q, d, next)
			}
			q.Fact(from+": the old daemon can start a task with the new shim", start.Code == 0)

			q.Step("%s: stop containerd, and start the new one over the same root, state and configuration: the processes are the same", from)
			stream.TakeEvents()
			files := ctrd.AddressFiles(q, running.Bundle)
			for _, v := range victims {
				v.RememberEvents()
			}
			assert.NilError(q, d.Stop())
			for _, wait := range []*failure.PendingWait{running.TaskWait, running.ExecWait, killed.TaskWait, killed.ExecWait} {
				proc.WaitFor(q, wait.Returned())
			}
			killed.Kill()
			assert.Check(q, cmp.DeepEqual(killed.Living(), []string{failure.Init, failure.Exec}), "%s, while containerd is down", killed)
			d.Start()
			running.AssertSameProcesses()
			streamAfter := d.Listen()
			for _, v := range victims {
				v.Reconnect(streamAfter)
				v.WaitUntilReported()
			}
			assert.Check(q, cmp.Equal(ctrd.ReleaseOf(running.Shim.PID), "v"+from), "release of the shim, after the upgrade")
			assert.Check(q, ctrd.ReadsAddressFile(q, files), "the containerd under test reads none of %v in the old bundle", files)
			q.Fact(from+": release of the shim after the upgrade", ctrd.ReleaseOf(running.Shim.PID))
			q.Fact(from+": files with the shim's address before", files)
			q.Fact(from+": files with the shim's address after", ctrd.AddressFiles(q, running.Bundle))

			q.Step("%s: pause, resume and read the metrics of the old task through the new containerd", from)
			group := cgroup.Of(q, "/"+d.Namespace+"/"+running.ID)
			d.PauseTask(running.ID)
			assert.Check(q, group.Frozen(), "%s: the freezer's state after pause", running)
			d.Ctr("tasks", "resume", running.ID)
			assert.Check(q, group.Thawed(), "%s: the freezer's state after resume", running)
			pids := fmt.Sprint(parseMetricsTable(q, d.Ctr("tasks", "metrics", running.ID).Stdout)["pids"])
			assert.Check(q, cmp.Equal(pids, group.Read("pids", "pids.current")), "%s: pids in the metrics, and in the cgroup", running)
			q.Fact(from+": processes, by the metrics of the old shim", pids)
			streamAfter.WaitFor("/tasks/resumed") // the shim publishes it after it has answered
			streamAfter.TakeEvents()

			q.Step("%s: run an exec, kill the task, delete it, and start a new one: the new task has the new shim", from)
			maps.Copy(observed, failure.Observe(q, d, victims))
			columns = append(columns, victims...)
			observed[running].AssertRows(running, failure.Observation{
				"init": "alive", "exec": "alive", "shim": "alive", "bundle": "there", "rootfs mount": "there", "shim's socket": "there",
				"cgroup": "there", "runtime's state": "there", "new client: task": "RUNNING", "new client: exec": "RUNNING",
				"event 1": "exit between 0 (before)", "event 2": "/tasks/paused", "event 3": "/tasks/resumed",
				"another exec": "works", "a new task": "after kill, delete",
			})
			observed[stopped].AssertRows(stopped, failure.Observation{
				"old Wait: task": "7", "container": "there", "new client: task": "no task", "event 2": "-", "a new task": "possible",
			})
			running.WaitForEvent("exit init 137")
			task, err := running.Task()
			assert.NilError(q, err)
			shim := proc.Snapshot(q, proc.Snapshot(q, proc.PID(task.Pid())).Parent)
			assert.Check(q, slices.Contains(d.Shims(), shim.PID), "the new task has the shim %s, and not the one under test", shim.Exe)
			if refused {
				d.StartTaskAndWait(next) // nothing but the old daemon was in the way
			}

			q.Control("%s: look at the task whose shim was killed with the daemon, as systemd does by default: the new containerd kills it", from)
			observed[killed].AssertRows(killed, failure.Observation{
				"init": "dead", "exec": "dead", "shim": "dead", "bundle": "gone", "rootfs mount": "gone", "cgroup": "gone",
				"runtime's state": "gone", "container": "there", "new client: task": "no task", "event 1": "-", "a new task": "possible",
			})
			q.Fact(from+": processes of the task whose shim was killed, after the upgrade", killed.Living())
		})
	}
	if len(columns) == 0 && !q.Failed() {
		q.Skip("there is no earlier release to upgrade from; the subtests say why")
	}
	if len(columns) == 3*len(earlierContainerds) { // no subtest was skipped, or has failed before
		failure.AssertTable(q, "upgrade.golden", "after the upgrade", columns, observed)
	}
	q.Answer("Running tasks run on with their old shims, and the new containerd uses them. A task with a shim of its own gets the new shim " +
		"when it is started again; a pod, when its sandbox is replaced. Restart the daemon as soon as its files are replaced, without " +
		"killing the shims.")
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
	asked := 0
	for _, to := range earlierContainerds {
		q.Run("to-"+to, func(q *lab.Q) {
			if q.UnderTest("containerd").Precedes(to) {
				q.Skipf("the containerd under test is older than %s: TestTask_WhatHappensToRunningTasksWhenContainerdIsUpgraded asks about that", to)
			}
			// containerd 1.7 finds a shim only by the file that a containerd before 2.0 writes.
			survives := strings.HasPrefix(to, "2.") || q.UnderTest("containerd").Precedes("2.0.0")
			d := ctrd.StartEarlier(q, "to "+to, to)
			asked++
			ref, stream := d.PullImage(), d.Listen()
			victim := func(name string) *failure.Victim {
				return failure.NewVictim(q, d, ref, stream,
					failure.Death{Killed: failure.Containerd, Signal: unix.SIGTERM, When: failure.Running, Name: name + " " + to})
			}

			q.Step("%s: start a task, and upgrade to the containerd under test", to)
			before := victim("started before the upgrade from")
			assert.NilError(q, d.Stop())
			schema := []int64{d.SchemaVersion()}
			assert.Check(q, cmp.Equal(schema[0], map[string]int64{"1.7.29": 3, "2.0.7": 4}[to]), "version of the schema of containerd %s", to)
			files := ctrd.AddressFiles(q, before.Bundle)
			written := map[bool]string{true: "address", false: "bootstrap.json"}[strings.HasPrefix(to, "1.")]
			assert.Check(q, slices.Contains(files, written), "files with the shim's address, written by containerd %s: %v", to, files)
			oldConfig := ctrd.ConfigVersion(q)
			q.UseUnderTest()
			newConfig := ctrd.ConfigVersion(q)
			d.Start()
			stream = d.Listen()

			q.Step("%s: start a task with the new shim, and one with the old shim: the new daemon starts both", to)
			after := victim("started after the upgrade from")
			q.Use(q.Earlier("containerd-shim-runc-v2", to))
			kept := victim("started with the shim of")
			victims := []*failure.Victim{before, after, kept}
			for _, v := range []*failure.Victim{before, kept} {
				assert.Check(q, cmp.Equal(ctrd.ReleaseOf(v.Shim.PID), "v"+to), "%s: release of the shim", v)
			}
			q.UseUnderTest("containerd-shim-runc-v2")
			assert.Check(q, slices.Contains(d.Shims(), after.Shim.PID), "%s: the shim is not the one under test", after)
			config := filepath.Join(q.Dir, "new-"+to+".toml")
			assert.NilError(q, os.WriteFile(config, []byte(q.Must("containerd", "config", "default").Stdout), 0o644))
			q.Cleanup(func() { assert.Check(q, os.Remove(config)) })

			q.Step("%s: stop containerd, put the old files back, and start the old one over the same root and state", to)
			assert.NilError(q, d.Stop())
			schema = append(schema, d.SchemaVersion())
			assert.Check(q, schema[1] >= schema[0], "version of the schema, before and after the upgrade: %v", schema)
			ctrd.UseEarlier(q, to)
			readable := map[*failure.Victim]bool{}
			for _, v := range victims {
				files := ctrd.AddressFiles(q, v.Bundle)
				readable[v] = ctrd.ReadsAddressFile(q, files)
				q.Fact(v.String()+": files with the shim's address", files)
			}
			d.Start()
			stream = d.Listen()
			for _, v := range victims {
				v.Reconnect(stream)
			}
			for _, v := range victims {
				q.Cleanup(func() {
					if !readable[v] && v.Shim.Alive() { // no containerd knows it any more
						q.KillProcess(v.Shim)
					}
				})
			}
			q.Fact(to+": version of the database's schema, before and after the upgrade", schema)

			q.Step("%s: look at the tasks: a task lives if the old containerd can find its shim", to)
			var survivors []*failure.Victim
			for _, v := range victims {
				if readable[v] {
					survivors = append(survivors, v)
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
			for _, v := range victims {
				q.Fact(v.String()+": alive after the downgrade", v.Living())
			}
			assert.Check(q, readable[before] && readable[kept], "tasks with an old shim do not survive: %v", readable)
			assert.Check(q, cmp.Equal(readable[after], survives), "%s: containerd %s finds the new shim", after, to)

			q.Step("%s: use the tasks that survived: exec, kill, delete and a new task work", to)
			for v, seen := range failure.Observe(q, d, survivors) {
				seen.AssertRows(v, failure.Observation{"another exec": "works", "a new task": "after kill, delete"})
			}

			if !readable[after] {
				q.Control("%s: end the shim that was lost, and start the container again: it works", to)
				if after.Shim.Alive() {
					q.KillProcess(after.Shim)
					proc.WaitFor(q, proc.Dead(after.Shim.Identity))
				}
				d.StartTask(after.ID)
				shim := proc.Snapshot(q, d.TaskPID(after.ID)).Parent
				assert.Check(q, cmp.Equal(ctrd.ReleaseOf(shim), "v"+to), "release of the new task's shim")
				q.Fact(to+", container of the lost shim: release of the new task's shim", ctrd.ReleaseOf(shim))
			}

			q.Control("%s: have the old containerd read the configuration of the new one: it refuses a newer version", to)
			r := q.Exec("containerd", "--config", config, "config", "dump")
			assert.Check(q, cmp.Equal(r.Code != 0, newConfig > oldConfig), "a configuration of version %s, and this one writes %s:\n%s",
				newConfig, oldConfig, r)
			q.Fact(to+": versions of the configuration, of the old and the new containerd", []string{oldConfig, newConfig})
		})
	}
	if asked == 0 && !q.Failed() {
		q.Skip("there is no earlier release to downgrade to; the subtests say why")
	}
	q.Answer("A task survives a downgrade if the old containerd can find its shim. Tasks with an old shim survive. Tasks that containerd 2 " +
		"has started with the new shim survive a downgrade to 2.0, but containerd 1.7 kills their processes.")
}
