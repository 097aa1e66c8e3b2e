//go:build linux

package ctrd

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	"golang.org/x/sync/errgroup"
	"gotest.tools/v3/assert"

	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// TaskSet is a number of equal tasks of one image, whose cost is measured. Their program sleeps.
type TaskSet struct {
	Daemon *Daemon // private, so that its memory is that of these tasks alone

	ctx   context.Context
	image containerd.Image
	all   []*taskOfSet
}

type taskOfSet struct {
	id        string
	container containerd.Container
	task      containerd.Task
	pid       proc.PID
}

// NewTaskSet starts a containerd, pulls the image and returns a set without tasks.
func NewTaskSet(q *lab.Q) *TaskSet {
	q.Helper()
	d := Start(q)
	ref := d.PullImage()
	s := &TaskSet{Daemon: d, ctx: namespaces.WithNamespace(context.Background(), d.Namespace)}
	var err error
	s.image, err = d.Client().GetImage(s.ctx, ref)
	assert.NilError(q, err)
	return s
}

// PIDs returns the process of each task, also after its end.
func (s *TaskSet) PIDs() []proc.PID {
	var out []proc.PID
	for _, t := range s.all {
		out = append(out, t.pid)
	}
	return out
}

// Grow starts tasks until there are n, and returns how long each of the new ones took to start.
func (s *TaskSet) Grow(q *lab.Q, n int) []time.Duration {
	q.Helper()
	q.LogCommand("# client.NewContainer, container.NewTask(ctx, cio.NullIO), task.Start, until there are %d tasks", n)
	var more []*taskOfSet
	for len(s.all) < n {
		t := &taskOfSet{id: q.ID(fmt.Sprintf("cdb-task-%d", len(s.all)+1))}
		more = append(more, t)
		s.all = append(s.all, t)
	}
	forEachTask(q, more, s.create)
	return forEachTask(q, more, s.start)
}

func (s *TaskSet) create(t *taskOfSet) error {
	options := &runcoptions.Options{}
	if s.Daemon.CanSetRuncRoot() {
		options.Root = s.Daemon.RuncRoot
	}
	var err error
	t.container, err = s.Daemon.Client().NewContainer(s.ctx, t.id,
		containerd.WithNewSnapshot(t.id, s.image),
		containerd.WithRuntime("io.containerd.runc.v2", options),
		containerd.WithNewSpec(oci.WithImageConfig(s.image), oci.WithProcessArgs("sleep", "3600")))
	return err
}

func (s *TaskSet) start(t *taskOfSet) error {
	task, err := t.container.NewTask(s.ctx, cio.NullIO)
	if err != nil {
		return err
	}
	t.task, t.pid = task, proc.PID(task.Pid())
	return task.Start(s.ctx)
}

// DeleteTasks kills and deletes the tasks from the n-th on. Their containers stay.
func (s *TaskSet) DeleteTasks(q *lab.Q, n int) {
	q.Helper()
	q.LogCommand("# task.Delete(ctx, containerd.WithProcessKill), of %d", len(s.all)-n)
	forEachTask(q, s.all[n:], func(t *taskOfSet) error {
		_, err := t.task.Delete(s.ctx, containerd.WithProcessKill)
		return err
	})
}

// DeleteContainers deletes the containers from the n-th on, which have no task.
func (s *TaskSet) DeleteContainers(q *lab.Q, n int) {
	q.Helper()
	forEachTask(q, s.all[n:], func(t *taskOfSet) error { return t.container.Delete(s.ctx, containerd.WithSnapshotCleanup) })
	s.all = s.all[:n]
}

// Shrink deletes tasks with their containers until there are n, and waits until the shims have ended.
func (s *TaskSet) Shrink(q *lab.Q, n int) {
	q.Helper()
	s.DeleteTasks(q, n)
	s.DeleteContainers(q, n)
	proc.WaitFor(q, s.Daemon.HasShims(n))
}

// concurrency is how many tasks are started or deleted at the same time.
const concurrency = 4

// forEachTask does something for each task, for some at the same time, and returns how long each took.
func forEachTask(q *lab.Q, tasks []*taskOfSet, do func(*taskOfSet) error) []time.Duration {
	q.Helper()
	took := make([]time.Duration, len(tasks))
	var group errgroup.Group
	group.SetLimit(concurrency)
	for i, t := range tasks {
		group.Go(func() error {
			begin := time.Now()
			err := lab.Catch(func() error { return do(t) })
			took[i] = time.Since(begin)
			return err
		})
	}
	assert.NilError(q, group.Wait())
	return took
}

// Cost is what a number of tasks cost at one moment. Memory is measured as PSS.
type Cost struct {
	Tasks, Shims     int
	Shim, Program    proc.Bytes // the median of all shims, and of all programs
	Daemon, AllShims proc.Bytes
	DaemonHeap       proc.Bytes // its anonymous memory
}

// Cost measures the set while it has n tasks. It fails the question unless there is one shim for each task.
func (s *TaskSet) Cost(q *lab.Q, n int) Cost {
	q.Helper()
	now := Cost{Tasks: n, Daemon: proc.PSS(q, s.Daemon.PID()), DaemonHeap: proc.Anonymous(q, s.Daemon.PID())}
	var shims, programs []proc.Bytes
	for _, shim := range s.Daemon.Shims() {
		shims = append(shims, proc.PSS(q, shim))
		now.AllShims += shims[len(shims)-1]
	}
	now.Shims = len(shims)
	assert.Equal(q, now.Shims, n, "shims of %d tasks", n)
	if n > 0 {
		for _, pid := range s.PIDs() {
			proc.WaitFor(q, proc.Runs(pid, "sleep"))
			proc.WaitFor(q, proc.IsInState(pid, "S")) // by then it has all the memory that it needs
			programs = append(programs, proc.PSS(q, pid))
		}
		now.Shim, now.Program = Median(shims), Median(programs)
	}
	return now
}

// Median returns the middle one of the values, of which there is at least one.
func Median[T cmp.Ordered](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
