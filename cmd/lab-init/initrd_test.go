package main

import (
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/vm/protocol"
)

// The wrapper says how slow the machine is, in the kernel's command line.
func TestWaitForDevice_WaitsForLongerOnASlowMachine(t *testing.T) {
	was := deviceTimeout
	t.Cleanup(func() { deviceTimeout = was })
	deviceTimeout = 10 * time.Millisecond
	for slowness, want := range map[string]string{"1": "10ms", "3": "30ms", "10": "100ms", "": "100ms", "0": "100ms", "many": "100ms"} {
		t.Setenv(protocol.SlownessEnv, slowness)
		_, err := waitForDevice("the disk lab-root", func() string { return "" })
		assert.Check(t, cmp.ErrorContains(err, "the disk lab-root did not appear within "+want), "slowness %q", slowness)
	}
	looks := 0
	found, err := waitForDevice("the disk lab-root", func() string {
		if looks++; looks < 3 {
			return ""
		}
		return "/dev/vda"
	})
	assert.NilError(t, err)
	assert.Equal(t, found, "/dev/vda")
}
