//go:build linux

package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/notebook"
	"cdblab/helpers/results"
)

// What the results of a run of all questions may cost. The limit for lab run is a part of the time that the questions take.
const (
	limitNotebook = time.Second
	limit100MB    = 5 * time.Second
	limitRun      = 0.02
)

// BenchmarkResults measures what the results of a run cost: make bench-results. The run is a recorded one.
func BenchmarkResults(b *testing.B) {
	stream := wholeStream(b)
	run, err := results.Read(bytes.NewReader(stream))
	assert.NilError(b, err)
	questions := run.End.Sub(run.Begin)
	b.Logf("a run of %d questions, %.1f s, %.1f MB of stream; %d CPUs",
		len(run.Questions), questions.Seconds(), mega(len(stream)), runtime.NumCPU())

	b.Run("notebook", func(b *testing.B) {
		measure(b, limitNotebook, func() {
			var page bytes.Buffer
			assert.NilError(b, notebook.Write(&page, run))
			b.ReportMetric(mega(page.Len()), "MB-page")
		})
	})
	// The longest stream that a user may hand in is that of 7 runs.
	b.Run("stream of 100 MB", func(b *testing.B) {
		measure(b, limit100MB, func() {
			r, w := io.Pipe()
			go func() {
				for n := 0; n < 100_000_000; n += len(stream) {
					_, _ = w.Write(stream)
				}
				w.Close()
			}()
			_, err := results.Read(r)
			assert.NilError(b, err)
		})
	})
	// All that lab run does beside the questions: it reads their stream, shows the run, and writes the results.
	b.Run("lab run", func(b *testing.B) {
		program := filepath.Join(b.TempDir(), "lab")
		build := exec.Command("go", "build", "-trimpath", "-o", program, "cdblab/cmd/lab") // as make builds it
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		out, err := build.CombinedOutput()
		assert.NilError(b, err, "%s", out)
		dir := b.TempDir()
		assert.NilError(b, os.WriteFile(filepath.Join(dir, "stream"), stream, 0o644))
		assert.NilError(b, os.WriteFile(filepath.Join(dir, "go"), []byte("#!/bin/sh\nexec cat stream\n"), 0o755))
		for b.Loop() {
			lab := exec.Command(program, "run", "--", "./go", "test", ".")
			lab.Dir = dir
			out, err := lab.CombinedOutput()
			assert.NilError(b, err, "%.2000s", out)
			last := out[max(len(out)-200, 0):]
			assert.Check(b, cmp.Contains(string(last), fmt.Sprintf("%d passed, 0 failed", run.Count(results.Answered))))
			cpu := lab.ProcessState.UserTime() + lab.ProcessState.SystemTime()
			part := cpu.Seconds() / questions.Seconds()
			b.ReportMetric(cpu.Seconds(), "cpu-s/op")
			b.ReportMetric(100*part, "%-of-run")
			if part > limitRun {
				b.Errorf("lab run used %.2f s of CPU time beside questions that take %.1f s: %.1f %%, expected at most %.0f %%",
					cpu.Seconds(), questions.Seconds(), 100*part, 100*limitRun)
			}
		}
	})
}

// measure runs f, and fails if one time takes longer than the limit. On a busy machine f waits for a CPU. With less CPU time than the
// limit, one CPU alone would have been enough.
func measure(b *testing.B, limit time.Duration, f func()) {
	for b.Loop() {
		begin, before := time.Now(), cpuTime(b)
		f()
		took, cpu := time.Since(begin), cpuTime(b)-before
		b.ReportMetric(cpu.Seconds(), "cpu-s/op")
		if took > limit && cpu > limit {
			b.Errorf("it took %.2f s, and %.2f s of CPU time, expected at most %.0f s", took.Seconds(), cpu.Seconds(), limit.Seconds())
		}
	}
}

// cpuTime returns the CPU time that this process has used.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	assert.NilError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func mega(bytes int) float64 { return float64(bytes) / 1_000_000 }

// wholeStream returns the stream of the recorded run of all questions. The record lacks the output: go test writes each attr event there
// again, and the lab a line for the reader.
func wholeStream(b *testing.B) []byte {
	f, err := os.Open("../../helpers/notebook/testdata/whole.json.gz")
	assert.NilError(b, err)
	defer f.Close()
	unpacked, err := gzip.NewReader(f)
	assert.NilError(b, err)
	var out bytes.Buffer
	lines := json.NewEncoder(&out)
	assert.NilError(b, results.EachLine(unpacked, func(line []byte) {
		out.Write(line)
		var e struct {
			Time                             time.Time
			Action, Test, Key, Value, Output string
		}
		assert.NilError(b, json.Unmarshal(line, &e))
		if e.Action != "attr" {
			return
		}
		e.Action = "output"
		e.Output = "=== ATTR  " + e.Test + " " + e.Key + " " + e.Value + "\n"
		note := "         $ " + e.Value[:min(len(e.Value), 300)] + "\n"
		e.Key, e.Value = "", ""
		assert.NilError(b, lines.Encode(e))
		e.Output = note
		assert.NilError(b, lines.Encode(e))
	}))
	return out.Bytes()
}
