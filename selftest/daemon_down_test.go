//go:build linux && vmlab && selftest

package selftest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

// A containerd that was stopped, or replaced by another release, cannot start again while a question has running tasks. The question
// fails with the daemon's error. Nothing is left of the tasks, so the next subtest can use the same directories.
func TestDaemonDown_ItsTasksAreDeleted(t *testing.T) {
	const (
		created = "-test.run=Task_WhatDoesATaskHoldThatWasNeverStarted"                                             // one daemon, two starts
		replace = "-test.run=Task_WhatHappensToRunningTasksWhenContainerdIsUpgraded|Task_CanContainerdBeDowngraded" // one daemon a subtest
	)
	for _, c := range []struct {
		name, question string
		refuses        string // condition in the shell, of the number $n of the start
		failures       int    // starts of a question that are refused
		cleanup        bool   // the daemon does not start for the cleanup, either
	}{
		{"the second start fails", created, "[ $n = 2 ]", 1, false},
		{"each start but the first fails", created, "[ $n != 1 ]", 1, true},
		{"the new release does not start", replace, "true", 4, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := takeInventory(t)
			dir := t.TempDir()
			path := filepath.Join(dir, "containerd")
			script := fmt.Sprintf("#!/bin/sh\ncase \"$*\" in --config*--address*)\n\techo >> %[1]s/starts; n=$(wc -l < %[1]s/starts)\n"+
				"\tif %[2]s; then echo broken start $n >&2; exit 1; fi\nesac\nexec %[3]s \"$@\"\n", dir, c.refuses, tool(t, "containerd"))
			assert.NilError(t, os.WriteFile(path, []byte(script), 0o755))
			code, out := newLab(c.question, "CDB_CONTAINERD="+path, "-test.v").run(t)
			if strings.Contains(out, "this compares with an earlier release") {
				t.Skip("the earlier releases of containerd are not built: make selftest")
			}
			assert.Check(t, code != 0, "%s", out)
			want := map[string]int{
				"broken start": c.failures, "containerd ended before it answered": c.failures,
				"start containerd again, to delete the tasks": 0, "left something behind": 0, "file exists": 0, "not removed": 0,
			}
			if c.cleanup {
				want["broken start"], want["containerd ended before it answered"] = 3, 2 // the second log has both starts
				want["start containerd again, to delete the tasks"] = 1
			}
			for words, n := range want {
				assert.Check(t, cmp.Equal(strings.Count(out, words), n), "how often %q is in the output:\n%s", words, out)
			}
			assertHostUnchanged(t, before)
		})
	}
}
