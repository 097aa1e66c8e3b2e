package tools

import (
	"testing"

	"gotest.tools/v3/assert"
)

func TestPrecedes_ComparesTheVersionThatTheProgramPrints(t *testing.T) {
	for _, row := range []struct {
		prints, version string
		want            bool
	}{
		{"runc version 1.1.12 (go1.26.8)", "1.2.0", true},
		{"runc version 1.2.0-rc.3", "1.2.0", true},
		{"runc version 1.2.0", "1.2.0", false},
		{"runc version 1.10.0", "1.2.0", false},
		{"runc version 1.1.5+ds1", "1.2.0", true},
		{"ctr github.com/containerd/containerd/v2 2.3.4+unknown (go1.26.8, build tags x)", "2.4.0", true},
		{"containerd github.com/containerd/containerd/v2 v2.2.0 1c4457e00facac03ce1d75f7b6777a7a851e5c41", "2.3.0", true},
		{"containerd github.com/containerd/containerd/v2 v2.2.0 1c4457e00facac03ce1d75f7b6777a7a851e5c41", "2.2.0", false},
		{"containerd containerd.io v1.7.28 b98a3aace656320842a23f4a392a33f46af97866", "2.0.0", true},
		{"Version:  v2.1.5", "2.2.0", true},
		{"Version:  v2.2.0-rc.1", "2.2.0", true},
		{"prints go1.25.4 only", "1.26.0", false},
		{"prints no version", "1.2.0", false},
		{"", "1.2.0", false},
	} {
		got := Program{Version: row.prints}.Precedes(row.version)
		assert.Check(t, got == row.want, "%q precedes %s: %t", row.prints, row.version, got)
	}
}
