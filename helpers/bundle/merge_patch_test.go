//go:build linux

package bundle

import (
	"bytes"
	"encoding/json"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

// Most rows are of RFC 7386, appendix A.
func TestMergePatch(t *testing.T) {
	for _, row := range []struct{ document, patch, want string }{
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[1,2]}`, `{"a":[3]}`, `{"a":[3]}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
		{`{"a":"b"}`, `["c"]`, `["c"]`},
		{`{"a":1}`, `{"b":18446744073709551615}`, `{"a":1,"b":18446744073709551615}`}, // no float64 holds it
	} {
		var got bytes.Buffer
		assert.NilError(t, json.Compact(&got, []byte(MergePatch(t, row.document, json.RawMessage(row.patch)))))
		assert.Check(t, cmp.Equal(got.String(), row.want), "%s patched with %s", row.document, row.patch)
	}
}
