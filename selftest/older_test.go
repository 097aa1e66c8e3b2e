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

// older makes a containerd and a ctr that do not know how to keep off /run/containerd, and returns the variables that name
// them.
func older(t *testing.T) []string {
	t.Helper()
	var vars []string
	for variable, tool := range map[string][2]string{
		"CDB_CONTAINERD": {"containerd", `[ "$1 $2" = "config default" ] && { $real "$@" | grep -v socket_dir; exit; }`},
		"CDB_CTR":        {"ctr", `case "$*" in *--help*) $real "$@" | grep -v runc-root; exit;; esac`},
	} {
		real, err := filepath.Abs(filepath.Join(root, ".lab", "bin", tool[0]))
		assert.NilError(t, err)
		path := filepath.Join(t.TempDir(), tool[0])
		script := fmt.Sprintf("#!/bin/sh\nreal=%s\n%s\nexec $real \"$@\"\n", real, tool[1])
		assert.NilError(t, os.WriteFile(path, []byte(script), 0o755))
		vars = append(vars, variable+"="+path)
	}
	return vars
}

// What a containerd that cannot be told otherwise has put into the default place is removed by the lab: after a run, and
// after a run that was killed.
func TestOlder_TheDefaultPlaceIsLeftAsItWas(t *testing.T) {
	if _, err := os.Stat("/run/containerd"); err == nil {
		t.Skip("/run/containerd is in use here, and this test looks that it is gone: run it on a host without containerd")
	}
	before := picture(t)
	t.Run("after a run", func(t *testing.T) {
		code, out := newLab(append(older(t), starred)...).run(t)
		assert.Check(t, cmp.Equal(code, 0), "%s", out)
		assertSame(t, before)
	})
	t.Run("after a killed one", func(t *testing.T) {
		l := newLab(append(older(t), starred)...)
		l.startUntil(t, "tasks metrics", 1)
		kill(t, l.Process.Pid, unix.SIGKILL)
		_ = l.Wait()
		assertSame(t, before)
	})
}
