//go:build linux && vmlab && selftest

package selftest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// The kernel may take a killed process out of its cgroup more than a second later, on a machine whose processors are busy. runc does
// not wait longer, and its delete fails. Here a process that sleeps for five seconds keeps the cgroup busy. No question may fail.
func TestBusyCgroup_DeleteIsRepeated(t *testing.T) {
	before := takeInventory(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "runc")
	assert.NilError(t, os.WriteFile(path, []byte(`#!/bin/sh
real=`+tool(t, "runc")+` once=`+dir+`/once
case "$*" in *" delete "*)
	if [ ! -e $once ]; then
		touch $once
		for id; do :; done
		cgroup=$(sed -n 's/.*"cgroup_paths":{"[^"]*":"\([^"]*\)".*/\1/p' "$2/$id/state.json")
		sleep 5 </dev/null >/dev/null 2>&1 &
		echo $! > "$cgroup/cgroup.procs"
	fi
esac
exec $real "$@"
`), 0o755))
	code, out := newLab("CDB_RUNC="+path, "-test.v", differenceQuestion).run(t)
	assert.Check(t, code == 0 && strings.Contains(out, "1 questions asked: 1 answered"), "%s", out)
	assert.Check(t, strings.Contains(out, "so delete is repeated"), "the cgroup was not busy:\n%s", out)
	assertHostUnchanged(t, before)
}
