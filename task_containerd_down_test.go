//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/poll"

	"cdblab/helpers/ctrd"
	"cdblab/helpers/file"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// It is gone when containerd comes back: no task, no exit status, no event.
//
// While containerd is down the shim does what it always does: it takes the exit status and keeps it, and for 15 s it
// tries to tell of the exit. But containerd, as it comes back, asks each shim for its processes, and takes one that has
// none for a leftover: the task is deleted before anybody can ask how it ended, and the shim ends with what it had to
// tell. Where the task itself lives on and only an exec has died, nothing is lost: its exit status can be asked for,
// and its exit is told, late, to who listens by then.
//
// A shim that dies meanwhile leaves its processes behind, and they run on as orphans. It is containerd's return that
// kills them, and since it knows of no task yet, it tells nobody.
//
// Hint: stop containerd, kill the program or its shim, look with ps and into the bundle, before containerd is started.
// Spec: https://github.com/containerd/containerd/blob/main/core/runtime/v2/README.md
func TestTask_WhatIfTheTaskEndsWhileContainerdIsDown(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "What if the task ends while containerd is down?")
	// At this level its log has a line for each event that a shim tells, whether anybody listens or not.
	d := ctrd.Start(q, ctrd.With("[debug]\n  level = \"trace\""))
	ref := d.PullImage()
	ear := d.Listen()

	q.Step("six running tasks, each with an exec")
	var dead []*mortal
	for _, who := range []string{"init", "shim", "exec"} {
		dead = append(dead, newMortal(q, d, ref, ear, death{who, unix.SIGKILL, "down"}), newMortal(q, d, ref, ear, death{who, unix.SIGTERM, "down"}))
	}
	ofInit, ofShim, ofExec := dead[:2], dead[2:4], dead[4:]
	ear.Mark()

	q.Step("containerd is killed, and then one process of each task")
	d.Kill()
	died := time.Now()
	for _, m := range dead {
		proc.WaitFor(q, m.wait.over)
		proc.WaitFor(q, m.execWait.over)
		m.die()
	}
	for _, m := range ofInit {
		proc.WaitFor(q, proc.Dead(m.exec.Identity))
		assert.Check(q, alive(m.shim.Identity), "%s: the shim", m)
		assertWritten(q, m, map[unix.Signal]string{unix.SIGKILL: "137", unix.SIGTERM: "7"}[m.signal])
	}
	q.Fact("while it is down, without init", "the exec is dead, the shim lives and has the exit status")

	q.Step("without a shim, init and exec run on, and whoever takes in orphans is their parent")
	adopter := proc.OrphanReaper(q)
	for _, m := range ofShim {
		for _, p := range []proc.Process{m.init, *m.exec} {
			now := proc.Snapshot(q, p.PID)
			assert.Check(q, now.Same(p.Identity))
			assert.Check(q, cmp.Equal(now.Parent, adopter), "%s: parent of process %d", m, p.PID)
		}
		assert.Check(q, file.Exists(m.bundle) && m.hasCgroup(), "%s: bundle and cgroup", m)
	}
	q.Fact("while it is down, without a shim", "init and exec live")
	q.Fact("their parent", adopter)
	logged := len(d.Log())

	q.Step("containerd is back: somebody listens as soon as it answers")
	d.Start()
	const triesFor = (1 + 2 + 3 + 4 + 5) * time.Second // so long a shim tries to tell
	gaveUp := time.Since(died) > triesFor
	late := d.Listen()
	for _, m := range dead {
		m.now = d.Client()
		m.ears = append(m.ears, late)
		m.settle()
	}

	q.Step("what a shim still has to tell, it tries to tell until it is heard")
	toTell := map[*mortal][]string{}
	n := 0
	for _, m := range dead {
		m.once = !q.Pinned()
		toTell[m] = m.toTell()
		n += len(toTell[m])
	}
	proc.WaitFor(q, func(poll.LogT) poll.Result {
		if told := exitsForwarded(d.Log()[logged:]); told < n && !gaveUp {
			return poll.Continue("containerd's log has %d exits that shims have told it, of %d", told, n)
		}
		return poll.Success()
	})
	late.Mark()
	if q.Pinned() {
		told := exitsForwarded(d.Log()[logged:])
		assert.Check(q, told == len(ofExec) || gaveUp && told < len(ofExec), "shims have told %d exits; %d execs have died", told, len(ofExec))
	}
	for _, m := range dead {
		heard := m.events()
		for _, e := range toTell[m] {
			if slices.Contains(heard, e) {
				q.Fact(m.String()+", "+e, lab.Chance("told late"))
				continue
			}
			// In the moment between containerd's start and ours, as its log shows: not the table's matter.
			m.unheard = append(m.unheard, e)
			if gaveUp {
				q.Fact(m.String()+", "+e, lab.Chance("given up: containerd was down for too long"))
			} else {
				q.Fact(m.String()+", "+e, lab.Chance("told before anybody listened"))
			}
		}
	}

	q.Step("what remains")
	table := fill(q, d, "death-while-containerd-is-down.golden", dead)
	for _, m := range ofShim {
		r := table[m.String()]
		for _, process := range []string{"init", "exec"} {
			assert.Check(q, cmp.Equal(r[process], "dead"), "%s: the orphaned %s is killed when containerd comes back", m, process)
		}
		for _, thing := range []string{"bundle", "rootfs mount", "cgroup", "runtime's state"} {
			assert.Check(q, cmp.Equal(r[thing], "gone"), "%s: the %s", m, thing)
		}
		assert.Check(q, cmp.Equal(r["new client: task"], "no task"), m)
	}
	for _, m := range ofInit {
		r := table[m.String()]
		assert.Check(q, cmp.Equal(r["exec"], "dead"), "%s: the exec died with pid 1", m)
		if q.Pinned() {
			assert.Check(q, cmp.Equal(r["new client: task"], "no task"), "%s: the exit status can still be asked for", m)
			assert.Check(q, cmp.Equal(r["shim"], "dead"), "%s: the shim, whose task is deleted", m)
			assert.Check(q, cmp.Equal(r["bundle"], "gone"), m)
		}
	}
	kept := false
	for _, m := range append(ofInit[:2:2], ofShim...) {
		r := table[m.String()]
		lost := r["new client: task"] == "no task" // an older containerd takes a stopped task over
		assert.Check(q, cmp.Equal(r["event 1"] == "-", lost), "%s: a task that is lost ends without an event: %s", m, r)
		assert.Check(q, cmp.Equal(r["container"], "there"), m)
		kept = kept || !lost
	}

	q.Control("an exec's death: the task is not over, so containerd keeps it, and knows of the exec's end")
	for _, m := range ofExec {
		r := table[m.String()]
		want := fmt.Sprint(128 + int(m.signal))
		assert.Check(q, cmp.Equal(r["new client: task"], "RUNNING"), m)
		assert.Check(q, cmp.Equal(r["new client: exec"], "STOPPED "+want), m)
		assert.Check(q, cmp.Equal(r["event 1"], "exit exec "+want), m)
		assert.Check(q, cmp.Equal(r["another exec"], "works"), m)
		assert.Check(q, cmp.Equal(alive(m.shim.Identity), false), "%s: its shim, after the task was deleted for a new one", m)
	}
	for _, m := range dead {
		assert.Check(q, m.wait.failed() != nil && m.execWait.failed() != nil, "%s: Wait of the client that was there before", m)
	}
	q.Fact("clients that waited", "all get an error")

	if kept {
		q.Answer("Its shim keeps the exit status, and tells of it late. With the shim both are lost, and the task is killed.")
		return
	}
	q.Answer("Then it never was: no task, no exit status, no event. Only an exec's end outlasts it, in a shim whose task runs.")
}

// toTell lists the exits that the task's shim must tell of, as the table writes them: who asks is told of the same.
func (m *mortal) toTell() []string {
	var out []string
	task, exec := m.sees()
	if status, ok := strings.CutPrefix(exec, "STOPPED "); ok {
		out = append(out, "exit exec "+status)
	}
	if status, ok := strings.CutPrefix(task, "STOPPED "); ok {
		out = append(out, "exit init "+status)
	}
	return out
}

// exitsForwarded counts the exits that shims have told containerd of, by containerd's log.
func exitsForwarded(log string) int {
	n := 0
	for line := range strings.Lines(log) {
		if strings.Contains(line, `msg="event forwarded"`) && strings.Contains(line, "topic=/tasks/exit") {
			n++
		}
	}
	return n
}
