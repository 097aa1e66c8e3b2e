//go:build linux && vmlab

package cdblab

import (
	"context"
	"fmt"
	"runtime"
	"testing"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/ctrd"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// The cost grows by one shim a task, a few megabytes each, while the daemon hardly grows. A program as small as sleep costs less than its
// shim.
//
// The shims' text is in memory once, and each has its own heap and stacks. So the first shim adds the most memory, and each further one
// adds about the same. A container without a task costs a record and a snapshot, and no process.
//
// Hint: compare Pss with Rss in /proc/PID/smaps_rollup of a shim: which part of it do the others share?
// Spec: https://github.com/containerd/containerd/blob/main/docs/runtime-v2.md#shimengine-relationship
// Kernel: https://docs.kernel.org/filesystems/proc.html, smaps_rollup
func TestTask_HowDoesTheCostGrowWithTasks(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "How does the cost grow with tasks?", lab.Alone("it measures memory and time"))
	defer q.Recover()
	tasks := ctrd.NewTaskSet(q)
	descriptors := proc.DescriptorKinds(q, tasks.Daemon.PID())
	var costs []ctrd.Cost
	grow := func(n int) {
		t.Helper()
		took := tasks.Grow(q, n)
		now := tasks.Cost(q, n)
		q.Fact(fmt.Sprintf("%d: shims", n), now.Shims)
		q.Fact(fmt.Sprintf("%d: a shim, a program, the daemon", n), []proc.Bytes{now.Shim, now.Program, now.Daemon})
		q.Fact(fmt.Sprintf("%d: all shims", n), now.AllShims)
		q.Fact(fmt.Sprintf("%d: start of a task, median", n), lab.Elapsed(ctrd.Median(took)))
		if len(costs) > 0 {
			first, last := costs[0], costs[len(costs)-1]
			assert.Check(q, now.AllShims > last.AllShims, "memory of %d shims is %v, of %d it was %v",
				n, now.AllShims, last.Tasks, last.AllShims)
			// Where another daemon's shims run the same file, the question's first shim shares with those already.
			if len(tasks.Daemon.OtherShims()) == 0 {
				assert.Check(q, now.Shim < first.Shim, "a shim of %d has %v, a single one %v: they share nothing", n, now.Shim, first.Shim)
			}
		}
		// Measured: 16 MB for a single shim, which has the text alone, and 4 to 5 MB for one of sixteen.
		assert.Check(q, now.Shim < 32<<20 && now.Shim > now.Program, "a shim of %d has %v, and the program has %v", n, now.Shim, now.Program)
		costs = append(costs, now)
	}

	q.Step("start one task: its shim has all of its memory for itself")
	grow(1)
	threads := proc.Snapshot(q, tasks.Daemon.PID()).Threads
	q.Step("start tasks until there are four: a shim shares its text with the others")
	grow(4)
	q.Step("start tasks until there are sixteen: a shim takes a few MB, and the daemon has hardly grown")
	grow(16)
	q.Step("look at the threads: a shim has about a dozen, and the daemon has no additional one for each task")
	assertFewThreads(q, tasks.Daemon, threads)

	first, last := costs[0], costs[len(costs)-1]
	assert.Check(q, last.Shim < 10<<20, "a shim of sixteen has %v, expected a few MB", last.Shim)
	// Measured: 2 MB for fifteen more tasks, while all shims have 74 MB. Go's garbage collector alone may make a few MB of difference.
	// Its share of the program's text would grow as well if another containerd that runs the same file ended meanwhile.
	grown := last.DaemonHeap - first.DaemonHeap
	assert.Check(q, grown < last.AllShims/4, "the daemon has grown by %v from one task to %d, and the shims have %v",
		grown, last.Tasks, last.AllShims)

	q.Control("delete the tasks and keep the containers: no task has a process left, and the daemon no descriptor of it")
	tasks.DeleteTasks(q, 0)
	records, err := tasks.Daemon.Client().Containers(namespaces.WithNamespace(context.Background(), tasks.Daemon.Namespace))
	assert.NilError(q, err)
	assert.Check(q, cmp.Len(records, len(tasks.PIDs())))
	proc.WaitFor(q, tasks.Daemon.HasShims(0))
	for _, pid := range tasks.PIDs() {
		assert.Check(q, !proc.Alive(pid), "the process of a deleted task is alive: %d", pid)
	}
	none := tasks.Cost(q, 0)
	q.Fact("shims of containers without a task", none.Shims)
	tasks.DeleteContainers(q, 0)
	// With one for each task there would be sixteen more. A few may come and go: of the client's own connection, of the database.
	proc.WaitFor(q, proc.HasNoMoreDescriptors(tasks.Daemon.PID(), descriptors, 7))

	q.Answer("The cost of tasks grows with the number of shims: each task has one, which takes a few MB beside the text that all of them " +
		"share. The daemon hardly grows.")
}

// assertFewThreads asserts that neither the daemon nor a shim of sixteen tasks has a thread for each of them. Go makes a thread when all
// others wait in system calls, and keeps it; its garbage collector may use one for each processor. So the number differs from run to run.
func assertFewThreads(q *lab.Q, d *ctrd.Daemon, withOneTask int) {
	q.Helper()
	most := 0
	for _, shim := range d.Shims() {
		most = max(most, proc.Snapshot(q, shim).Threads)
	}
	const few = 32 // measured: 12; the helper starts the shim with GOMAXPROCS=4
	assert.Check(q, most < few, "a shim of one task has %d threads, expected a dozen", most)
	q.Fact(fmt.Sprintf("16: each shim has fewer than %d threads", few), most < few)
	grown := proc.Snapshot(q, d.PID()).Threads - withOneTask
	assert.Check(q, grown < 15+runtime.NumCPU(), "the daemon has %d threads more with sixteen tasks than with one", grown)
	q.Fact("16: the daemon has fewer additional threads than there are tasks and processors", grown < 15+runtime.NumCPU())
}
