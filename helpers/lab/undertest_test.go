//go:build linux

package lab

import (
	"strings"
	"testing"
	"testing/fstest"

	"gotest.tools/v3/assert"

	"cdblab/helpers/tools"
)

func TestDigestOf_IsAnotherOneForOtherQuestions(t *testing.T) {
	of := func(name, content string) string {
		return digestOf(fstest.MapFS{name: {Data: []byte(content)}, "events_test.go": {Data: []byte("package cdblab")}})
	}
	one := of("task_test.go", "package cdblab")
	assert.Check(t, strings.HasPrefix(one, "sha256:"), one)
	assert.Equal(t, of("task_test.go", "package cdblab"), one)
	assert.Check(t, of("task_test.go", "package cdblab // changed") != one, "a changed file has the same digest")
	assert.Check(t, of("task_exec_test.go", "package cdblab") != one, "a renamed file has the same digest")
}

func TestTooOld_NamesWhatIsNotSupported(t *testing.T) {
	programs := map[string]tools.Program{
		"runc":       {Name: "runc", Version: "runc version 1.1.12"},
		"containerd": {Name: "containerd", Version: "containerd github.com/containerd/containerd 1.6.20~ds1"},
		"busybox":    {Name: "busybox", Version: "BusyBox v1.35.0"},
	}
	lines := tooOld(programs)
	assert.Equal(t, len(lines), 1, "%q", lines)
	assert.Check(t, strings.HasPrefix(lines[0], "containerd is older than 1.7.27"), lines[0])
}
