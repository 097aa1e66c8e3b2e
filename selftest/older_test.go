//go:build linux && vmlab && selftest

package selftest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

// olderContainerd makes a containerd and a ctr without the options to use another directory than /run/containerd, as older
// releases are. It returns the environment variables that name them.
func olderContainerd(t *testing.T) []string {
	t.Helper()
	var vars []string
	for variable, fake := range map[string][2]string{
		"CDB_CONTAINERD": {"containerd", `[ "$1 $2" = "config default" ] && { $real "$@" | grep -v socket_dir; exit; }`},
		"CDB_CTR":        {"ctr", `case "$*" in *--help*) $real "$@" | grep -v runc-root; exit;; esac`},
	} {
		path := filepath.Join(t.TempDir(), fake[0])
		script := fmt.Sprintf("#!/bin/sh\nreal=%s\n%s\nexec $real \"$@\"\n", tool(t, fake[0]), fake[1])
		assert.NilError(t, os.WriteFile(path, []byte(script), 0o755))
		vars = append(vars, variable+"="+path)
	}
	return vars
}

// A containerd that cannot be configured otherwise writes into the default place. The lab removes that, after a run and after a
// run that was killed.
func TestOlderContainerd_TheDefaultPlaceIsLeftAsItWas(t *testing.T) {
	if _, err := os.Stat("/run/containerd"); err == nil {
		t.Skip("this host has a /run/containerd, and the test asserts that there is none: run it on a host without containerd")
	}
	before := takeInventory(t)
	t.Run("after a run", func(t *testing.T) {
		code, out := newLab(append(olderContainerd(t), chapterQuestions)...).run(t)
		assert.Check(t, cmp.Equal(code, 0), "%s", out)
		assertHostUnchanged(t, before)
	})
	t.Run("after a killed run", func(t *testing.T) {
		l := newLab(append(olderContainerd(t), chapterQuestions)...)
		l.startUntil(t, "tasks metrics", 1)
		_, err := os.Stat("/run/containerd")
		assert.Check(t, err, "this containerd has not used the default place, so nothing is shown")
		kill(t, l.Process.Pid, unix.SIGKILL)
		_ = l.Wait()
		assertHostUnchanged(t, before)
	})
}
