//go:build linux

package lab

import (
	"strings"
	"testing"
	"testing/fstest"

	"gotest.tools/v3/assert"
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
