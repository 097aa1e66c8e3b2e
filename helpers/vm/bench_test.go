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

// BenchmarkBoot compares the way to the first line of the first test with the least that the same QEMU and kernel can
// do: boot a pid 1 that says one word and resets. It alternates between the two, so that both see the same host, and
// takes medians.
func BenchmarkBoot(b *testing.B) {
	conf := Config{Memory: 512, Accel: "auto"}
	cache, err := OpenCache()
	assert.NilError(b, err)
	q, err := findQEMU()
	assert.NilError(b, err)
	k, err := cache.kernel(b.Context(), os.Getenv("CDB_KERNEL"), b.Logf)
	assert.NilError(b, err)
	init, err := cache.init()
	assert.NilError(b, err)
	accel, err := cache.accelerator(q, &conf, k, init, b.Logf)
	assert.NilError(b, err)
	conf.cpus("tcg")
	_, _, err = cache.image(b.Context(), k, b.Logf)
	assert.NilError(b, err)
	// Past the build cache's first look, which is go's own business.
	firstLine(b)

	var bare, first, before, whole []time.Duration
	for b.Loop() {
		took, err := bareBoot(q, &conf, accel, k, init, bootPatience)
		assert.NilError(b, err)
		bare = append(bare, took)
		f, p, w := firstLine(b)
		first, before, whole = append(first, f), append(before, p), append(whole, w)
	}
	median := func(d []time.Duration) float64 {
		slices.Sort(d)
		return d[len(d)/2].Seconds()
	}
	b.ReportMetric(median(bare), "s/bare-boot")
	b.ReportMetric(median(first), "s/first-line")
	b.ReportMetric(median(first)/median(bare), "first-line/bare")
	b.ReportMetric(median(before), "s/before-QEMU")
	b.ReportMetric(median(whole), "s/whole-run")
	b.ReportMetric(0, "ns/op")
}

// firstLine runs a small test in the VM and returns when its first line came, when QEMU started, and when all was over.
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
