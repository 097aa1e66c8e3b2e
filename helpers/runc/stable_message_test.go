//go:build linux

package runc

import (
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

func TestStableMessage_IsTheSameInEachRun(t *testing.T) {
	for _, row := range []struct{ stderr, want string }{
		{"time=\"…\" level=warning msg=\"first\"\ntime=\"…\" level=error msg=\"open /proc/4711/fd/7: bad\"\n", "open /proc/N/fd/N: bad"},
		{`level=error msg="unable to start: EOF; nsexec-1[815]: parent gone"`, "unable to start: EOF"},
		{`level=error msg="limit 4096 (usage: 1234567)"`, "limit 4096 (usage: N)"},
		{`level=error msg="rejecting memory limit 4096 <= usage 303104"`, "rejecting memory limit 4096 <= usage N"},
		{"exec /bin/script: no such file or directory", "exec /bin/script: no such file or directory"},
	} {
		assert.Check(t, cmp.Equal(StableMessage(row.stderr), row.want))
	}
}
