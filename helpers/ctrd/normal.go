//go:build linux

package ctrd

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"
)

// normal writes an event's body, as JSON, in the one way in which two listeners can be compared: its keys in order, and
// its times as RFC 3339 has them. containerd 1's events have Go's times, which JSON writes so; those of containerd 2 are
// protobuf's, of which plain JSON knows only the fields.
func normalize(body string) string {
	in := json.NewDecoder(strings.NewReader(body))
	in.UseNumber()
	var v any
	if err := in.Decode(&v); err != nil {
		return body
	}
	var out bytes.Buffer
	to := json.NewEncoder(&out)
	to.SetEscapeHTML(false)
	if err := to.Encode(withTimes(v)); err != nil {
		return body
	}
	return strings.TrimSpace(out.String())
}

func withTimes(v any) any {
	switch v := v.(type) {
	case map[string]any:
		if t, ok := protoTime(v); ok {
			return t.Format(time.RFC3339Nano)
		}
		for k := range v {
			v[k] = withTimes(v[k])
		}
	case []any:
		for i := range v {
			v[i] = withTimes(v[i])
		}
	}
	return v
}

// protoTime reads protobuf's time: seconds and nanoseconds, of which a zero is left out.
func protoTime(m map[string]any) (time.Time, bool) {
	var parts [2]int64
	found := 0
	for i, key := range []string{"seconds", "nanos"} {
		if n, ok := m[key].(json.Number); ok {
			found++
			parts[i], _ = n.Int64()
		}
	}
	return time.Unix(parts[0], parts[1]).UTC(), found > 0 && found == len(m)
}
