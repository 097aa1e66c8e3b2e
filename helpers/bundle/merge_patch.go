//go:build linux

package bundle

import (
	"encoding/json"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// MergePatch returns a JSON document with merge patches applied, in their order (RFC 7386): null removes a field, and a list
// is replaced whole.
func MergePatch(tb testing.TB, document string, patches ...json.RawMessage) string {
	tb.Helper()
	decode := func(text string) (v any) {
		d := json.NewDecoder(strings.NewReader(text))
		d.UseNumber() // keep numbers as they are written: a float64 cannot hold every limit of 64 bits
		assert.NilError(tb, d.Decode(&v), "%s", text)
		return v
	}
	v := decode(document)
	for _, p := range patches {
		v = mergePatch(v, decode(string(p)))
	}
	out, err := json.MarshalIndent(v, "", "\t")
	assert.NilError(tb, err)
	return string(out)
}

func mergePatch(target, patch any) any {
	fields, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	object, ok := target.(map[string]any)
	if !ok {
		object = map[string]any{}
	}
	for name, value := range fields {
		if value == nil {
			delete(object, name)
		} else {
			object[name] = mergePatch(object[name], value)
		}
	}
	return object
}
