//go:build linux

package ctrd

import (
	"bytes"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

func TestConfig_KeepsToItsDirectory(t *testing.T) {
	p, err := newPaths("/run/cdb-lab/12/q34/containerd")
	assert.NilError(t, err)
	var toml bytes.Buffer
	assert.NilError(t, config.Execute(&toml, p))
	for _, want := range []string{
		`root = "/run/cdb-lab/12/q34/containerd/root"`,
		`state = "/run/cdb-lab/12/q34/containerd/state"`,
		`address = "/run/cdb-lab/12/q34/containerd/containerd.sock"`,
		`socket_dir = "/run/cdb-lab/12/q34/s"`,
		`"io.containerd.nri.v1.nri"`,
	} {
		assert.Check(t, cmp.Contains(toml.String(), want))
	}
}

func TestNewPaths_RefusesWhatASocketCannotBeBoundTo(t *testing.T) {
	_, err := newPaths("/run/cdb-lab/a-directory-with-a-long-name/and-another/containerd")
	assert.ErrorContains(t, err, "42")
}
