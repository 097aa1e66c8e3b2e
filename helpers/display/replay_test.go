package display

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"cdblab/helpers/results"
)

// clock is the time of a replayed stream.
type clock struct{ time time.Time }

func (c *clock) now() time.Time { return c.time }

// at sets the clock to the time of a line of the stream. It returns how long ago the line before was.
func (c *clock) at(line []byte) (since time.Duration) {
	var e struct{ Time time.Time }
	_ = json.Unmarshal(line, &e)
	if e.Time.IsZero() {
		return 0
	}
	if !c.time.IsZero() {
		since = e.Time.Sub(c.time)
	}
	c.time = e.Time
	return since
}

// replay shows a recorded stream. Before each line it calls the function, if there is one, with how long ago the line before was.
func replay(d Display, c *clock, stream string, before func(time.Duration)) *results.Run {
	r := results.NewReader()
	for line := range strings.Lines(stream) {
		since := c.at([]byte(line))
		if before != nil {
			before(since)
		}
		d.Update(r.Run(), r.Line([]byte(line)))
	}
	return r.Close()
}

// replayEnv names a file with a stream. The test binary then shows the stream on its standard output, and runs no test:
//
//	CDB_REPLAY=stream.json CDB_SPEED=10 ./display.test
const (
	replayEnv = "CDB_REPLAY"
	speedEnv  = "CDB_SPEED" // how many times as fast as it was recorded
)

func TestMain(m *testing.M) {
	file := os.Getenv(replayEnv)
	if file == "" {
		os.Exit(m.Run())
	}
	stream, err := os.ReadFile(file)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	speed, _ := strconv.ParseFloat(os.Getenv(speedEnv), 64)
	if speed == 0 {
		speed = 1
	}
	d := New(os.Stdout, Options{Verbose: os.Getenv("V") != "", Expected: expected(string(stream))})
	for _, what := range []string{"building runc, containerd, the shim and ctr", "compiling the tests"} {
		d.Prepare(what)
		time.Sleep(time.Duration(float64(3*time.Second) / speed))
	}
	run := replay(d, &clock{}, string(stream), func(since time.Duration) { time.Sleep(time.Duration(float64(since) / speed)) })
	d.Done(run, ".lab/results/latest")
}

// expected returns how long each question of a stream took.
func expected(stream string) map[string]float64 {
	out := map[string]float64{}
	run, _ := results.Read(bufio.NewReader(strings.NewReader(stream)))
	for _, q := range run.Questions {
		out[q.Test] = q.Elapsed.Seconds()
	}
	return out
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	assert.NilError(t, err)
	return string(b)
}
