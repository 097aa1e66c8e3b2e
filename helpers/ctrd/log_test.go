//go:build linux

package ctrd

import (
	"testing"

	"gotest.tools/v3/assert"
)

func TestFindLogLine(t *testing.T) {
	const log = `time="2026-11-25T00:08:04Z" level=debug msg="starting signal loop" path=/run/a pid=7 runtime=io.containerd.runc.v2
time="2026-11-25T00:08:05.5Z" level=info msg="say \"b\"" id=b
`
	line, ok := findLogLine(log, `say "b"`, "id=b")
	assert.Check(t, ok)
	assert.Equal(t, line["level"], "info")
	assert.Equal(t, line.Time(t).Nanosecond(), 500000000)
	assert.Check(t, !line.IsFromShim())
	line, ok = findLogLine(log, "starting signal loop", "/run/a")
	assert.Check(t, ok && line.IsFromShim())
	_, ok = findLogLine(log, "starting signal loop", "/run/b")
	assert.Check(t, !ok)
}
