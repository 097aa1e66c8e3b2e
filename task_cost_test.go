//go:build linux && vmlab

package cdblab

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/ctrd"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// By one shim a task, a few megabytes each, while the daemon hardly grows: what a task costs is its shim, not its program.
//
// The shims' text is in memory once, and each has its own heap and stacks: so the first is the dearest, and the rest are
// equal. A container without a task costs a record and a snapshot, and no process.
//
// Hint: compare Pss with Rss in /proc/PID/smaps_rollup of a shim: which part of it do the others share?
// Spec: https://github.com/containerd/containerd/blob/main/core/runtime/v2/README.md
// Kernel: https://docs.kernel.org/filesystems/proc.html, smaps_rollup
func TestTask_HowDoesTheCostGrowWithTasks(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "How does the cost grow with tasks?", lab.Alone("it measures memory and time"))
	defer q.Recover()
	tasks := ctrd.NewTaskSet(q)
	var costs []ctrd.Cost
	var perTask time.Duration // of the last tasks that were started, on the wall, with some started at the same time

	grow := func(q *lab.Q, n int) {
		q.Helper()
		begin := time.Now()
		took := tasks.Grow(q, n)
		perTask = time.Since(begin) / time.Duration(len(took))
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
			daemonGrowth, moreTasks := now.Daemon-first.Daemon, proc.Bytes(n-first.Tasks)
			assert.Check(q, daemonGrowth < moreTasks*now.Shim, "the daemon has grown by %v, as much as %d shims of %v",
				daemonGrowth, moreTasks, now.Shim)
		}
		costs = append(costs, now)
	}
	// skipUnlessRoomFor skips a subtest in which n tasks would take more memory than there is, or very long. It expects of
	// each further task what the last ones took.
	skipUnlessRoomFor := func(q *lab.Q, n int) {
		q.Helper()
		const spare, patience = 64 << 20, 15 * time.Second // no wait is as long: it is what a reader may be made to wait for
		last := costs[len(costs)-1]
		more := n - last.Tasks
		need := proc.Bytes(more)*(last.Shim+last.Program)*3/2 + spare // half as much again for what the kernel needs for each
		if available := proc.AvailableMemory(q); available < need {
			q.Skipf("%d more tasks need %v, and %v are available: look with MEM=1024, or where there is more memory", more, need, available)
		}
		if duration := time.Duration(more) * perTask; duration > patience {
			q.Skipf("%d more tasks would take %v here: look on a machine that is quicker (with KVM, or make lab-here)",
				more, duration.Round(time.Second))
		}
	}

	q.Step("one task")
	grow(q, 1)
	q.Step("ten")
	grow(q, 10)
	q.Run("50 tasks", func(q *lab.Q) {
		q.Step("fifty")
		skipUnlessRoomFor(q, 50)
		grow(q, 50)
	})

	q.Control("the tasks are deleted, the containers stay: no task has a process left")
	tasks.DeleteTasks(q, 0)
	records, err := tasks.Daemon.Client().Containers(namespaces.WithNamespace(context.Background(), tasks.Daemon.Namespace))
	assert.NilError(q, err)
	assert.Check(q, cmp.Len(records, len(tasks.PIDs())))
	proc.WaitFor(q, tasks.Daemon.HasShims(0))
	for _, pid := range tasks.PIDs() {
		assert.Check(q, !proc.Alive(pid), "the process of a deleted task is alive: %d", pid)
	}
	none := tasks.Cost(q, 0)
	assert.Check(q, cmp.Equal(none.AllShims, proc.Bytes(0)))
	q.Fact("shims of containers without a task", none.Shims)
	tasks.DeleteContainers(q, 0)

	q.Answer("With the shims: one a task, a few MB each, of which the text is shared. The daemon hardly grows.")
}
