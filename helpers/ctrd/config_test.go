//go:build linux

package ctrd

import (
	"bytes"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

func TestConfig_KeepsToItsDirectory(t *testing.T) {
	p, err := newPaths("/run/cdb-lab/12/q34/containerd", pinnedFeatures)
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
	_, err := newPaths("/run/cdb-lab/a-directory-with-a-long-name/and-another/containerd", pinnedFeatures)
	assert.ErrorContains(t, err, "42")
}

// An older containerd knows no socket_dir, and one before 2 no version 3.
func TestConfig_SpeaksTheDialectOfAnOlderContainerd(t *testing.T) {
	p, err := newPaths("/run/cdb-lab/12/q34/containerd", features{Version: 2})
	assert.NilError(t, err)
	assert.Equal(t, p.SocketDir, "/run/containerd/s")
	assert.Equal(t, p.RuncRoot, "/run/containerd/runc")
	p.Extra = []string{"[debug]\n  level = \"debug\""}
	var toml bytes.Buffer
	assert.NilError(t, config.Execute(&toml, p))
	assert.Check(t, cmp.Contains(toml.String(), "version = 2\n"))
	assert.Check(t, cmp.Contains(toml.String(), "\n[debug]\n  level"))
	assert.Check(t, !bytes.Contains(toml.Bytes(), []byte("socket_dir")))
}
