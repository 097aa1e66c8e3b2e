package howto

import (
	"testing"

	"gotest.tools/v3/assert"
)

func TestCommands(t *testing.T) {
	t.Setenv(Env, "")
	assert.Equal(t, Sweep(), "make sweep")
	assert.Equal(t, With("CDB_KEEP=1", RunHere()), "CDB_KEEP=1 make lab-here")
	assert.Equal(t, RunHereOnly("Pause"), "make lab-here Q=Pause")
	assert.Equal(t, Run(), "make lab")
	assert.Equal(t, RunOnly("TestX"), "make lab Q='^TestX$'")
	assert.Equal(t, RunOnly("TestX'; reboot #"), `make lab Q='^TestX'"'"'; reboot #$'`)

	t.Setenv(Env, "/opt/cdblab/cdblab")
	assert.Equal(t, Sweep(), "sudo /opt/cdblab/cdblab sweep")
	assert.Equal(t, With("CDB_KEEP=1", RunHere()), "sudo env CDB_KEEP=1 /opt/cdblab/cdblab run")
	assert.Equal(t, RunHereOnly("Pause"), "sudo /opt/cdblab/cdblab run -run Pause")
	assert.Equal(t, Run(), "sudo /opt/cdblab/cdblab run")
	assert.Equal(t, RunOnly("TestX"), "sudo /opt/cdblab/cdblab run -run '^TestX$'")
}
