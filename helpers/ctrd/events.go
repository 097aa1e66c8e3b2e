//go:build linux

package ctrd

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"al.essio.dev/pkg/shellescape"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
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

// String is the event as `ctr events` shows it, but for its time and for how it writes what is in it.
func (e Event) String() string {
	body, err := json.Marshal(e.Body)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%s %s %s", e.Namespace, e.Topic, normalize(string(body)))
}

// markNamespace is where Mark makes its own events, apart from those that are asked about; with the question's suffix.
const markNamespace = "cdb-mark"

func (s *Stream) markNamespace() string { return s.d.q.ID(markNamespace) }

// Stream is the daemon's event stream from one moment on, heard by two listeners: the Go client and `ctr events`.
type Stream struct {
	d     *Daemon
	name  string // events, or events-2 of a question that listens twice
	out   string // the file that ctr events writes
	begin int    // the first event after the last mark
	marks int
	ended chan error // what came of ctr events, once it has ended

	mu     sync.Mutex
	events []Event
	err    error
}

// Listen subscribes to all events of the daemon, or to those that one of the filters lets through. It returns when both
// listeners are known to hear.
func (d *Daemon) Listen(filters ...string) *Stream {
	d.q.Helper()
	s := &Stream{d: d, name: "events"}
	for n := 2; ; n++ {
		if _, err := os.Stat(filepath.Join(d.q.Dir, s.name)); err != nil {
			break
		}
		s.name = fmt.Sprintf("events-%d", n)
	}
	s.out = filepath.Join(d.q.Mkdir(s.name), "ctr")
	if len(filters) > 0 {
		filters = append(filters, fmt.Sprintf("namespace==%q", s.markNamespace())) // one more, for the marks
	}
	s.listenClient(filters)
	s.listenCtr(filters)
	if err := d.client.NamespaceService().Create(s.markContext(), s.markNamespace(), nil); err != nil && !errdefs.IsAlreadyExists(err) {
		d.q.Fatalf("make a namespace for marks: %v", err)
	}
	s.Mark()
	return s
}

func (s *Stream) markContext() context.Context {
	return namespaces.WithNamespace(context.Background(), s.markNamespace())
}

func (s *Stream) listenClient(filters []string) {
	ctx, cancel := context.WithCancel(context.Background())
	s.d.q.TB.Cleanup(cancel)
	envelopes, errs := s.d.client.Subscribe(ctx, filters...)
	go func() {
		for {
			select {
			case e := <-envelopes:
				if e != nil {
					s.add(e)
				}
			case err := <-errs:
				s.mu.Lock()
				s.err = err
				s.mu.Unlock()
				return
			}
		}
	}()
}

func (s *Stream) add(e *events.Envelope) {
	body, err := typeurl.UnmarshalAny(e.Event)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.err = err
	}
	s.events = append(s.events, Event{e, body})
}

func (s *Stream) listenCtr(filters []string) {
	q := s.d.q
	q.Helper()
	argv := append([]string{"ctr", "events"}, filters...)
	typed := shellescape.QuoteCommand(argv)
	q.LogCommandAs(typed+" &", "mkdir -p "+s.name+" && "+typed+" > "+s.name+"/ctr & sleep 1")
	out, err := os.Create(s.out)
	if err != nil {
		q.Fatalf("listen with ctr events: %v", err)
	}
	defer out.Close()
	cmd := q.Cmd(context.Background(), argv...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		q.Fatalf("listen with ctr events: %v", err)
	}
	s.ended = make(chan error, 1)
	exited := s.ended
	go func() { exited <- cmd.Wait(); close(exited) }()
	q.Cleanup(func() { interrupt(q, cmd, exited) })
}

func interrupt(q *lab.Q, cmd *exec.Cmd, exited <-chan error) {
	if err := lab.Terminate(cmd, exited); err != nil {
		q.Error(err)
	}
}

// Mark returns the events since the last mark, and begins anew. It makes an event of its own and waits until both
// listeners have heard that one, so what the daemon sent before has come. A shim sends on a connection of its own: for an
// event of a shim's, [Stream.WaitFor] it first.
func (s *Stream) Mark() []Event {
	q := s.d.q
	q.Helper()
	// The first mark may come before a listener is in place, which nothing tells but a mark that is heard: repeat it.
	first := s.marks == 0
	s.marks++
	mark := fmt.Sprintf("%s-mark-%d-", s.name, s.marks)
	tries := 0
	send := func() error {
		tries++
		return s.d.client.NamespaceService().SetLabel(s.markContext(), s.markNamespace(), "mark", fmt.Sprint(mark, tries))
	}
	if err := send(); err != nil {
		q.Fatalf("mark the event stream: %v", err)
	}
	proc.WaitFor(q, func(poll.LogT) poll.Result {
		if err := s.failed(); err != nil {
			return poll.Error(err)
		}
		client, ctr := containsMark(s.client(), s.markNamespace(), mark), containsMark(s.ctr(), s.markNamespace(), mark)
		if client && ctr {
			return poll.Success()
		}
		if first {
			if err := send(); err != nil {
				return poll.Error(err)
			}
		}
		return poll.Continue("heard the mark: client %t, ctr events %t", client, ctr)
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	since := s.withoutMarks(s.events[s.begin:])
	s.begin = len(s.events)
	return since
}

// failed says why the client's subscription has ended; nil where it has not.
func (s *Stream) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		return nil
	}
	return fmt.Errorf("the subscription to containerd's events ended: %w", s.err)
}

// End waits until both listeners have been told that there is nothing more to hear, and says what they were told: the
// client an error, ctr events an exit code.
func (s *Stream) WaitClosed() (client, ctr error) {
	s.d.q.Helper()
	var ended bool
	proc.WaitFor(s.d.q, func(poll.LogT) poll.Result {
		select {
		case err, ok := <-s.ended:
			if ok {
				ctr = err
			}
			ended = true
		default:
		}
		if client = s.failed(); client == nil || !ended {
			return poll.Continue("the subscription's error: %v; ctr events has ended: %t", client, ended)
		}
		return poll.Success()
	})
	return client, ctr
}

func containsMark(lines []string, namespace, mark string) bool {
	for _, l := range lines {
		if strings.HasPrefix(l, namespace+" ") && strings.Contains(l, mark) {
			return true
		}
	}
	return false
}

// asked keeps the events that the question is about: no marks, and, where others use the daemon, too, those in namespaces
// of its own.
func (s *Stream) withoutMarks(all []Event) []Event {
	var out []Event
	for _, e := range all {
		if s.about(e.Namespace) {
			out = append(out, e)
		}
	}
	return out
}

func (s *Stream) about(namespace string) bool {
	return namespace != s.markNamespace() && (!s.d.shared || s.d.q.Owner.Owns("/"+namespace))
}

// WaitFor waits until an event of a topic has come.
func (s *Stream) WaitFor(topic string) {
	s.d.q.Helper()
	proc.WaitFor(s.d.q, func(poll.LogT) poll.Result {
		for _, l := range s.FromClient() {
			if strings.Contains(l, " "+topic+" ") {
				return poll.Success()
			}
		}
		return poll.Continue("no event %s yet", topic)
	})
}

// Events lists all events that the Go client heard, but for the marks.
func (s *Stream) Events() []Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.withoutMarks(s.events)
}

// FromClient lists the events that the Go client heard, one line each.
func (s *Stream) FromClient() []string { return s.unmarked(s.client()) }

// FromCtr lists the events that ctr events printed, one line each.
func (s *Stream) FromCtr() []string { return s.unmarked(s.ctr()) }

func (s *Stream) unmarked(lines []string) []string {
	var out []string
	for _, l := range lines {
		if namespace, _, _ := strings.Cut(l, " "); s.about(namespace) {
			out = append(out, l)
		}
	}
	return out
}

func (s *Stream) client() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, e := range s.events {
		out = append(out, e.String())
	}
	return out
}

// ctr reads what ctr events printed: date, time, zone, zone's name, namespace, topic, body.
func (s *Stream) ctr() []string {
	var out []string
	for _, l := range s.printed() {
		out = append(out, l.text)
	}
	return out
}

// printed is a line of ctr events.
type printed struct{ time, text string }

func (s *Stream) printed() []printed {
	data, err := os.ReadFile(s.out)
	if err != nil {
		return []printed{{text: err.Error()}}
	}
	var out []printed
	for line := range strings.Lines(string(data)) {
		f := strings.SplitN(strings.TrimSpace(line), " ", 7)
		if len(f) == 7 && strings.HasPrefix(f[3], "UTC") {
			f[6] = normalize(f[6])
			out = append(out, printed{strings.Join(f[:4], " "), strings.Join(f[4:], " ")})
		}
	}
	return out
}

// TimesFromCtr lists the times of the events, one for each line of [Stream.FromCtr].
func (s *Stream) TimesFromCtr() []string {
	var out []string
	for _, l := range s.printed() {
		if namespace, _, _ := strings.Cut(l.text, " "); s.about(namespace) {
			out = append(out, l.time)
		}
	}
	return out
}

// TimesFromClient lists the times of the events, one for each line of [Stream.FromClient], as ctr events writes them.
func (s *Stream) TimesFromClient() []string {
	var out []string
	for _, e := range s.Events() {
		out = append(out, e.Timestamp.String())
	}
	return out
}
