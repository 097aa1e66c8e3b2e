//go:build linux

package slowness

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// ms returns durations of so many milliseconds.
func ms(ns ...int) []time.Duration {
	var out []time.Duration
	for _, n := range ns {
		out = append(out, time.Duration(n)*time.Millisecond)
	}
	return out
}

func TestMeasure_TheMedianOfTheStarts(t *testing.T) {
	for _, c := range []struct {
		took []time.Duration
		want int
	}{
		{ms(5, 5, 5, 5, 5), 1},
		{ms(10, 10, 10, 10, 10), 1},
		{ms(11, 11, 11, 11, 11), 2},
		{ms(35, 5, 900, 35, 35), 4}, // one start that was held up counts as little as one that was quick
		{ms(99999, 99999, 99999, 99999, 99999), maxFactor},
	} {
		now, next := time.Unix(0, 0), 0
		got := measure(func() time.Time { return now }, func() error {
			now = now.Add(c.took[next])
			next++
			return nil
		})
		assert.Check(t, got == c.want, "the starts took %v: the factor is %d, expected %d", c.took, got, c.want)
	}
}

func TestMeasure_AProgramThatFailsSaysNothing(t *testing.T) {
	now := time.Unix(0, 0)
	got := measure(func() time.Time { return now }, func() error { now = now.Add(time.Hour); return errors.New("killed") })
	assert.Check(t, got == 1, "the factor is %d", got)
	assert.Check(t, Measure(nil, "/no/such/program") == 1)
}

// A machine that stands still during the starts is no quick one, and a program that never ends says nothing about the machine.
func TestMeasure_StartsThatDoNotEndInTime(t *testing.T) {
	const limit = 3 * time.Second
	once := filepath.Join(t.TempDir(), "once")
	assert.Equal(t, measureWithin(limit, nil, "sh", "-c", "mkdir "+once+" || exec sleep 60"), maxFactor, "one start ended, and then none")
	log := filepath.Join(t.TempDir(), "log")
	assert.Equal(t, measureWithin(limit, nil, "sh", "-c", "echo >> "+log+"; exec sleep 60"), 1, "none ended")
	starts, err := os.ReadFile(log)
	assert.NilError(t, err)
	assert.Equal(t, len(starts), 2, "it tries once more")
}

func TestScale(t *testing.T) {
	t.Cleanup(func() { factor.Store(0) })
	assert.Check(t, Scale(time.Minute) == time.Minute, "before the factor is known, it is 1")
	for set, want := range map[int]time.Duration{-1: time.Minute, 1: time.Minute, 3: 3 * time.Minute, 1000: maxFactor * time.Minute} {
		Set(set)
		assert.Check(t, Scale(time.Minute) == want, "after Set(%d), a minute is %v, expected %v", set, Scale(time.Minute), want)
	}
}
