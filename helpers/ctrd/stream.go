//go:build linux

package ctrd

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"al.essio.dev/pkg/shellescape"
	eventsapi "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/containerd/v2/core/runtime"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"gotest.tools/v3/poll"

	"cdblab/helpers/lab"
	"cdblab/helpers/proc"
)

// Stream is the daemon's event stream from one moment on. Two listeners receive it: the Go client and `ctr events`.
//
// A shim to which containerd does not answer within five seconds, as on a busy machine, sends its event again. So an event may be
// received twice. Both copies have the same time. A stream has each event once; [Stream.Again] has the copies.
type Stream struct {
	d         *Daemon
	name      string     // of the stream's directory: events, or events-2 in a question that listens twice
	ctrOutput string     // path of the file to which ctr events writes
	ctrExited chan error // receives the error of ctr events when it ends, and is closed then
	taken     int        // number of events that TakeEvents has returned or skipped
	markers   int        // number of markers so far

	mu     sync.Mutex
	events []Event // that the Go client received, each once
	again  []Event // those that it received again
	err    error   // with which the Go client's subscription ended; nil while it goes on
}

// Listen subscribes to all events of the daemon, or to those that match one of the filters. It returns when both
// listeners are known to receive events.
func (d *Daemon) Listen(filters ...string) *Stream {
	d.q.Helper()
	s := &Stream{d: d, name: "events"}
	for n := 2; ; n++ {
		if _, err := os.Stat(filepath.Join(d.q.Dir, s.name)); err != nil {
			break
		}
		s.name = fmt.Sprintf("events-%d", n)
	}
	s.ctrOutput = filepath.Join(d.q.Mkdir(s.name), "ctr")
	if len(filters) > 0 {
		filters = append(filters, fmt.Sprintf("namespace==%q", s.markerNamespace())) // lets the markers through
	}
	s.subscribeClient(filters)
	s.startCtrEvents(filters)
	err := d.client.NamespaceService().Create(s.markerContext(), s.markerNamespace(), nil)
	if err != nil && !errdefs.IsAlreadyExists(err) {
		d.q.Fatalf("create the containerd namespace of the markers: %v", err)
	}
	s.TakeEvents()
	return s
}

func (s *Stream) subscribeClient(filters []string) {
	ctx, cancel := context.WithCancel(context.Background())
	s.d.q.TB.Cleanup(cancel)
	envelopes, errs := s.d.client.Subscribe(ctx, filters...)
	go func() {
		err := lab.Catch(func() error { // the containerd under test may publish anything
			for {
				select {
				case e := <-envelopes:
					if e != nil {
						s.add(e)
					}
				case err := <-errs:
					return err
				}
			}
		})
		s.mu.Lock()
		defer s.mu.Unlock()
		s.err = err
	}()
}

func (s *Stream) add(e *events.Envelope) {
	body, err := typeurl.UnmarshalAny(e.Event)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.err = err
	}
	event := Event{e, body}
	if slices.ContainsFunc(s.events, event.isCopyOf) {
		s.again = append(s.again, event)
		return
	}
	s.events = append(s.events, event)
}

// isCopyOf reports whether another event is the same one, which was sent again.
func (e Event) isCopyOf(other Event) bool {
	return e.Timestamp.Equal(other.Timestamp) && e.String() == other.String()
}

// Again returns the events that the Go client received again, and that the question is about.
func (s *Stream) Again() []Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.relevant(s.again)
}

// AgainFromCtr returns a line for each event that ctr events printed again, and that the question is about.
func (s *Stream) AgainFromCtr() []string {
	_, again := s.ctrOutputLines()
	return s.texts(again)
}

func (s *Stream) startCtrEvents(filters []string) {
	q := s.d.q
	q.Helper()
	// With -n, as the chapter types it. ctr ignores it here: the markers, which are in another containerd namespace, show that.
	argv := append(s.d.ctrCommand([]string{"events"}), filters...)
	typed := shellescape.QuoteCommand(argv)
	q.LogCommandAs(typed+" &", "mkdir -p "+s.name+" && "+typed+" > "+s.name+"/ctr & sleep 1")
	out, err := os.Create(s.ctrOutput)
	if err != nil {
		q.Fatalf("create the file to which ctr events writes: %v", err)
	}
	defer out.Close()
	cmd := q.Cmd(context.Background(), argv...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		q.Fatalf("start ctr events: %v", err)
	}
	exited := make(chan error, 1)
	s.ctrExited = exited
	go func() { exited <- cmd.Wait(); close(exited) }()
	q.Cleanup(func() {
		if err := lab.Terminate(cmd, exited); err != nil {
			q.Error(err)
		}
	})
}

// markerNamespace returns the containerd namespace in which the markers are made, apart from the events that the
// question is about.
func (s *Stream) markerNamespace() string { return s.d.q.ID("cdb-mark") }

func (s *Stream) markerContext() context.Context {
	return namespaces.WithNamespace(context.Background(), s.markerNamespace())
}

// TakeEvents returns the events that were received since it was last called, and that the question is about.
//
// It has the daemon publish an event of its own, a marker, and waits until both listeners have received it. So whatever
// the daemon published before has been received, too. A shim sends its events on a connection of its own, which may lag
// behind: to take a shim's event, call [Stream.WaitFor] first.
func (s *Stream) TakeEvents() []Event {
	q := s.d.q
	q.Helper()
	// The first marker may be published before a subscription is in place, and only a marker that is received shows that
	// it is: the first one is repeated.
	first := s.markers == 0
	s.markers++
	marker := fmt.Sprintf("%s-mark-%d-", s.name, s.markers)
	tries := 0
	publish := func() error {
		tries++
		label := fmt.Sprint(marker, tries)
		return s.d.client.NamespaceService().SetLabel(s.markerContext(), s.markerNamespace(), "mark", label)
	}
	if err := publish(); err != nil {
		q.Fatalf("publish a marker in the event stream: %v", err)
	}
	proc.WaitFor(q, func(poll.LogT) poll.Result {
		if err := s.Err(); err != nil {
			return poll.Error(fmt.Errorf("the Go client's subscription to containerd's events ended: %w", err))
		}
		client, ctr := s.hasMarker(s.clientLines(), marker), s.hasMarker(s.ctrLines(), marker)
		if client && ctr {
			return poll.Success()
		}
		if first {
			if err := publish(); err != nil {
				return poll.Error(err)
			}
		}
		return poll.Continue("marker %q received: by the Go client %t, by ctr events %t", marker, client, ctr)
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	since := s.relevant(s.events[s.taken:])
	s.taken = len(s.events)
	for _, e := range since {
		if want := e.taskTopic(); want != "" && e.Topic != want {
			q.Errorf("containerd published a %T under the topic %s, expected %s: a client that filters by topic misses it", e.Body, e.Topic, want)
		}
	}
	return since
}

// taskTopic returns the topic that belongs to the type of a task event, or "" for an event that is not about a task.
func (e Event) taskTopic() string {
	if !strings.HasPrefix(fmt.Sprintf("%T", e.Body), "*events.Task") {
		return ""
	}
	return runtime.GetTopic(e.Body)
}

func (s *Stream) hasMarker(lines []line, marker string) bool {
	return slices.ContainsFunc(lines, func(l line) bool {
		return l.namespace == s.markerNamespace() && strings.Contains(l.text, marker)
	})
}

// Received returns a check that succeeds when the Go client has received n events of the topic.
func (s *Stream) Received(topic string, n int) poll.Check {
	return func(poll.LogT) poll.Result {
		events := s.Events()
		if got := len(FilterTopics(events, topic)); got < n {
			return poll.Continue("received %d events %s, want %d; all: %v", got, topic, n, Topics(events))
		}
		return poll.Success()
	}
}

// WaitFor waits until the Go client has received an event of the topic.
func (s *Stream) WaitFor(topic string) {
	s.d.q.Helper()
	proc.WaitFor(s.d.q, s.Received(topic, 1))
}

// ReceivedExit returns a check that succeeds when the Go client has received the exit of a container's task. The exit
// of an exec has another id.
func (s *Stream) ReceivedExit(containerID string) poll.Check {
	return func(poll.LogT) poll.Result {
		events := s.Events()
		for _, e := range events {
			exit, ok := e.Body.(*eventsapi.TaskExit)
			if ok && exit.ContainerID == containerID && exit.ID == containerID {
				return poll.Success()
			}
		}
		return poll.Continue("received no exit of the task of %s; all: %v", containerID, Topics(events))
	}
}

// Closed returns a check that succeeds when the Go client's subscription has ended with an error, as it does when the
// daemon ends.
func (s *Stream) Closed() poll.Check {
	return func(poll.LogT) poll.Result {
		if s.Err() == nil {
			return poll.Continue("the Go client's subscription to containerd's events has not ended")
		}
		return poll.Success()
	}
}

// Err returns the error with which the Go client's subscription ended. It is nil while the subscription goes on.
func (s *Stream) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// WaitClosed waits until both listeners have ended, as they do when the daemon ends. It returns the error of the Go
// client's subscription and that of the command ctr events.
func (s *Stream) WaitClosed() (client, ctr error) {
	s.d.q.Helper()
	ctrEnded := false
	proc.WaitFor(s.d.q, func(poll.LogT) poll.Result {
		select {
		case err, ok := <-s.ctrExited:
			if ok { // else the channel is closed, and the error has been received before
				ctr = err
			}
			ctrEnded = true
		default:
		}
		if client = s.Err(); client == nil || !ctrEnded {
			return poll.Continue("error of the Go client's subscription: %v; ctr events has ended: %t", client, ctrEnded)
		}
		return poll.Success()
	})
	return client, ctr
}

// Events returns all events that the Go client received and that the question is about.
func (s *Stream) Events() []Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.relevant(s.events)
}

// relevant returns the events that the question is about.
func (s *Stream) relevant(all []Event) []Event {
	var out []Event
	for _, e := range all {
		if s.isRelevant(e.Namespace) {
			out = append(out, e)
		}
	}
	return out
}

// isRelevant reports whether the question is about the events of a containerd namespace. Markers are not what it is
// about, and where the daemon is shared, only the question's own namespaces are.
func (s *Stream) isRelevant(namespace string) bool {
	return namespace != s.markerNamespace() && (!s.d.shared || s.d.q.Owner.Owns("/"+namespace))
}

// FromClient returns a line for each event that the Go client received and that the question is about.
func (s *Stream) FromClient() []string { return s.texts(s.clientLines()) }

// FromCtr returns a line for each event that ctr events printed and that the question is about.
func (s *Stream) FromCtr() []string { return s.texts(s.ctrLines()) }

// TimesFromClient returns the time of each line of [Stream.FromClient], as ctr events prints it.
func (s *Stream) TimesFromClient() []string { return s.times(s.clientLines()) }

// TimesFromCtr returns the time of each line of [Stream.FromCtr].
func (s *Stream) TimesFromCtr() []string { return s.times(s.ctrLines()) }

func (s *Stream) texts(lines []line) []string {
	var out []string
	for _, l := range lines {
		if s.isRelevant(l.namespace) {
			out = append(out, l.text)
		}
	}
	return out
}

func (s *Stream) times(lines []line) []string {
	var out []string
	for _, l := range lines {
		if s.isRelevant(l.namespace) {
			out = append(out, l.time)
		}
	}
	return out
}

// line is an event as ctr events prints it.
type line struct {
	time      string // date, time, offset and name of the time zone
	namespace string
	text      string // namespace, topic and normalized body
}

func (s *Stream) clientLines() []line {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []line
	for _, e := range s.events {
		out = append(out, line{e.Timestamp.String(), e.Namespace, e.String()})
	}
	return out
}

// ctrLines returns what ctr events has printed so far, each event once.
func (s *Stream) ctrLines() []line {
	lines, _ := s.ctrOutputLines()
	return lines
}

// ctrOutputLines reads what ctr events has printed so far: each event once, and those that it printed again. Each line has seven fields:
// date, time, offset and name of the time zone, namespace, topic, body.
func (s *Stream) ctrOutputLines() (out, again []line) {
	data, err := os.ReadFile(s.ctrOutput)
	if err != nil {
		return []line{{text: err.Error()}}, nil
	}
	seen := map[line]bool{}
	for l := range strings.Lines(string(data)) {
		f := strings.SplitN(strings.TrimSpace(l), " ", 7)
		if len(f) == 7 && strings.HasPrefix(f[3], "UTC") {
			f[6] = normalize(f[6])
			event := line{strings.Join(f[:4], " "), f[4], strings.Join(f[4:], " ")}
			if seen[event] {
				again = append(again, event)
				continue
			}
			seen[event] = true
			out = append(out, event)
		}
	}
	return out, again
}
