//go:build linux

package ctrd

import (
	"context"
	"sync"

	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/typeurl/v2"
	"gotest.tools/v3/poll"

	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// Event is one event of the daemon's stream.
type Event struct {
	*events.Envelope
	Body any // the decoded event: *events.TaskCreate and such, of containerd's api/events
}

// Recorder writes down the daemon's event stream from the moment it was made.
type Recorder struct {
	q      *lab.Q
	mu     sync.Mutex
	events []Event
	err    error
}

// Record subscribes to all of the daemon's events, through the Go client. It returns when the subscription is known to
// be in place.
func (d *Daemon) Record() *Recorder {
	d.q.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	d.q.TB.Cleanup(cancel)
	envelopes, errs := d.client.Subscribe(ctx)
	r := &Recorder{q: d.q}
	go func() {
		for {
			select {
			case e := <-envelopes:
				if e != nil {
					r.add(e)
				}
			case err := <-errs:
				r.mu.Lock()
				r.err = err
				r.mu.Unlock()
				return
			}
		}
	}()
	return r
}

func (r *Recorder) add(e *events.Envelope) {
	body, err := typeurl.UnmarshalAny(e.Event)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.err = err
	}
	r.events = append(r.events, Event{e, body})
}

// Events lists what has come so far.
func (r *Recorder) Events() []Event {
	r.q.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		r.q.Fatalf("the subscription to containerd's events ended: %v", r.err)
	}
	return append([]Event(nil), r.events...)
}

// Topics lists the topics of what has come so far.
func (r *Recorder) Topics() []string {
	r.q.Helper()
	var out []string
	for _, e := range r.Events() {
		out = append(out, e.Topic)
	}
	return out
}

// WaitFor waits until the last event of the stream is of a topic, and returns all that have come.
func (r *Recorder) WaitFor(topic string) []Event {
	r.q.Helper()
	proc.WaitFor(r.q, func(poll.LogT) poll.Result {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, e := range r.events {
			if e.Topic == topic {
				return poll.Success()
			}
		}
		return poll.Continue("no event %s yet among %d", topic, len(r.events))
	})
	return r.Events()
}
