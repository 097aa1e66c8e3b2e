//go:build linux

// Package slowness measures how slow this machine is, and makes the lab's deadlines longer by that factor. A deadline is there to
// end a wait that has no end. On a machine that is emulated, or busy, each step takes longer, and so does a wait that will end.
package slowness

import (
	"context"
	"os/exec"
	"slices"
	"sync/atomic"
	"time"
)

const (
	// usual is within what the start of a program such as `runc --version` takes on a quiet machine: 5 ms. On a busy one it was
	// seen to take 40 ms, and under emulation several hundred.
	usual = 10 * time.Millisecond
	// maxFactor keeps a wait that has no end within go test's own -timeout.
	maxFactor = 10

	starts      = 5                // an odd number: the median is one of them
	startsLimit = 10 * time.Second // for all of them
)

// factor is the factor of [Scale]. 0, before it is set, is 1.
var factor atomic.Int64

// Factor returns by how much deadlines are longer here: 1 to 10.
func Factor() int { return int(max(1, factor.Load())) }

// Set sets the factor. A value below 1 or above the greatest one is brought into the range.
func Set(n int) { factor.Store(int64(min(max(1, n), maxFactor))) }

// Scale returns how long a wait may take here that may take d on a quiet machine.
func Scale(d time.Duration) time.Duration { return d * time.Duration(Factor()) }

// Measure starts a program several times, and returns the factor by which the median of its starts takes longer than usual. For a
// program that fails, or never ends, it returns 1. The program has the environment environ, or that of this process if it is nil.
func Measure(environ []string, name string, args ...string) int {
	return measureWithin(startsLimit, environ, name, args...)
}

// measureWithin measures with a limit for all starts. If only some of them end in time, the machine is as slow as can be. If none does, the
// machine may have stood still, so it tries once more: a program that never ends says nothing about the machine.
func measureWithin(limit time.Duration, environ []string, name string, args ...string) int {
	for range 2 {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		ended := 0
		factor := measure(time.Now, func() error {
			cmd := exec.CommandContext(ctx, name, args...)
			cmd.Env = environ
			err := cmd.Run()
			if err == nil {
				ended++
			}
			return err
		})
		late := ctx.Err() != nil
		cancel()
		switch {
		case !late:
			return factor
		case ended > 0:
			return maxFactor
		}
	}
	return 1
}

func measure(now func() time.Time, start func() error) int {
	var took []time.Duration
	for range starts {
		begin := now()
		if err := start(); err != nil {
			return 1
		}
		took = append(took, now().Sub(begin))
	}
	slices.Sort(took)
	return min(max(1, int((took[starts/2]+usual-1)/usual)), maxFactor)
}
