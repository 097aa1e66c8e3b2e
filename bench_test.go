//go:build linux && vmlab

package cdblab

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"cdblab/helpers/bundle"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/lab"
	"cdblab/helpers/runc"
)

// maxRatio is the largest permitted ratio of the time with the lab's helpers to the time of the same commands without.
const maxRatio = 1.15

// BenchmarkLifecycle measures create, state, start, state, kill, state, delete with the lab's helpers and the same seven
// commands run by os/exec. Both alternate in one run, so that a disturbance of the machine affects both. It reports the
// ratio of the medians, and fails if that is more than maxRatio.
func BenchmarkLifecycle(b *testing.B) {
	q := session.Benchmark(b)
	c := runc.New(q, bundle.Busybox(q, "sleep", "3600"))
	root := q.Mkdir("raw")
	raw := func(args ...string) string {
		return runRaw(q, q.UnderTest("runc").Path, append([]string{"--root", root}, args...)...)
	}
	// The runtime may report the old status for a moment after the process has died.
	untilStopped := func(state func() string) {
		q.Helper()
		for range 1000 {
			if strings.Contains(state(), "stopped") {
				return
			}
		}
		q.Fatal("the container was killed, but after 1000 calls of state it is not stopped")
	}
	var withLab, withoutLab []time.Duration
	for b.Loop() {
		withLab = append(withLab, timed(func() {
			c.Create()
			c.State()
			c.Start()
			c.State()
			c.Kill("KILL")
			untilStopped(func() string { return string(c.State().Status) })
			c.Delete()
		}))
		withoutLab = append(withoutLab, timed(func() {
			raw("create", "--bundle", c.Bundle.Dir, bundle.ID)
			raw("state", bundle.ID)
			raw("start", bundle.ID)
			raw("state", bundle.ID)
			raw("kill", bundle.ID, "KILL")
			untilStopped(func() string { return raw("state", bundle.ID) })
			raw("delete", bundle.ID)
		}))
	}
	reportRatio(b, withLab, withoutLab)
}

// BenchmarkContainerdReady measures the time from the start of a private containerd's process to its first reply.
func BenchmarkContainerdReady(b *testing.B) {
	q := session.Benchmark(b)
	d := ctrd.Start(q)
	ready := []time.Duration{d.StartupTime}
	for b.Loop() {
		assert.NilError(q, d.Stop())
		d.Start()
		ready = append(ready, d.StartupTime)
	}
	b.ReportMetric(float64(median(ready))/1e6, "ms-ready")
	b.ReportMetric(0, "ns/op")
}

// runRaw runs a command with os/exec and returns its output, with as little as that takes: the output goes to a file.
func runRaw(q *lab.Q, path string, args ...string) string {
	q.Helper()
	out, err := os.Create(filepath.Join(q.Dir, "raw", ".out"))
	assert.NilError(q, err)
	defer out.Close()
	cmd := exec.CommandContext(context.Background(), path, args...)
	cmd.Stdout, cmd.Stderr = out, out
	err = cmd.Run()
	data, _ := os.ReadFile(out.Name())
	assert.NilError(q, err, "%s", data)
	return string(bytes.TrimSpace(data))
}

// timed returns how long f takes.
func timed(f func()) time.Duration {
	begin := time.Now()
	f()
	return time.Since(begin)
}

// median returns the median. It sorts its argument.
func median(ds []time.Duration) time.Duration {
	slices.Sort(ds)
	return ds[len(ds)/2]
}

// reportRatio reports the medians with and without the lab's helpers, and their ratio. It fails if the ratio is more than
// maxRatio, unless there are too few measurements to judge.
func reportRatio(b *testing.B, withLab, withoutLab []time.Duration) {
	b.Helper()
	const enough = 10
	labMedian, rawMedian := median(withLab), median(withoutLab)
	ratio := float64(labMedian) / float64(rawMedian)
	b.ReportMetric(float64(labMedian)/1e6, "ms-lab")
	b.ReportMetric(float64(rawMedian)/1e6, "ms-raw")
	b.ReportMetric(ratio, "ratio")
	b.ReportMetric(0, "ns/op")
	if ratio > maxRatio && len(withoutLab) >= enough {
		b.Errorf("with the lab's helpers the commands take %.2f times as long as without; at most %.2f is permitted", ratio, maxRatio)
	}
}
