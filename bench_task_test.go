//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"testing"
	"time"

	"cdblab/helpers/ctrd"
	"cdblab/helpers/proc"
)

// BenchmarkTasks measures what the n-th task costs: how long it takes to start while n-1 others run, and the memory of a
// shim (the median) and of the daemon while all n run.
func BenchmarkTasks(b *testing.B) {
	for _, n := range []int{1, 10, 50} {
		b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) {
			q := session.Benchmark(b)
			tasks := ctrd.NewTaskSet(q)
			tasks.Grow(q, n-1)
			var took []time.Duration
			var now ctrd.Cost
			for b.Loop() {
				took = append(took, tasks.Grow(q, n)...)
				now = tasks.Cost(q, n)
				tasks.Shrink(q, n-1)
			}
			b.ReportMetric(float64(median(took))/1e6, "ms/start")
			b.ReportMetric(float64(now.Shim)/(1<<20), "MB/shim")
			b.ReportMetric(float64(now.Daemon)/(1<<20), "MB-daemon")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkCtr measures the chapter's ctr commands with the lab's helpers and the same commands run by os/exec. Both
// alternate in one run against one daemon. The wait for the task's end between kill and delete is in neither, and is
// reported by itself.
func BenchmarkCtr(b *testing.B) {
	q := session.Benchmark(b)
	d := ctrd.Start(q)
	ref := d.PullImage()
	labID, rawID := q.ID("cdb-helped"), q.ID("cdb-raw")
	q.Mkdir("raw")
	raw := func(args ...string) {
		runRaw(q, q.UnderTest("ctr").Path, append([]string{"--address", d.Address, "-n", d.Namespace}, args...)...)
	}
	create := []string{"containers", "create"}
	if d.CanSetRuncRoot() {
		create = append(create, "--runc-root", d.RuncRoot)
	}
	create = append(create, ref, rawID, "sleep", "3600")

	var withLab, withoutLab, waited []time.Duration
	for b.Loop() {
		began := timed(func() {
			d.CreateContainer(ref, labID, "sleep", "3600")
			d.StartTask(labID)
			d.Ctr("tasks", "ls")
			d.Ctr("tasks", "kill", "-s", "SIGKILL", labID)
		})
		waited = append(waited, timed(func() { proc.WaitFor(q, d.TaskStopped(labID)) }))
		ended := timed(func() {
			d.DeleteTask(labID)
			d.Ctr("containers", "delete", labID)
		})
		withLab = append(withLab, began+ended)

		began = timed(func() {
			raw(create...)
			raw("tasks", "start", "-d", "--fifo-dir", d.FifoDir, rawID)
			raw("tasks", "ls")
			raw("tasks", "kill", "-s", "SIGKILL", rawID)
		})
		proc.WaitFor(q, d.TaskStopped(rawID))
		ended = timed(func() {
			raw("tasks", "delete", rawID)
			raw("containers", "delete", rawID)
		})
		withoutLab = append(withoutLab, began+ended)
	}
	b.ReportMetric(float64(median(waited))/1e6, "ms-wait")
	reportRatio(b, withLab, withoutLab)
}
