//go:build linux

package cgroup

import (
	"testing"

	"gotest.tools/v3/assert"
)

func TestStat_MatchesTheWholeKey(t *testing.T) {
	const text = "nr_periods 12\nnr_throttled 7\nthrottled_usec 300\n"
	n, err := stat(text, "nr_throttled")
	assert.NilError(t, err)
	assert.Equal(t, n, uint64(7))
	_, err = stat(text, "throttled")
	assert.ErrorContains(t, err, `no line "throttled"`)
	_, err = stat("oom_kill many\n", "oom_kill")
	assert.ErrorContains(t, err, "many")
}
