//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/ctrd"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// What runs survives, all of it: shim, program, execs, socket, mount, cgroup. What has stopped does not.
//
// The shim is nobody's child and listens by itself, so a containerd that dies, by whatever signal, takes nothing with
// it. The next one reads the bundles below its state directory, finds in each how its shim is reached, and asks it.
// Clients are on the other side: a Wait and a subscription to events end with an error, and whoever wants to know how
// the task ends has to wait anew.
//
// A stopped task is no running one: as it comes back, containerd takes a shim without processes for one that was left
// over by accident, and deletes the task, which nobody is told of. So its exit status is gone for who has not asked
// before.
//
// Hint: systemctl restart containerd, and look at the shims' pids before and after.
// Spec: https://github.com/containerd/containerd/blob/main/core/runtime/v2/README.md
func TestTask_WhatSurvivesWhenContainerdDies(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What survives when containerd dies?")
	d := ctrd.Start(q)
	ref := d.PullImage()
	var dead []*mortal
	for _, signal := range []unix.Signal{unix.SIGKILL, unix.SIGTERM} {
		name := unix.SignalName(signal)
		q.Step("%s: a running task with an exec, and one that has ended with 7", name)
		ear := d.Listen()
		running := newMortal(q, d, ref, ear, death{"containerd", signal, "running"})
		stopped := newMortal(q, d, ref, ear, death{"containerd", signal, "stopped"})
		ear.TakeEvents()
		address := fileAt(q, ctrd.ShimAddressFile(running.bundle))

		q.Step("%s: containerd dies", name)
		running.remember()
		stopped.remember()
		if signal == unix.SIGKILL {
			d.Kill()
		} else {
			assert.NilError(q, d.Stop())
		}
		q.Control("what does not survive: who waited or listened through containerd ends with an error")
		proc.WaitFor(q, running.wait.over)
		proc.WaitFor(q, running.execWait.over)
		proc.WaitFor(q, ear.Closed())
		assert.Check(q, running.wait.failed() != nil, "the old client's Wait returned %s, and the task runs", running.wait.said())
		q.Fact("the old Wait says", lab.Chance(fmt.Sprint(running.wait.failed())))
		q.Fact("the old subscription says", lab.Chance(fmt.Sprint(ear.Err())))

		q.Step("%s: it is back, and finds the same shim, program and exec, by all that the kernel shows of them", name)
		d.Start()
		again := d.Listen()
		for _, m := range []*mortal{running, stopped} {
			m.now = d.Client()
			m.ears = append(m.ears, again)
			m.settle()
		}
		again.TakeEvents()
		for _, p := range []proc.Process{running.shim, running.init, *running.exec} {
			assert.Assert(q, alive(p.Identity), "process %d (%s) has not survived the death of containerd", p.PID, p.Comm)
			now, then := proc.Snapshot(q, p.PID).Identity, p.Identity
			if p.PID == running.shim.PID {
				now.Mounts, then.Mounts = nil, nil // the host's, which change with every container
			}
			assert.Check(q, cmp.DeepEqual(now, then))
		}
		assert.Check(q, proc.Listens(q, proc.Snapshot(q, running.shim.PID), running.socket))
		assert.Check(q, cmp.DeepEqual(fileAt(q, ctrd.ShimAddressFile(running.bundle)), address), "how the shim is reached")
		q.Fact("same as before", "shim, program, exec, socket, "+filepath.Base(ctrd.ShimAddressFile(running.bundle)))
		dead = append(dead, running, stopped)
	}

	q.Step("what remains; in the end a new client's Wait gets the real status")
	table := fill(q, d, "death-of-containerd.golden", dead)
	kept := false
	for _, m := range dead {
		r := table[m.String()]
		if m.when == "running" {
			for _, process := range []string{"init", "exec", "shim"} {
				assert.Check(q, cmp.Equal(r[process], "alive"), "%s: the %s", m, process)
			}
			for _, thing := range []string{"bundle", "rootfs mount", "shim's socket", "cgroup", "runtime's state", "container"} {
				assert.Check(q, cmp.Equal(r[thing], "there"), "%s: the %s", m, thing)
			}
			assert.Check(q, cmp.Equal(r["new client: task"], "RUNNING"), m)
			assert.Check(q, cmp.Equal(r["new client: exec"], "RUNNING"), m)
			assert.Check(q, cmp.Equal(r["another exec"], "works"), m)
			assert.Check(q, cmp.Equal(r["event 1"], "-"), "%s: an event, and nothing had happened to the task", m)
			continue
		}
		assert.Check(q, cmp.Equal(r["old Wait: task"], "7"), "%s: a client that had asked before", m)
		assert.Check(q, cmp.Equal(r["container"], "there"), m)
		if !q.Pinned() {
			kept = kept || r["new client: task"] == "STOPPED 7" // an older containerd takes it over, with its exit status
			continue
		}
		assert.Check(q, cmp.Equal(r["new client: task"], "no task"), "%s: the exit status can still be asked for", m)
		assert.Check(q, cmp.Equal(r["event 2"], "-"), "%s: somebody is told that the task was deleted", m)
		assert.Check(q, cmp.Equal(r["shim"], "dead"), m)
		assert.Check(q, cmp.Equal(r["bundle"], "gone"), m)
	}
	if kept {
		q.Answer("All of it. Who waited has to ask again.")
		return
	}
	q.Answer("All that runs. Who waited has to ask again, and a task that had stopped is cleared away without a word.")
}

// fileAt is a file as it stands: which one, when it was written, and what it says.
func fileAt(q *lab.Q, path string) []string {
	q.Helper()
	st, err := os.Stat(path)
	assert.NilError(q, err)
	var sys unix.Stat_t
	assert.NilError(q, unix.Stat(path, &sys))
	return []string{fmt.Sprint(sys.Ino), st.ModTime().String(), file.Read(q, path)}
}
