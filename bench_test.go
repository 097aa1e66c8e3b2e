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

// maxRatio is the most that the lab's helpers may cost over the same commands run raw.
const maxRatio = 1.15

// BenchmarkLifecycle compares create, state, start, state, kill, state, delete through the lab's helpers with the same
// seven commands run by os/exec, in turn in one run, so that what disturbs the one disturbs the other. The figure is the
// ratio of the medians; more than maxRatio fails.
func BenchmarkLifecycle(b *testing.B) {
	q := session.Benchmark(b)
	c := runc.New(q, bundle.Busybox(q, "sleep", "300"))
	root := q.Mkdir("raw")
	raw := func(args ...string) {
		rawRun(q, q.UnderTest("runc").Path, append([]string{"--root", root}, args...)...)
	}
	var helped, plain []time.Duration
	for b.Loop() {
		helped = append(helped, timed(func() {
			c.Create()
			c.State()
			c.Start()
			c.State()
			c.Kill("KILL")
			untilStopped(q, func() string { return string(c.State().Status) })
			c.Delete()
		}))
		plain = append(plain, timed(func() {
			raw("create", "--bundle", c.Bundle.Dir, bundle.ID)
			raw("state", bundle.ID)
			raw("start", bundle.ID)
			raw("state", bundle.ID)
			raw("kill", bundle.ID, "KILL")
			untilStopped(q, func() string {
				return rawRun(q, q.UnderTest("runc").Path, "--root", root, "state", bundle.ID)
			})
			raw("delete", bundle.ID)
		}))
	}
	compare(b, helped, plain)
}

// BenchmarkContainerdReady measures a private containerd from the start of its process to its first answer.
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

// untilStopped asks for the state until the runtime has seen the process die.
func untilStopped(q *lab.Q, state func() string) {
	q.Helper()
	for range 1000 {
		if strings.Contains(state(), "stopped") {
			return
		}
	}
	q.Fatal("the container does not stop")
}

// rawRun is the least that it takes to run a command whose output one wants: os/exec, into a file.
func rawRun(q *lab.Q, path string, args ...string) string {
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

func timed(f func()) time.Duration {
	begin := time.Now()
	f()
	return time.Since(begin)
}

func median(ds []time.Duration) time.Duration {
	slices.Sort(ds)
	return ds[len(ds)/2]
}

func compare(b *testing.B, helped, plain []time.Duration) {
	b.Helper()
	h, p := median(helped), median(plain)
	ratio := float64(h) / float64(p)
	b.ReportMetric(float64(h)/1e6, "ms-lab")
	b.ReportMetric(float64(p)/1e6, "ms-raw")
	b.ReportMetric(ratio, "ratio")
	b.ReportMetric(0, "ns/op")
	if ratio > maxRatio && len(plain) >= 10 {
		b.Errorf("the helpers cost %.2f times the raw commands; at most %.2f", ratio, maxRatio)
	}
}
