//go:build linux

package ctrd

import (
	"testing"
	"time"

	eventsapi "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/core/events"
	"gotest.tools/v3/assert"
)

func TestNormalize(t *testing.T) {
	for _, row := range []struct{ name, body, want string }{
		{"an event of containerd 1", `{"pid":7,"exited_at":"2026-11-25T00:08:04.000000005Z","id":"a"}`, `{"exited_at":"2026-11-25T00:08:04.000000005Z","id":"a","pid":7}`},
		{"an event of containerd 2", `{"id":"a","pid":7,"exited_at":{"seconds":1795565284,"nanos":5}}`, `{"exited_at":"2026-11-25T00:08:04.000000005Z","id":"a","pid":7}`},
		{"a time without nanoseconds, in a list", `{"all":[{"seconds":1795565284}]}`, `{"all":["2026-11-25T00:08:04Z"]}`},
		{"objects that are not times", `{"a":{"seconds":1,"minutes":2},"b":{},"big":18446744073709551615}`, `{"a":{"minutes":2,"seconds":1},"b":{},"big":18446744073709551615}`},
		{"not JSON", `<nil>`, `<nil>`},
	} {
		t.Run(row.name, func(t *testing.T) { assert.Equal(t, normalize(row.body), row.want) })
	}
}

// The type of a task event decides its topic. Events of other types have topics of their own.
func TestTaskTopic_IsThatOfTheType(t *testing.T) {
	for want, body := range map[string]any{
		"/tasks/exit": &eventsapi.TaskExit{}, "/tasks/delete": &eventsapi.TaskDelete{}, "/tasks/oom": &eventsapi.TaskOOM{},
		"": &eventsapi.ContainerCreate{},
	} {
		assert.Equal(t, Event{Body: body}.taskTopic(), want)
	}
}

func TestInOrder_SortsByTime(t *testing.T) {
	at := func(topic string, seconds int64) Event {
		return Event{Envelope: &events.Envelope{Topic: topic, Timestamp: time.Unix(seconds, 0)}}
	}
	received := []Event{at("start", 2), at("create", 1), at("exit", 3), at("again", 1)}
	assert.DeepEqual(t, Topics(InOrder(received)), []string{"create", "again", "start", "exit"})
	assert.DeepEqual(t, Topics(received), []string{"start", "create", "exit", "again"})
}
