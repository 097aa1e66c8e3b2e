//go:build linux && vmlab && selftest

package selftest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// A saboteur is a runtime, a daemon's client or a shim that breaks one promise. The lab must see it, and say what it saw.
// Each is a shell script around the real program ($real), in which $verb is the runtime's operation.
func TestSaboteur_IsSeen(t *testing.T) {
	const timeout = "CDB_TIMEOUT=5s"
	for _, s := range []struct {
		name, env, tool, script, question string
		says                              string
	}{
		{"create starts", "CDB_RUNC", "runc", `$real "$@" || exit; [ $verb != create ] || $real "$1" "$2" start cdb-runc`,
			"Lifecycle_WhatIsTheDifference", "assertion failed: running (state.Status specs.ContainerState) != created"},
		{"start does nothing", "CDB_RUNC", "runc", `[ $verb = start ] || exec $real "$@"`,
			"Lifecycle_WhatIsTheDifference", `is "runc:[2:INIT]", not yet "sleep"`},
		{"start makes another container", "CDB_RUNC", "runc", `[ $verb = start ] || exec $real "$@"
			$real "$1" "$2" delete -f "$4" && $real "$1" "$2" run -d --bundle bundle "$4"`,
			"Lifecycle_WhatIsTheDifference", "timeout hit"},
		{"state lies", "CDB_RUNC", "runc", `[ $verb = state ] || exec $real "$@"; $real "$@" | sed s/created/running/`,
			"Lifecycle_WhatIsTheDifference", "assertion failed: running (state.Status specs.ContainerState) != created"},
		{"shared network", "CDB_RUNC", "runc", `[ $verb != create ] || sed -zi 's/{\s*"type": "network"\s*},//' bundle/config.json; exec $real "$@"`,
			"Lifecycle_WhatIsTheDifference", "shares the host's net namespace"},
		{"delete leaves the state", "CDB_RUNC", "runc", `[ $verb = delete ] || exec $real "$@"`,
			"Lifecycle_WhatIsTheDifference", "state directory is still there"},
		{"refused create leaves a cgroup", "CDB_RUNC", "runc", `$real "$@" && exit; code=$?
			[ $verb = create ] && for h in /sys/fs/cgroup /sys/fs/cgroup/*; do
				[ ! -e $h/cgroup.procs ] || mkdir -p $h$(sed -n 's/.*"cgroupsPath": "\(.*\)".*/\1/p' bundle/config.json); done
			exit $code`,
			"Bundle_WhatDoesRuncNeed", "a refused create left something behind: cgroup left"},
		{"create writes in a default place", "CDB_RUNC", "runc", `$real "$@" || exit; [ $verb != create ] || mkdir -p /run/runc`,
			"Bundle_WhatDoesRuncNeed", "directory left: /run/runc"},
		{"a process is left", "CDB_RUNC", "runc", `[ $verb != create ] || sleep 30 > /dev/null 2>&1 & exec $real "$@"`,
			"Bundle_WhatDoesRuncNeed", "process left"},
		{"a limit is another one", "CDB_RUNC", "runc", `[ $verb != create ] || sed -i 's/"limit": 77/"limit": 78/' "$5/config.json"; exec $real "$@"`,
			"Bundle_WhereDoesEachLimitGo", `linux.resources.pids.limit: pids.max reads "78" and not "77"`},
		{"kill sends another signal", "CDB_RUNC", "runc", `[ "$verb $5" != "kill USR1" ] || set -- "$1" "$2" kill "$4" USR2; exec $real "$@"`,
			"Lifecycle_WhatDoesKillDo", `reads "ready\nUSR2" (<nil>), not "ready\nUSR1"`},
		{"hooks are skipped", "CDB_RUNC", "runc", `[ $verb != create ] || sed -i 's/"hooks": {/"no hooks": {/' "$5/config.json"; exec $real "$@"`,
			"Lifecycle_WhenAndWhereDoHooksRun", "each has exactly one turn"},
		{"pause does nothing", "CDB_RUNC", "runc", `[ $verb != pause ] || exit 0; exec $real "$@"`,
			"Lifecycle_WhatDoesPauseStop", "the freezer's state after pause"},
		{"failed create leaves its state", "CDB_RUNC", "runc", `$real "$@" && exit; code=$?; [ $verb != create ] || mkdir -p "$2/$6"; exit $code`,
			"Lifecycle_WhatIsLeftWhenCreateFails", "directory left"},
		{"read-only is dropped", "CDB_RUNC", "runc", `[ $verb != create ] || sed -i 's/"readonly": true/"readonly": false/' "$5/config.json"; exec $real "$@"`,
			"Bundle_WhichMountsMayTheContainerWriteTo", "root.readonly"},
		{"no event is told", "CDB_CTR", "ctr", `[ "$1" = events ] || exec $real "$@"; exec sleep 300`,
			"Events", "heard the mark: client true, ctr events false"},
		{"a container has a shim", "CDB_CTR", "ctr", `$real "$@" || exit
			case "$*" in *"containers create"*) shift 4; while [ "${1#cdb-task}" = "$1" ]; do shift; done; exec $real -n cdb-lab tasks start -d --null-io "$1";; esac`,
			"Task", "length 1"},
		{"task delete does nothing", "CDB_CTR", "ctr", `case "$*" in *"tasks delete"*) exit 0;; esac; exec $real "$@"`,
			"Task", "containers delete"},
	} {
		t.Run(s.name, func(t *testing.T) {
			before := picture(t)
			real, err := filepath.Abs(filepath.Join(root, ".lab", "bin", s.tool))
			assert.NilError(t, err)
			path := filepath.Join(t.TempDir(), s.tool)
			script := "#!/bin/sh\nreal=" + real + "\nverb=$1; [ \"$1\" != --root ] || verb=$3\n" + s.script + "\n"
			assert.NilError(t, os.WriteFile(path, []byte(script), 0o755))
			code, out := newLab(s.env+"="+path, timeout, "-test.run="+s.question).run(t)
			assert.Check(t, code != 0, "the lab did not see it:\n%s", out)
			assert.Check(t, strings.Contains(out, s.says), "the lab does not say %q, but:\n%s", s.says, out)
			_ = os.Remove("/run/runc")
			assertSame(t, before)
		})
	}
}
