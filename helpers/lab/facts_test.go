//go:build linux

package lab

import (
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/host"
	"cdblab/helpers/tools"
)

type pid int

func (pid) Volatile() string { return "pid" }

func TestNormalize_NumbersVolatileValuesByKind(t *testing.T) {
	facts := newFacts(host.NewOwner("1", "q1"), map[string]tools.Program{
		"runc": {Name: "runc", Path: "/home/reader/cdblab/.lab/bin/runc"}, "busybox": {Name: "busybox", Path: "/bin/busybox"},
	})
	digestA, digestB := "sha256:"+strings.Repeat("a", 64), "sha256:"+strings.Repeat("b", 64)
	for _, c := range []struct {
		value any
		want  string
	}{
		{pid(4711), "<pid 1>"},
		{pid(12), "<pid 2>"},
		{pid(4711), "<pid 1>"}, // the same pid again
		{[]pid{12, 4711}, "<pid 2> <pid 1>"},
		{map[string]pid{"b": 12, "a": 4711}, "a=<pid 1> b=<pid 2>"},
		{Elapsed(time.Second), "<duration>"},
		{[]Elapsed{1, 2}, "<duration> <duration>"}, // whether two are equal is chance
		{Chance("first"), "<chance>"},
		{VolatileNames("directory", "1", "2", "1"), "<directory 1> <directory 2> <directory 1>"},
		{"snapshot " + digestB + " of " + digestA, "snapshot <digest 1> of <digest 2>"},
		{VolatileNames("digest", digestA), "<digest 2>"},
		{"sha256 of address/namespace/id", "sha256 of address/namespace/id"},
		{"exec /home/reader/cdblab/.lab/bin/runc init", "exec runc init"},
		{"ls /bin/busybox", "ls /bin/busybox"}, // in the container, on any machine
		{"/run/cdb-lab/1/containerd", "$RUN/containerd"},
		{"/run/cdb-lab/1/q1/bundle", "$Q/bundle"},
		{[]string{}, "none"},
		{"two\nlines", "two ⏎ lines"},
		{3, "3"},
	} {
		assert.Check(t, cmp.Equal(facts.normalize(c.value), c.want))
	}
	assert.DeepEqual(t, facts.data(map[string][]pid{"a": {12, 4711}, "b": nil}),
		map[string]any{"a": []any{"<pid 2>", "<pid 1>"}, "b": []any{}})
	assert.Equal(t, facts.data(pid(12)), nil)
	assert.Equal(t, plain([]pid{12, 4711}), "12 4711", "the reader sees volatile values as they are")
}
