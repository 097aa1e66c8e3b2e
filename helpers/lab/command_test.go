//go:build linux

package lab

import (
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"cdblab/helpers/proc"
)

func TestOutput_EndsAProgramThatDoesNotEnd(t *testing.T) {
	patience := proc.Patience
	proc.Patience = 100 * time.Millisecond
	defer func() { proc.Patience = patience }()
	_, err := Output("sleep", "60")
	assert.ErrorContains(t, err, "did not end within 100ms")
}

// A program that says what it can do has the same environment as one that a question runs.
func TestOutput_HasTheEnvironmentOfCommands(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "/run/notify")
	t.Setenv("CONTAINERD_NAMESPACE", "k8s.io")
	out, err := Output("env")
	assert.NilError(t, err)
	assert.Check(t, !strings.Contains(string(out), "NOTIFY_SOCKET") && !strings.Contains(string(out), "CONTAINERD_"), "%s", out)
	assert.Check(t, strings.Contains(string(out), "PATH="), "%s", out)
}
