//go:build linux && vmlab

package cdblab

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
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
	c := newCrowd(q)
	var costs []cost

	step := func(q *lab.Q, n int) {
		q.Helper()
		begin := time.Now()
		took := c.grow(q, n)
		all := time.Since(begin)
		now := c.cost(q, n)
		now.perTask = all / time.Duration(len(took))
		q.Fact(fmt.Sprintf("%d: shims", n), now.shims)
		q.Fact(fmt.Sprintf("%d: a shim, a program, the daemon", n), []proc.Bytes{now.shim, now.program, now.daemon})
		q.Fact(fmt.Sprintf("%d: all shims", n), now.sum)
		q.Fact(fmt.Sprintf("%d: start of a task, median", n), lab.Elapsed(median(took)))
		if len(costs) > 0 {
			first, last := costs[0], costs[len(costs)-1]
			assert.Check(q, now.sum > last.sum, "memory of %d shims is %v, of %d it was %v", n, now.sum, last.n, last.sum)
			assert.Check(q, now.shim < first.shim, "a shim of %d has %v, a single one %v: they share nothing", n, now.shim, first.shim)
			grown, more := now.daemon-first.daemon, proc.Bytes(n-first.n)
			assert.Check(q, grown < more*now.shim, "the daemon has grown by %v, as much as %d shims of %v", grown, more, now.shim)
		}
		costs = append(costs, now)
	}

	q.Step("one task")
	step(q, 1)
	q.Step("ten")
	step(q, 10)
	q.Run("50 tasks", func(q *lab.Q) {
		q.Step("fifty")
		c.roomFor(q, 50, costs[1])
		step(q, 50)
	})

	q.Control("the tasks are deleted, the containers stay: no process is left of any")
	c.endTasks(q, c.all)
	records, err := c.d.Client().Containers(c.ctx)
	assert.NilError(q, err)
	assert.Check(q, cmp.Len(records, len(c.all)))
	proc.WaitFor(q, c.d.HasShims(0))
	for _, m := range c.all {
		assert.Check(q, !proc.Alive(m.pid), "the process of a deleted task is alive: %d", m.pid)
	}
	none := c.cost(q, 0)
	assert.Check(q, cmp.Equal(none.sum, proc.Bytes(0)))
	q.Fact("shims of containers without a task", none.shims)
	c.deleteContainers(q, 0)

	q.Answer("With the shims: one a task, a few MB each, of which the text is shared. The daemon hardly grows.")
}

// cost is what a number of tasks cost at one moment: memory as PSS, of a shim and a program the median.
type cost struct {
	n, shims              int
	shim, program, daemon proc.Bytes
	sum                   proc.Bytes    // of all shims
	perTask               time.Duration // on the wall, with some started at once
}

// crowd is a number of tasks of one image, which does nothing.
type crowd struct {
	d     *ctrd.Daemon
	ctx   context.Context
	image containerd.Image
	all   []*member
}

type member struct {
	container containerd.Container
	task      containerd.Task
	pid       proc.PID
}

func newCrowd(q *lab.Q) *crowd {
	q.Helper()
	d := ctrd.Start(q) // so that its memory is this question's alone
	ref := d.PullImage()
	c := &crowd{d: d, ctx: namespaces.WithNamespace(context.Background(), d.Namespace)}
	var err error
	c.image, err = d.Client().GetImage(c.ctx, ref)
	assert.NilError(q, err)
	return c
}

// atOnce is how many tasks are started, or deleted, at the same time.
const atOnce = 4

// atOnceFor does something for each of several, some at once, and returns how long each took.
func atOnceFor[T any](q *lab.Q, all []T, do func(T) error) []time.Duration {
	q.Helper()
	var wg sync.WaitGroup
	took, errs, slots := make([]time.Duration, len(all)), make([]error, len(all)), make(chan struct{}, atOnce)
	for i, one := range all {
		slots <- struct{}{}
		wg.Go(func() {
			took[i] = timed(func() { errs[i] = do(one) })
			<-slots
		})
	}
	wg.Wait()
	for _, err := range errs {
		assert.NilError(q, err)
	}
	return took
}

// grow starts tasks until there are n, and returns how long each took to start.
func (c *crowd) grow(q *lab.Q, n int) []time.Duration {
	q.Helper()
	q.LogCommand("# client.NewContainer, container.NewTask(ctx, cio.NullIO), task.Start, until there are %d tasks", n)
	var more []*member
	for range n - len(c.all) {
		m := &member{}
		more = append(more, m)
		c.all = append(c.all, m)
	}
	ids := map[*member]string{}
	for i, m := range c.all {
		ids[m] = q.ID(fmt.Sprintf("cdb-task-%d", i+1))
	}
	atOnceFor(q, more, func(m *member) error { return c.create(m, ids[m]) })
	return atOnceFor(q, more, c.start)
}

func (c *crowd) create(m *member, id string) error {
	options := &runcoptions.Options{}
	if c.d.CanSetRuncRoot() {
		options.Root = c.d.RuncRoot
	}
	var err error
	m.container, err = c.d.Client().NewContainer(c.ctx, id,
		containerd.WithNewSnapshot(id, c.image),
		containerd.WithRuntime("io.containerd.runc.v2", options),
		containerd.WithNewSpec(oci.WithImageConfig(c.image), oci.WithProcessArgs("sleep", "300")))
	return err
}

func (c *crowd) start(m *member) error {
	task, err := m.container.NewTask(c.ctx, cio.NullIO)
	if err != nil {
		return err
	}
	m.task, m.pid = task, proc.PID(task.Pid())
	return task.Start(c.ctx)
}

// endTasks kills and deletes tasks.
func (c *crowd) endTasks(q *lab.Q, of []*member) {
	q.Helper()
	q.LogCommand("# task.Delete(ctx, containerd.WithProcessKill), of %d", len(of))
	atOnceFor(q, of, func(m *member) error { _, err := m.task.Delete(c.ctx, containerd.WithProcessKill); return err })
}

// deleteContainers deletes those that have no task, from the n-th on.
func (c *crowd) deleteContainers(q *lab.Q, n int) {
	q.Helper()
	atOnceFor(q, c.all[n:], func(m *member) error { return m.container.Delete(c.ctx, containerd.WithSnapshotCleanup) })
	c.all = c.all[:n]
}

// shrink ends tasks until there are n.
func (c *crowd) shrink(q *lab.Q, n int) {
	q.Helper()
	c.endTasks(q, c.all[n:])
	c.deleteContainers(q, n)
	proc.WaitFor(q, c.d.HasShims(n))
}

// cost looks what there is.
func (c *crowd) cost(q *lab.Q, n int) cost {
	q.Helper()
	now := cost{n: n, daemon: proc.PSS(q, c.d.PID())}
	var shims, programs []proc.Bytes
	for _, shim := range c.d.Shims() {
		shims = append(shims, proc.PSS(q, shim))
		now.sum += shims[len(shims)-1]
	}
	now.shims = len(shims)
	assert.Equal(q, now.shims, n, "shims of %d tasks", n)
	if n > 0 {
		for _, m := range c.all {
			proc.WaitFor(q, proc.Runs(m.pid, "sleep"))
			proc.WaitFor(q, proc.IsInState(m.pid, "S")) // it has got what it needs
			programs = append(programs, proc.PSS(q, m.pid))
		}
		now.shim, now.program = middle(shims), middle(programs)
	}
	return now
}

func middle(sizes []proc.Bytes) proc.Bytes {
	slices.Sort(sizes)
	return sizes[len(sizes)/2]
}

// roomFor skips the part where n tasks would take more memory than there is, or very long, by what the last ones took.
func (c *crowd) roomFor(q *lab.Q, n int, last cost) {
	q.Helper()
	const spare, patience = 64 << 20, 15 * time.Second
	need := proc.Bytes(n-last.n)*(last.shim+last.program)*3/2 + spare // and what the kernel needs for each
	if free := proc.AvailableMemory(q); free < need {
		q.Skipf("%d more tasks need %v, and %v are available: look with MEM=1024, or where there is more memory", n-last.n, need, free)
	}
	if long := time.Duration(n-last.n) * last.perTask; long > patience {
		q.Skipf("%d more tasks would take %v here: look on a machine that is quicker (with KVM, or make lab-here)", n-last.n, long.Round(time.Second))
	}
}
