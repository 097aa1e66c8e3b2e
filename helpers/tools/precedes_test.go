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
		{"prints no version", "1.2.0", false},
		{"", "1.2.0", false},
	} {
		got := Program{Version: row.prints}.Precedes(row.version)
		assert.Check(t, got == row.want, "%q precedes %s: %t", row.prints, row.version, got)
	}
}
