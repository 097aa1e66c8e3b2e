//go:build linux && vmlab && selftest

package selftest

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// The control of the saboteurs: a wrapper that breaks no promise, as nvidia-container-runtime is one. The lab must not fail. These are
// the questions that look at the runtime itself: at its bytes, its processes, its system calls, and its parent.
func TestSaboteur_AnHonestWrapperPasses(t *testing.T) {
	real := tool(t, "runc")
	path := filepath.Join(t.TempDir(), "honest-runtime")
	assert.NilError(t, os.WriteFile(path, []byte("#!/bin/sh\nexec "+real+" \"$@\"\n"), 0o755))
	code, out := newLab("CDB_RUNC="+path,
		"-test.run=WhatIsTheDifferenceBetweenCreateAndStart|IsRuncMoreThanLibcontainer|WhoIsTheParent|WhatDoesStraceSee|WhereIsRunc").run(t)
	assert.Check(t, code == 0, "the lab fails with a wrapper that only executes runc:\n%s", out)
	assert.Check(t, strings.Contains(out, path), "the wrapper was not under test:\n%s", out)
	assert.Check(t, strings.Contains(out, "5 questions asked: 5 answered"), "%s", out)
}

// A saboteur is a runtime or a client that breaks one promise. The lab must fail, with a message that shows the broken promise.
// Each saboteur is a shell script around the real program ($real). In it, $verb is the runtime's operation, and $socket a
// socket that can be copied.
func TestSaboteur_FailsTheLab(t *testing.T) {
	const timeout = "CDB_TIMEOUT=10s"              // some saboteurs cost a whole timeout; on a busy machine a command takes seconds
	socket := filepath.Join(t.TempDir(), "socket") // no shell command makes one, but cp -a copies one
	listener, err := net.Listen("unix", socket)
	assert.NilError(t, err)
	t.Cleanup(func() { assert.Check(t, listener.Close()) })
	for _, s := range []struct {
		name, env, tool, script, question string
		want                              string // in the output
	}{
		{"create starts", "CDB_RUNC", "runc", `$real "$@" || exit; [ $verb != create ] || $real "$1" "$2" start cdb-runc`,
			"Lifecycle_WhatIsTheDifference", "assertion failed: running (state.Status specs.ContainerState) != created"},
		{"start does nothing", "CDB_RUNC", "runc", `[ $verb = start ] || exec $real "$@"`,
			"Lifecycle_WhatIsTheDifference", `is "runc:[2:INIT]", not yet "sleep"`},
		{"start makes another container", "CDB_RUNC", "runc", `[ $verb = start ] || exec $real "$@"
			$real "$1" "$2" delete -f "$4" && $real "$1" "$2" run -d --bundle bundle "$4"`,
			"Lifecycle_WhatIsTheDifference", "timeout hit"},
		{"state reports another status", "CDB_RUNC", "runc", `[ $verb = state ] || exec $real "$@"; $real "$@" | sed s/created/running/`,
			"Lifecycle_WhatIsTheDifference", "assertion failed: running (state.Status specs.ContainerState) != created"},
		{"shared network", "CDB_RUNC", "runc", `[ $verb != create ] || sed -zi 's/{\s*"type": "network"\s*},//' bundle/config.json; exec $real "$@"`,
			"Lifecycle_WhatIsTheDifference", "shares the host's net namespace"},
		{"delete leaves the state", "CDB_RUNC", "runc", `[ $verb = delete ] || exec $real "$@"`,
			"Lifecycle_WhatIsTheDifference", "the state directory still exists after delete"},
		{"refused create leaves a cgroup", "CDB_RUNC", "runc", `$real "$@" && exit; code=$?
			[ $verb = create ] && for h in /sys/fs/cgroup /sys/fs/cgroup/*; do
				[ ! -e $h/cgroup.procs ] || mkdir -p $h$(sed -n 's/.*"cgroupsPath": "\(.*\)".*/\1/p' bundle/config.json); done
			exit $code`,
			"Bundle_WhatDoesRuncNeed", "a refused create left something behind: cgroup left"},
		{"create writes in a default place", "CDB_RUNC", "runc", `$real "$@" || exit; [ $verb != create ] || mkdir -p /run/runc`,
			"Bundle_WhatDoesRuncNeed", "directory left: /run/runc"},
		{"a process is left", "CDB_RUNC", "runc", `[ $verb != create ] || sleep 30 > /dev/null 2>&1 & exec $real "$@"`,
			"Bundle_WhatDoesRuncNeed", "process left"},
		{"a limit is wrong", "CDB_RUNC", "runc", `[ $verb != create ] || sed -i 's/"limit": 77/"limit": 78/' "$5/config.json"; exec $real "$@"`,
			"Bundle_WhereDoesEachLimitGo", `linux.resources.pids.limit: pids.max reads "78" and not "77"`},
		{"kill sends another signal", "CDB_RUNC", "runc", `[ "$verb $5" != "kill USR1" ] || set -- "$1" "$2" kill "$4" USR2; exec $real "$@"`,
			"Lifecycle_WhatDoesKillDo", `reads "ready\nUSR2" (<nil>), not yet "ready\nUSR1"`},
		{"hooks are skipped", "CDB_RUNC", "runc", `[ $verb != create ] || sed -i 's/"hooks": {/"no hooks": {/' "$5/config.json"; exec $real "$@"`,
			"Lifecycle_WhenAndWhereDoHooksRun", "each hook and the program run exactly once"},
		{"pause does nothing", "CDB_RUNC", "runc", `[ $verb != pause ] || exit 0; exec $real "$@"`,
			"Lifecycle_WhatDoesPauseStop", "the freezer's state after pause"},
		{"failed create leaves its state", "CDB_RUNC", "runc", `$real "$@" && exit; code=$?; [ $verb != create ] || mkdir -p "$2/$6"; exit $code`,
			"Lifecycle_WhatIsLeftWhenCreateFails", "directory left"},
		{"read-only is dropped", "CDB_RUNC", "runc", `[ $verb != create ] || sed -i 's/"readonly": true/"readonly": false/' "$5/config.json"; exec $real "$@"`,
			"Bundle_WhichMountsMayTheContainerWriteTo", "root.readonly"},
		{"no event is received", "CDB_CTR", "ctr", `case "$*" in *" events"*) exec sleep 300;; esac; exec $real "$@"`,
			"Events_WhatCanContainerd", "received: by the Go client true, by ctr events false"},
		{"a container has a shim", "CDB_CTR", "ctr", `$real "$@" || exit
			case "$*" in *"containers create"*) shift 4; while [ "${1#cdb-task}" = "$1" ]; do shift; done; exec $real -n cdb-lab tasks start -d --null-io "$1";; esac`,
			"Task_WhereDoesTheShim", "length 1"},
		{"task delete does nothing", "CDB_CTR", "ctr", `case "$*" in *"tasks delete"*) exit 0;; esac; exec $real "$@"`,
			"Task_WhereDoesTheShim", "containers delete"},
		{"kill sends KILL in place of TERM", "CDB_CTR", "ctr", `case "$*" in *" -s "*) ;; *"tasks kill "*) exec $real "$1" "$2" tasks kill -s SIGKILL "$5";; esac; exec $real "$@"`,
			"Task_WhereDoesTheShim", "TERM was sent to a pid 1 that has no handler for it"},
		{"other users may enter the bundle", "CDB_RUNC", "runc", `case "$*" in *" create "*) for a; do [ "$last" != --bundle ] || chmod 755 "$a"; last=$a; done;; esac; exec $real "$@"`,
			"Task_HowIsTheShimReached", "type, mode and owner of the bundle"},
		{"a masked path is dropped", "CDB_RUNC", "runc", `case "$*" in *" create "*) for a; do [ "$last" != --bundle ] || sed -i 's,"/sys/firmware"\,,,' "$a/config.json"; last=$a; done;; esac; exec $real "$@"`,
			"Task_DoesCreatingAContainer", "/sys/firmware is not covered"},
		{"create makes a cgroup", "CDB_CTR", "ctr", `$real "$@" || exit
			case "$*" in *"containers create"*) for h in /sys/fs/cgroup /sys/fs/cgroup/*; do [ ! -e $h/cgroup.procs ] || mkdir -p "$h/$2/cdb-task$(echo "$2" | sed s/cdb-lab//)"; done;; esac`,
			"Task_DoesCreatingAContainer", "traces of a task, of a container that has none"},
		{"a task is easier to kill", "CDB_RUNC", "runc", `$real "$@" || exit; case "$*" in *" start "*) for id; do :; done
			echo 500 > /proc/$(sed 's/.*"init_process_pid":\([0-9]*\).*/\1/' "$2/$id/state.json")/oom_score_adj;; esac`,
			"Task_WhoIsWhoseParent", "oom_score_adj of the task"},
		{"a label is dropped", "CDB_CTR", "ctr", `case "$*" in *"containers create"*"--label"*) set -- $(echo "$*" | sed 's/--label [^ ]*//');; esac; exec $real "$@"`,
			"Task_CanTwoTasksShareAShim", "annotation of a container that ctr labels"},
		{"an exec that fails is reported as successful", "CDB_CTR", "ctr", `$real "$@"; code=$?; case "$*" in *"tasks exec"*) exit 0;; esac; exit $code`,
			"Task_WhereDoesAnExecGo", "0 (exit9.Code int) != 9 (int)"},
		{"delete frees no cgroup", "CDB_RUNC", "runc", `for a; do [ "$a" != delete ] || exit 0; done; exec $real "$@"`,
			"Task_WhatDoesAStoppedTask", "cgroup"},
		{"a running task is deleted", "CDB_CTR", "ctr", `case "$*" in *"tasks delete"*) set -- "$@" -f;; esac; exec $real "$@"`,
			"Task_WhatCanBeDeleted", "a task that runs was deleted"},
		{"lower directories are written to", "CDB_RUNC", "runc", `case "$*" in *" start "*) sed -n 's/.*lowerdir=\([^,]*\),.*/\1/p' /proc/mounts | tr : '\n' | while read -r d; do case $d in *cdb-lab*) echo > "$d/etc/sneaked";; esac; done;; esac; exec $real "$@"`,
			"Task_WhereDoTheFiles", "was written to"},
		{"an image is pulled twice", "CDB_CTR", "ctr", `case "$*" in *"images pull"*) $real "$@" || exit;; esac; exec $real "$@"`,
			"Task_WhatDoesAPull", "HEAD /v2/library/busybox/manifests/"},
		{"the wrong snapshotter is used", "CDB_CTR", "ctr", `for a; do shift; [ "$a" != native ] || a=overlayfs; set -- "$@" "$a"; done; exec $real "$@"`,
			"Task_WhatDoesAnotherSnapshotter", "a overlay is mounted"},
		{"one event is dropped", "CDB_CTR", "ctr", `case "$*" in *" events"*) $real "$@" | grep --line-buffered -v tasks/start; exit;; esac; exec $real "$@"`,
			"Events_DoCtrEvents", "tasks/start"},
		{"a pause does nothing", "CDB_RUNC", "runc", `for a; do [ "$a" != pause ] || exit 0; done; exec $real "$@"`,
			"Events_WhatDoesAnExecAdd", "paused, and the freezer is not frozen"},
		{"a limit is ten times as high", "CDB_RUNC", "runc", `case "$*" in *" create "*) for a; do [ "$last" != --bundle ] || sed -i 's/"limit":\([0-9]*\)/"limit":\10/' "$a/config.json"; last=$a; done;; esac; exec $real "$@"`,
			"Events_WhatDoesAnOOM", "OOM killer"},
		{"a start that fails is reported as successful", "CDB_CTR", "ctr", `$real "$@"; code=$?; case "$*" in *"tasks start"*) exit 0;; esac; exit $code`,
			"Events_WhatDoesAFailure", "a task of a missing program starts"},
		{"a metric is wrong", "CDB_CTR", "ctr", `case "$*" in *"tasks metrics"*) $real "$@" | sed 's/^pids.current  *1/pids.current 2/'; exit;; esac; exec $real "$@"`,
			"Events_DoTheMetrics", "pids, and the lines of cgroup.procs"},
		{"the leftovers of a dead shim are not removed", "CDB_RUNC", "runc", `case "$*" in *delete*--force*) exit 0;; esac; exec $real "$@"`,
			"Task_WhatHappensWhenTheShim", "shim KILL, running: the init"},
		{"a stopped task is reported as running", "CDB_CTR", "ctr", `case "$*" in *"tasks ls"*) $real "$@" | sed s/STOPPED/RUNNING/; exit;; esac; exec $real "$@"`,
			"Task_WhatHappensWhenIts", "by ctr tasks ls, and by the Go client"},
		{"create leaves a file beside its state", "CDB_RUNC", "runc", `[ $verb != create ] || : > "$2/left"; exec $real "$@"`,
			"Lifecycle_WhatIsTheDifference", "the question left something behind in the runtime's state directory: /run/cdb-lab/"},
		{"start leaves a socket in the bundle", "CDB_RUNC", "runc", `[ $verb != start ] || cp -a $socket bundle/left; exec $real "$@"`,
			"Lifecycle_WhatIsTheDifference", "the question left something behind: socket file /run/cdb-lab/"},
		{"start leaves a FIFO in the bundle", "CDB_RUNC", "runc", `[ $verb != start ] || mkfifo bundle/left 2>/dev/null; exec $real "$@"`,
			"Lifecycle_WhatIsTheDifference", "the question left something behind: FIFO /run/cdb-lab/"},
		{"create gives the null device away", "CDB_RUNC", "runc", `[ $verb != create ] || chown 1234:1234 /dev/null; exec $real "$@"`,
			"Lifecycle_WhatIsTheDifference", "the question left something behind: device left: /dev/null char 1:3, mode 666, owner 1234:1234"},
		{"runc does not log", "CDB_RUNC", "runc", `exec $real $(echo "$@" | sed 's,--log [^ ]*,--log /dev/null,')`,
			"Events_WhatDoDebugLogs", "log.json"},
	} {
		t.Run(s.name, func(t *testing.T) {
			before := takeInventory(t)
			path := filepath.Join(t.TempDir(), s.tool)
			script := "#!/bin/sh\nreal=" + tool(t, s.tool) + " socket=" + socket + `
				case "$*" in *--help*) exec $real "$@";; esac
				verb=$1; [ "$1" != --root ] || verb=$3
				` + s.script + "\n"
			assert.NilError(t, os.WriteFile(path, []byte(script), 0o755))
			code, out := newLab(s.env+"="+path, timeout, "-test.run="+s.question).run(t)
			assert.Check(t, code != 0, "the lab succeeds with this saboteur:\n%s", out)
			assert.Check(t, strings.Contains(out, s.want), "the lab does not print %q, but:\n%s", s.want, out)
			_ = os.Remove("/run/runc")
			assertHostUnchanged(t, before)
		})
	}
}
