//go:build linux && vmlab

package cdblab

import (
	"fmt"
	"testing"
	"time"

	"cdblab/helpers/ctrd"
	"cdblab/helpers/proc"
)

// BenchmarkTasks measures what the n-th task costs: how long it takes to start beside n-1 others, and the memory of a
// shim (the median) and of the daemon when all n are there.
func BenchmarkTasks(b *testing.B) {
	for _, n := range []int{1, 10, 50} {
		b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) {
			q := session.Benchmark(b)
			c := newCrowd(q)
			c.grow(q, n-1)
			var took []time.Duration
			var now cost
			for b.Loop() {
				took = append(took, c.grow(q, n)...)
				now = c.cost(q, n)
				c.shrink(q, n-1)
			}
			b.ReportMetric(float64(median(took))/1e6, "ms/start")
			b.ReportMetric(float64(now.shim)/(1<<20), "MB/shim")
			b.ReportMetric(float64(now.daemon)/(1<<20), "MB-daemon")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkCtr compares the chapter's ctr commands through the lab's helpers with the same commands run by os/exec, in
// turn in one run against one daemon. The wait for the task's end between kill and delete is in neither, and a figure of
// its own.
func BenchmarkCtr(b *testing.B) {
	q := session.Benchmark(b)
	d := ctrd.Start(q)
	ref := d.PullImage()
	helpedID, rawID := q.ID("cdb-helped"), q.ID("cdb-raw")
	q.Mkdir("raw")
	raw := func(args ...string) {
		rawRun(q, q.UnderTest("ctr").Path, append([]string{"--address", d.Address, "-n", d.Namespace}, args...)...)
	}
	create := []string{"containers", "create"}
	if d.CanSetRuncRoot() {
		create = append(create, "--runc-root", d.RuncRoot)
	}
	create = append(create, ref, rawID, "sleep", "300")

	var helped, plain, waited []time.Duration
	for b.Loop() {
		began := timed(func() {
			d.CreateContainer(ref, helpedID, "sleep", "300")
			d.StartTask(helpedID)
			d.Ctr("tasks", "ls")
			d.Ctr("tasks", "kill", "-s", "SIGKILL", helpedID)
		})
		waited = append(waited, timed(func() { proc.WaitFor(q, d.TaskStopped(helpedID)) }))
		ended := timed(func() {
			d.DeleteTask(helpedID)
			d.Ctr("containers", "delete", helpedID)
		})
		helped = append(helped, began+ended)

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
		plain = append(plain, began+ended)
	}
	b.ReportMetric(float64(median(waited))/1e6, "ms-wait")
	compare(b, helped, plain)
}
