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
	"gotest.tools/v3/poll"

	"cdblab/helpers/check"
	"cdblab/helpers/ctrd"
	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// A slow listener does not hold up the others. Each subscription has a queue of its own in the daemon, and the queue has no bound.
//
// A publisher is done as soon as the daemon has taken its event: it waits for no listener. What a slow
// listener has not read is not lost, and stays in order. But it is in containerd's memory until the listener reads it
// or ends. A subscription that no process reads is a leak.
//
// Hint: VmRSS of containerd while a `ctr events` is stopped with SIGSTOP.
// Spec: https://github.com/containerd/containerd/blob/main/core/events/exchange/exchange.go, https://github.com/docker/go-events/blob/master/queue.go
func TestEvents_DoesASlowListenerHoldUpTheOthers(t *testing.T) {
	q := session.Question(t, lab.MutatesVM, "Does a slow listener hold up the others?")
	defer q.Recover()
	// The garbage collector of Go lets the heap grow to twice of what is in use, so that the memory which a queue takes could
	// hardly be distinguished from the memory that waits for the collector. With this it grows by a tenth.
	q.Export("GOGC", "10")
	d := ctrd.Start(q)
	const (
		size  = 256 << 10 // bytes of an event
		count = 128       // events
	)
	quick, slow := subscribe(q, d, "quick"), subscribe(q, d, "slow")
	// A client of containerd may publish any event, on any topic: here the topic ends with the event's name.
	payload := &ptypes.Any{TypeUrl: "lab/filling", Value: make([]byte, size)}
	publish := func(name string) {
		assert.NilError(q, d.Client().EventService().Publish(quick.ctx, topicPrefix+name, payload))
	}
	proc.WaitFor(q, func(poll.LogT) poll.Result { // a subscription is known to be in place when an event has been received
		if err := d.Client().EventService().Publish(quick.ctx, topicPrefix+"begin", payload); err != nil {
			return poll.Error(err)
		}
		if !quick.hasReceived() || !slow.hasReceived() {
			return poll.Continue("an event is received: by the quick listener %t, by the slow one %t", quick.connected, slow.connected)
		}
		return poll.Success()
	})
	publish("0")
	quick.skipTo("0")
	slow.skipTo("0")

	q.Control("let both listeners read: each event is received before the next is published")
	before := anonymousMemory(q, d)
	for n := range count {
		publish(strconv.Itoa(n))
		quick.next(strconv.Itoa(n))
		slow.next(strconv.Itoa(n))
	}
	grownWithReaders := anonymousMemory(q, d) - before
	q.Fact("both read: containerd grew by", lab.Chance(mebibytes(grownWithReaders)))

	q.Step("let one stop reading: the other still receives each event before the next is published")
	before = anonymousMemory(q, d)
	var times []time.Time
	for n := range count {
		publish(strconv.Itoa(n))
		times = append(times, quick.next(strconv.Itoa(n)))
	}
	grownWithoutReader := anonymousMemory(q, d) - before
	q.Fact("received by the other, one by one", len(times))
	q.Fact("one does not: containerd grew by", lab.Chance(mebibytes(grownWithoutReader)))

	q.Step("compare containerd's memory: the queue is in it")
	assert.Check(q, grownWithoutReader > count*size/2, "with a listener that does not read, containerd has grown by %s, after events of %s",
		mebibytes(grownWithoutReader), mebibytes(count*size))
	assert.Check(q, grownWithReaders < count*size/2, "with listeners that read, containerd has grown by %s", mebibytes(grownWithReaders))

	q.Step("let the slow listener read again: it receives all events, in order, with the times of publishing")
	read := 0
	for n := range count {
		at := slow.next(strconv.Itoa(n))
		assert.Assert(q, at.Equal(times[n]), "time of event %d: %v for the slow listener, %v for the quick one", n, at, times[n])
		read++
	}
	q.Fact("read afterwards, in order", read)

	q.Answer("No. containerd has a queue for each listener, and the queue has no bound: it pays for a slow listener with its memory.")
}

// topicPrefix is the prefix of the topics of the events that the question publishes. The event's name follows.
const topicPrefix = "/lab/count/"

// subscription receives what the question publishes.
type subscription struct {
	q         *lab.Q
	listener  string // name of the listener, for failures
	ctx       context.Context
	envelopes <-chan *events.Envelope
	errs      <-chan error
	connected bool // whether an event has been received
}

func subscribe(q *lab.Q, d *ctrd.Daemon, listener string) *subscription {
	q.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	q.TB.Cleanup(cancel)
	s := &subscription{q: q, listener: listener, ctx: ctx}
	s.envelopes, s.errs = d.Client().Subscribe(ctx, `topic~="^`+topicPrefix+`"`)
	return s
}

// hasReceived reports whether an event has been received by now.
func (s *subscription) hasReceived() bool {
	select {
	case <-s.envelopes:
		s.connected = true
	default:
	}
	return s.connected
}

// receive waits for an event, and returns its name and when it was published.
func (s *subscription) receive() (string, time.Time) {
	s.q.Helper()
	select {
	case e := <-s.envelopes:
		return strings.TrimPrefix(e.Topic, topicPrefix), e.Timestamp
	case err := <-s.errs:
		s.q.Fatalf("the subscription of the %s listener has ended: %v", s.listener, err)
	case <-time.After(proc.Patience):
		s.q.Fatalf("the %s listener has received no event within %v", s.listener, proc.Patience)
	}
	return "", time.Time{}
}

// skipTo receives events up to the one with this name.
func (s *subscription) skipTo(name string) {
	s.q.Helper()
	for got := ""; got != name; {
		got, _ = s.receive()
	}
}

// next receives the next event, which must have this name, and returns when it was published.
func (s *subscription) next(name string) time.Time {
	s.q.Helper()
	got, published := s.receive()
	assert.Assert(s.q, cmp.Equal(got, name), "name of the next event of the %s listener", s.listener)
	return published
}

// anonymousMemory returns the daemon's resident memory that is not backed by a file, in bytes.
func anonymousMemory(q *lab.Q, d *ctrd.Daemon) int {
	q.Helper()
	return check.Int(q, strings.TrimSuffix(proc.Status(q, d.PID(), "RssAnon"), " kB")) << 10
}

func mebibytes(n int) string { return strconv.Itoa(n/(1<<20)) + " MiB" }
