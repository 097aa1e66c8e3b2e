//go:build linux && vmtest

package vm

import (
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// TestSoak boots the VM many times while other processes use the CPUs. A guest that boots only nine times in ten is no
// reliable gate.
func TestSoak(t *testing.T) {
	boots, _ := strconv.Atoi(os.Getenv("CDB_BOOTS"))
	hogs, _ := strconv.Atoi(os.Getenv("CDB_HOGS"))
	if boots == 0 {
		t.Skip("this test takes long. Run: make soak-vm")
	}
	for range hogs {
		hog := exec.CommandContext(t.Context(), "sh", "-c", "while :; do :; done")
		assert.NilError(t, hog.Start())
		t.Cleanup(func() { _ = hog.Wait() })
	}
	failed, start := 0, time.Now()
	for i := range boots {
		boot := time.Now()
		res := guest(t, nil, "-test.run=TestResults")
		t.Logf("boot %d of %d: %.1f s", i+1, boots, time.Since(boot).Seconds())
		if res.err != nil || res.code != 0 {
			failed++
			t.Errorf("boot %d: exit code %d, %v\n%s%s", i+1, res.code, res.err, res.stdout, res.stderr)
		}
	}
	t.Logf("%d boots beside %d hogs in %v, %d failed", boots, hogs, time.Since(start).Round(time.Second), failed)
}
