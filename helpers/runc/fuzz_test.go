//go:build linux

package runc

import "testing"

// parseState accepts only state documents that have what the specification requires, whatever a runtime prints.
func FuzzState(f *testing.F) {
	f.Add(`{"ociVersion": "1.3.0", "id": "a", "pid": 7, "status": "running", "bundle": "/b", "annotations": {"k": "v"}}`)
	f.Add(`{"ociVersion": "1.3.0", "id": "a", "status": "stopped", "bundle": "/b"}`)
	f.Add(`{"id": "a"}`)
	f.Add(`null`)
	f.Add("")
	f.Fuzz(func(t *testing.T, document string) {
		s, err := parseState(document)
		if err == nil && (s.Version == "" || s.ID == "" || s.Status == "" || s.Bundle == "" || s.Pid < 0) {
			t.Errorf("%q is accepted as %+v", document, s)
		}
	})
}
