//go:build linux

package systemd

import (
	"testing"

	"gotest.tools/v3/assert"
)

func TestSetEnv_HasTheLastValueOfEachVariable(t *testing.T) {
	environ := []string{"PATH=/bin", "HOME=/root", "CDB_RUN=/run/cdb-lab/1 x", "PATH=/lab:/bin"}
	assert.DeepEqual(t, setEnv(environ, "PATH", "CDB_RUN"), []string{"--setenv=PATH=/lab:/bin", "--setenv=CDB_RUN=/run/cdb-lab/1 x"})
}
