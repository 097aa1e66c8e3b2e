//go:build linux

package image

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"gotest.tools/v3/assert"
)

// A client gets the bytes before the break, then an error; and the rest, if it asks for the range that is missing.
func TestSubstitute_BreaksOffAndIsTakenUp(t *testing.T) {
	for _, row := range []struct {
		name      string
		serve     Substitute
		from      string // the range that is asked for
		want      string
		breaksOff bool
	}{
		{"whole", Substitute{Body: []byte("0123456789")}, "", "0123456789", false},
		{"broken", Substitute{Body: []byte("0123456789"), BreakOff: 4}, "", "0123", true},
		{"range", Substitute{Body: []byte("0123456789")}, "bytes=4-", "456789", false},
		{"range before the break", Substitute{Body: []byte("0123456789"), BreakOff: 4}, "bytes=2-", "23", true},
		{"range after the break", Substitute{Body: []byte("0123456789"), BreakOff: 4}, "bytes=6-", "", true},
	} {
		t.Run(row.name, func(t *testing.T) {
			server := httptest.NewServer(row.serve)
			defer server.Close()
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
			assert.NilError(t, err)
			if row.from != "" {
				r.Header.Set("Range", row.from)
			}
			response, err := server.Client().Do(r)
			assert.NilError(t, err)
			defer response.Body.Close()
			got, err := io.ReadAll(response.Body)
			assert.Equal(t, string(got), row.want)
			assert.Equal(t, errors.Is(err, io.ErrUnexpectedEOF), row.breaksOff, "error of the body: %v", err)
		})
	}
}
