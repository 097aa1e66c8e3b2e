//go:build linux

package fleet

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/results"
)

// What lab fleet may use for the results of 5,000 nodes, on two CPUs.
const (
	benchTime = 10 * time.Second
	benchPeak = 1000 // MB
)

// benchGroups are the sizes of the groups. There are ten odd nodes besides.
var benchGroups = []int{2500, 1250, 500, 250, 150, 100, 80, 60, 50, 25, 15, 10}

const benchOdd = 10

// BenchmarkFleet runs lab fleet on the simulated results of 5,000 nodes: make bench-fleet.
func BenchmarkFleet(b *testing.B) {
	program := filepath.Join(b.TempDir(), "lab")
	build := exec.Command("go", "build", "-trimpath", "-o", program, "cdblab/cmd/lab") // as make builds it
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	assert.NilError(b, err, "%s", out)
	// In most fleets the nodes of a group have the same file, and it is parsed once.
	b.Run("files of a group are the same", func(b *testing.B) { benchFleet(b, program, false) })
	// The worst case: each file is parsed.
	b.Run("no two files are the same", func(b *testing.B) { benchFleet(b, program, true) })
}

func benchFleet(b *testing.B, program string, unique bool) {
	dir := b.TempDir()
	nodes, size := simulate(b, dir, unique)
	for b.Loop() {
		lab := exec.Command(program, "fleet", "-out", filepath.Join(b.TempDir(), "out"), dir)
		begin := time.Now()
		out, err := lab.CombinedOutput()
		took := time.Since(begin)
		var exit *exec.ExitError
		assert.Check(b, errors.As(err, &exit) && exit.ExitCode() == 1, "exit code 1 says that nodes differ: %v\n%.2000s", err, out)
		want := fmt.Sprintf("%s nodes in %d groups", number(nodes), len(benchGroups)+benchOdd)
		assert.Check(b, cmp.Contains(string(out), want))

		state := lab.ProcessState
		cpu := state.UserTime() + state.SystemTime()
		peak := state.SysUsage().(*syscall.Rusage).Maxrss / 1000 // KB to MB
		b.Logf("%d results, %d MB: %.1f s on %d CPUs, %.1f s of CPU time, at most %d MB of memory",
			nodes, size>>20, took.Seconds(), runtime.NumCPU(), cpu.Seconds(), peak)
		b.ReportMetric(cpu.Seconds(), "cpu-s/op")
		b.ReportMetric(float64(peak), "MB-peak")
		// On a busy machine the command waits for a CPU. With as much CPU time as that, one CPU alone would have been enough.
		if took > benchTime && cpu > benchTime {
			b.Errorf("lab fleet took %.1f s, and %.1f s of CPU time, expected at most %.0f s", took.Seconds(), cpu.Seconds(), benchTime.Seconds())
		}
		if peak > benchPeak {
			b.Errorf("lab fleet used %d MB of memory, expected at most %d MB", peak, benchPeak)
		}
	}
}

// simulate writes the results of a fleet into a directory, made of those of a real run. With unique, no two files have the same bytes.
func simulate(b *testing.B, dir string, unique bool) (nodes int, size int64) {
	f, err := os.Open("testdata/facts.json.gz")
	assert.NilError(b, err)
	defer f.Close()
	unpack, err := gzip.NewReader(f)
	assert.NilError(b, err)
	real, err := io.ReadAll(unpack)
	assert.NilError(b, err)

	write := func(facts []byte) {
		if unique {
			facts = bytes.Replace(facts, []byte(`"kernel": "`), fmt.Appendf(nil, `"kernel": "build %d of `, nodes), 1)
		}
		path := filepath.Join(dir, fmt.Sprintf("rack-%02d", nodes%40), fmt.Sprintf("node-%04d", nodes), results.FactsFile)
		assert.NilError(b, os.MkdirAll(filepath.Dir(path), 0o755))
		assert.NilError(b, os.WriteFile(path, facts, 0o644))
		nodes++
		size += int64(len(facts))
	}
	for i, n := range benchGroups {
		facts := changed(b, real, func(fact int) bool { return i > 0 && fact%(10*i) == i }, fmt.Sprint("group ", i))
		for range n {
			write(facts)
		}
	}
	for i := range benchOdd {
		write(changed(b, real, func(fact int) bool { return fact == 100*i }, "odd"))
	}
	return nodes, size
}

// changed returns a facts.json in which some facts have another value.
func changed(b *testing.B, facts []byte, which func(fact int) bool, value string) []byte {
	run, err := new(results.Cache).Read(facts)
	assert.NilError(b, err)
	n := 0
	for _, q := range run.Questions {
		for _, f := range q.Facts() {
			if which(n) {
				f.Value = strings.TrimSpace(value + " " + f.Value)
			}
			n++
		}
	}
	return factsOf(b, run)
}
