package results

import (
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

func TestRead_ReadsAQuestion(t *testing.T) {
	run, err := Read(strings.NewReader(`{"Action":"start","Package":"cdblab"}
{"Action":"run","Test":"TestLifecycle_WhatDoesKillDo"}
{"Action":"attr","Test":"TestLifecycle_WhatDoesKillDo","Key":"question","Value":"What does kill do?"}
{"Action":"attr","Test":"TestLifecycle_WhatDoesKillDo","Key":"source","Value":"lifecycle_kill_test.go:63"}
{"Action":"attr","Test":"TestLifecycle_WhatDoesKillDo","Key":"command","Value":"{\"script\":\"cat <<END\\n"}
{"Action":"attr","Test":"TestLifecycle_WhatDoesKillDo","Key":"command+","Value":"END\\n\"}"}
{"Action":"attr","Test":"TestLifecycle_WhatDoesKillDo","Key":"step","Value":"{\"number\":1,\"text\":\"kill it\"}"}
{"Action":"attr","Test":"TestLifecycle_WhatDoesKillDo","Key":"fact","Value":"{\"name\":\"state\",\"value\":\"stopped\",\"step\":1,\"data\":{\"a\\u0000\":[\"b\"]}}"}
{"Action":"output","Test":"TestLifecycle_WhatDoesKillDo","Output":"a long "}
{"Action":"output","Test":"TestLifecycle_WhatDoesKillDo","Output":"line\n"}
{"Action":"pass","Test":"TestLifecycle_WhatDoesKillDo","Elapsed":1.5}
{"Action":"output","Output":"ok\n"}
{"Action":"pass"}
`))
	assert.NilError(t, err)
	assert.Equal(t, len(run.Problems), 0, "%v", run.Problems)
	assert.Equal(t, run.Verdict, Answered)
	q := run.Question("TestLifecycle_WhatDoesKillDo")
	assert.Equal(t, q.Text, "What does kill do?")
	assert.Equal(t, q.Section(), "Lifecycle")
	assert.Equal(t, q.Source, "lifecycle_kill_test.go:63")
	assert.Equal(t, q.Steps[0].Items[0].Command.Script, "cat <<END\nEND\n")
	assert.DeepEqual(t, q.Facts(), []*Fact{{Name: "state", Value: "stopped", Step: 1, Data: map[string]any{"a�": []any{"b"}}}})
	assert.DeepEqual(t, q.Output, []string{"a long line"})
	assert.DeepEqual(t, run.Lines, []string{"ok"})
}
