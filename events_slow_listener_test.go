//go:build linux && vmlab

package cdblab

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/events"
	ptypes "github.com/containerd/containerd/v2/pkg/protobuf/types"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/check"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// No. Each subscription has a queue of its own in the daemon, and the queue has no bound.
//
// Who sends an event is through as soon as it is in the queues, and the others get it from theirs. What a slow listener
// has not fetched is lost to nobody, and in order; but it is in containerd's memory, until the listener reads it or
// goes. A subscription that nobody reads is a leak.
//
// Hint: VmRSS of containerd while a `ctr events` is stopped with SIGSTOP.
// Spec: https://github.com/containerd/containerd/blob/main/core/events/exchange/exchange.go, https://github.com/docker/go-events/blob/master/queue.go
func TestEvents_DoesASlowListenerHoldUpTheOthers(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Does a slow listener hold up the others?")
	d := ctrd.Start(q)
	const (
		each = 256 << 10 // bytes of an event
		many = 128
	)
	quick, slow := listenTo(q, d, "quick"), listenTo(q, d, "slow")
	// Whoever may speak to containerd may publish what it likes, on any topic: here the topic is the event's number.
	filling := &ptypes.Any{TypeUrl: "lab/filling", Value: make([]byte, each)}
	publish := func(name string) {
		assert.NilError(q, d.Client().EventService().Publish(quick.ctx, counted+name, filling))
	}
	for !quick.hears || !slow.hears { // a subscription is in place when something is heard
		publish("begin")
		quick.try()
		slow.try()
	}
	publish("0")
	quick.until("0")
	slow.until("0")

	q.Control("both read, and each event is heard before the next is sent")
	before := resident(q, d)
	for n := range many {
		publish(strconv.Itoa(n))
		quick.next(strconv.Itoa(n))
		slow.next(strconv.Itoa(n))
	}
	kept := resident(q, d) - before
	q.Fact("events", many)
	q.Fact("bytes of each", each)
	q.Fact("both read: containerd grew by", lab.Chance(megabytes(kept)))

	q.Step("one stops reading: the other hears each event before the next is sent, all the same")
	before = resident(q, d)
	var times []time.Time
	for n := range many {
		publish(strconv.Itoa(n))
		times = append(times, quick.next(strconv.Itoa(n)))
	}
	grown := resident(q, d) - before
	q.Fact("heard by the other, one by one", many)
	q.Fact("one does not: containerd grew by", lab.Chance(megabytes(grown)))

	q.Step("the queue is in containerd's memory")
	assert.Check(q, grown > many*each/2, "with a listener that does not read it has grown by %s, and sent %s", megabytes(grown), megabytes(many*each))
	assert.Check(q, kept < many*each/2, "with listeners that read it has grown by %s", megabytes(kept))

	q.Step("the slow one reads again: nothing is lost, in order, with the times of the sending")
	for n := range many {
		at := slow.next(strconv.Itoa(n))
		assert.Assert(q, at.Equal(times[n]), "event %d was sent at %v to the one, at %v to the other", n, at, times[n])
	}
	q.Fact("read afterwards, in order", many)

	q.Answer("No: containerd queues for each listener by itself, without bound, and pays for the slow ones with its memory.")
}

const counted = "/lab/count/"

// counting is a subscription to what the question publishes.
type counting struct {
	q         *lab.Q
	name      string
	ctx       context.Context
	envelopes <-chan *events.Envelope
	errs      <-chan error
	hears     bool
}

func listenTo(q *lab.Q, d *ctrd.Daemon, name string) *counting {
	q.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	q.TB.Cleanup(cancel)
	c := &counting{q: q, name: name, ctx: ctx}
	c.envelopes, c.errs = d.Client().Subscribe(ctx, `topic~="^`+counted+`"`)
	return c
}

// receive waits a while for an event, and returns what number it has, and when it was sent; "" where none came.
func (c *counting) receive(patience time.Duration) (string, time.Time) {
	c.q.Helper()
	select {
	case e := <-c.envelopes:
		c.hears = true
		return strings.TrimPrefix(e.Topic, counted), e.Timestamp
	case err := <-c.errs:
		c.q.Fatalf("the subscription of the %s listener has ended: %v", c.name, err)
	case <-time.After(patience):
	}
	return "", time.Time{}
}

func (c *counting) try() { c.q.Helper(); c.receive(10 * time.Millisecond) }

// until reads up to the event of a name.
func (c *counting) until(name string) {
	c.q.Helper()
	for got := ""; got != name; {
		got, _ = c.receive(proc.Patience)
		assert.Assert(c.q, got != "", "the %s listener does not hear event %s", c.name, name)
	}
}

// next reads the next event, which has to be the one of this name, and returns when it was sent.
func (c *counting) next(name string) time.Time {
	c.q.Helper()
	got, at := c.receive(proc.Patience)
	assert.Assert(c.q, cmp.Equal(got, name), "the next event of the %s listener", c.name)
	return at
}

// resident is the daemon's resident memory that no file backs, in bytes.
func resident(q *lab.Q, d *ctrd.Daemon) int {
	q.Helper()
	return check.Int(q, strings.TrimSuffix(proc.Status(q, d.PID(), "RssAnon"), " kB")) << 10
}

func megabytes(n int) string { return strconv.Itoa(n/(1<<20)) + " MiB" }
