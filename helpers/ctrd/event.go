//go:build linux

package ctrd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/events"
)

// Event is one event that the daemon published.
type Event struct {
	*events.Envelope
	Body any // the decoded event: *events.TaskCreate and such, of containerd's api/events
}

// String returns the event as `ctr events` prints it, without its time, and with its body as [normalize] writes it.
func (e Event) String() string {
	body, err := json.Marshal(e.Body)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%s %s %s", e.Namespace, e.Topic, normalize(string(body)))
}

// Topics returns the topic of each event, in order.
func Topics(events []Event) []string {
	out := []string{}
	for _, e := range events {
		out = append(out, e.Topic)
	}
	return out
}

// FilterTopics returns the topics of those events that have one of the given topics, in order.
func FilterTopics(events []Event, topics ...string) []string {
	return slices.DeleteFunc(Topics(events), func(t string) bool { return !slices.Contains(topics, t) })
}

// InOrder returns the events in the order in which they were published, by their times. They may be received in another one: where a
// machine stands still, a shim sends an event again, and its next one may be there first.
func InOrder(events []Event) []Event {
	return slices.SortedStableFunc(slices.Values(events), func(a, b Event) int { return a.Timestamp.Compare(b.Timestamp) })
}

// IsTaskTopic reports whether a topic is about tasks.
func IsTaskTopic(topic string) bool { return strings.HasPrefix(topic, "/tasks/") }

// TaskTopics returns those of the topics that are about tasks, in order.
func TaskTopics(topics []string) []string {
	return slices.DeleteFunc(slices.Clone(topics), func(t string) bool { return !IsTaskTopic(t) })
}

// OtherTopics returns those of the topics that are not about tasks, in order.
func OtherTopics(topics []string) []string {
	return slices.DeleteFunc(slices.Clone(topics), IsTaskTopic)
}

// normalize writes an event's body, which is JSON, so that what ctr and the Go client received can be compared: its
// keys are sorted and its times are in RFC 3339. The events of containerd 1 have Go's times, which encoding/json writes
// in RFC 3339. Those of containerd 2 have protobuf's times, of which encoding/json writes the fields seconds and nanos.
// A body that is not JSON is returned as it is.
func normalize(body string) string {
	decoder := json.NewDecoder(strings.NewReader(body))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return body
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(replaceProtoTimes(value)); err != nil {
		return body
	}
	return strings.TrimSpace(out.String())
}

// replaceProtoTimes replaces each protobuf time in a decoded JSON value by its text in RFC 3339.
func replaceProtoTimes(value any) any {
	switch value := value.(type) {
	case map[string]any:
		if t, ok := protoTime(value); ok {
			return t.Format(time.RFC3339Nano)
		}
		for k := range value {
			value[k] = replaceProtoTimes(value[k])
		}
	case []any:
		for i := range value {
			value[i] = replaceProtoTimes(value[i])
		}
	}
	return value
}

// protoTime returns the time of a JSON object that is a protobuf time: it has the fields seconds and nanos, of which
// one that is zero is left out, and no other field.
func protoTime(object map[string]any) (time.Time, bool) {
	var parts [2]int64
	found := 0
	for i, key := range []string{"seconds", "nanos"} {
		if n, ok := object[key].(json.Number); ok {
			found++
			parts[i], _ = n.Int64()
		}
	}
	return time.Unix(parts[0], parts[1]).UTC(), found > 0 && found == len(object)
}
