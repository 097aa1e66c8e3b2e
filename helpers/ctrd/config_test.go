//go:build linux

package ctrd

import (
	"bytes"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

func TestConfig_NamesOnlyItsOwnDirectories(t *testing.T) {
	s, err := newSettings("/run/cdb-lab/12/q34/containerd", pinnedFeatures)
	assert.NilError(t, err)
	var toml bytes.Buffer
	assert.NilError(t, config.Execute(&toml, s))
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

func TestNewSettings_RejectsASocketDirThatIsTooLong(t *testing.T) {
	_, err := newSettings("/run/cdb-lab/a-directory-with-a-long-name/and-another/containerd", pinnedFeatures)
	assert.ErrorContains(t, err, "42")
}

// An older containerd has no setting socket_dir, and containerd 1 does not know version 3 of the configuration.
func TestConfig_SuitsAnOlderContainerd(t *testing.T) {
	s, err := newSettings("/run/cdb-lab/12/q34/containerd", features{Version: 2})
	assert.NilError(t, err)
	assert.Equal(t, s.SocketDir, "/run/containerd/s")
	assert.Equal(t, s.RuncRoot, "/run/containerd/runc")
	s.Tables = []string{"[debug]\n  level = \"debug\""}
	var toml bytes.Buffer
	assert.NilError(t, config.Execute(&toml, s))
	assert.Check(t, cmp.Contains(toml.String(), "version = 2\n"))
	assert.Check(t, cmp.Contains(toml.String(), "\n[debug]\n  level"))
	assert.Check(t, !bytes.Contains(toml.Bytes(), []byte("socket_dir")))
}
