package display

import (
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"cdblab/helpers/results"
)

func TestProgress_ReckonsTheTimeLeft(t *testing.T) {
	c := &clock{time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	p := newProgress(map[string]float64{"TestTask_A": 10, "TestTask_B": 20, "TestTask_C": 30}, c.now)
	r := results.NewReader()
	feed := func(lines ...string) {
		for _, line := range lines {
			p.update(r.Line([]byte(line)))
		}
	}
	left := func() string {
		if d, ok := p.left(); ok {
			return d.String()
		}
		return "unknown"
	}
	feed(`{"Action":"run","Test":"TestTask_A"}`, `{"Action":"run","Test":"TestTask_B"}`, `{"Action":"run","Test":"TestTask_C"}`)
	assert.Equal(t, left(), "unknown") // go test may name more
	assert.Equal(t, p.status(false), "0 questions ended, 0.0s")

	feed(`{"Action":"cont","Test":"TestTask_A"}`, `{"Action":"attr","Test":"TestTask_A","Key":"question","Value":"What is a?"}`)
	feed(`{"Action":"cont","Test":"TestTask_B"}`, `{"Action":"attr","Test":"TestTask_B","Key":"question","Value":"What is b?"}`)
	assert.Equal(t, left(), "30s") // 60 s of work, two at a time

	c.time = c.time.Add(10 * time.Second)
	assert.Equal(t, left(), "30s") // A is late, 10 s of B, 30 s of C: C alone takes as long
	feed(`{"Action":"pass","Test":"TestTask_A","Elapsed":20}`)
	assert.Equal(t, p.status(false), "1 of 3 questions ended, 10.0s, about 1m00s left") // twice as slow as the last run
	assert.Equal(t, p.status(true), "1/3, 1m00s left")
}

func TestProgress_CountsQuestionsOnly(t *testing.T) {
	p := newProgress(nil, time.Now)
	r := results.NewReader()
	for _, line := range []string{
		`{"Action":"run","Test":"TestDocs_AreInStep"}`, `{"Action":"pass","Test":"TestDocs_AreInStep"}`,
		`{"Action":"run","Test":"TestTask_A"}`, `{"Action":"cont","Test":"TestTask_A"}`,
		`{"Action":"attr","Test":"TestTask_A","Key":"question","Value":"What is a?"}`,
		`{"Action":"skip","Test":"TestTask_A"}`,
	} {
		p.update(r.Line([]byte(line)))
	}
	assert.DeepEqual(t, p.counts(false), []string{"1 of 1 question ended", "1 skipped"})
}
