//go:build linux && vmtest

package vm

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// BenchmarkBoot compares the time until the first line of the first test with the shortest boot of the same QEMU and
// kernel: a pid 1 that prints one line and resets. It alternates between the two, so that both see the same load of the
// host, and reports medians.
func BenchmarkBoot(b *testing.B) {
	conf := Config{Memory: 512, Accel: "auto"}
	cache, err := OpenCache()
	assert.NilError(b, err)
	q, err := findQEMU(b.Context())
	assert.NilError(b, err)
	k, err := cache.findKernel(b.Context(), os.Getenv("CDB_KERNEL"), b.Logf)
	assert.NilError(b, err)
	init, err := cache.buildInit(b.Context(), b.Logf)
	assert.NilError(b, err)
	conf.Accel, err = cache.chooseAccelerator(b.Context(), q, conf.Accel, q.probe(k, init), b.Logf)
	assert.NilError(b, err)
	conf.setDefaultCPUs()
	_, _, err = cache.toolsImage(b.Context(), k, b.Logf)
	assert.NilError(b, err)
	// The first run is not measured: the host reads the files from its disk.
	firstLine(b)

	var minimal, first, before, whole []time.Duration
	for b.Loop() {
		took, err := minimalBoot(b.Context(), q, conf, k, init, bootTimeout)
		assert.NilError(b, err)
		minimal = append(minimal, took)
		f, p, w := firstLine(b)
		first, before, whole = append(first, f), append(before, p), append(whole, w)
	}
	median := func(d []time.Duration) float64 {
		slices.Sort(d)
		return d[len(d)/2].Seconds()
	}
	b.ReportMetric(median(minimal), "s/minimal-boot")
	b.ReportMetric(median(first), "s/first-line")
	b.ReportMetric(median(first)/median(minimal), "first-line/minimal")
	b.ReportMetric(median(before), "s/before-QEMU")
	b.ReportMetric(median(whole), "s/whole-run")
	b.ReportMetric(0, "ns/op")
}

// firstLine runs a small test in the VM. It returns when its first line arrived, when QEMU started, and when the run ended.
func firstLine(b *testing.B) (line, qemu, end time.Duration) {
	b.Helper()
	lab := exec.Command(built.lab, "exec", "-mem", "512", built.guest, "-test.v", "-test.run=TestResults")
	out, err := lab.StdoutPipe()
	assert.NilError(b, err)
	start := time.Now()
	assert.NilError(b, lab.Start())
	go func() {
		for range 5000 {
			tasks, _ := filepath.Glob("/proc/" + strconv.Itoa(lab.Process.Pid) + "/task/*/children")
			for _, t := range tasks {
				kids, _ := os.ReadFile(t)
				for _, kid := range strings.Fields(string(kids)) {
					if c, _ := os.ReadFile("/proc/" + kid + "/cmdline"); strings.Contains(string(c), "-nodefaults") {
						qemu = time.Since(start)
						return
					}
				}
			}
			time.Sleep(time.Millisecond)
		}
	}()
	_, err = out.Read(make([]byte, 1))
	line = time.Since(start)
	assert.NilError(b, err)
	_, _ = io.Copy(io.Discard, out)
	assert.NilError(b, lab.Wait())
	return line, qemu, time.Since(start)
}
