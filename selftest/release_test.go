//go:build linux && vmlab && selftest

package selftest

import (
	"os/exec"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

// A run tests the release that RUNC names, and says which one it is and how it was built. The first time, the release is
// fetched and built.
func TestRelease_IsWhatIsTested(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skipf("the release must be built, and there is no go command for root: %v\nRun: sudo env PATH=\"$PATH\" make selftest", err)
	}
	l := newLab("-test.run=WhatIsTheDifferenceBetweenCreateAndStart")
	l.Path = "./" + labCommand
	l.Args = append([]string{l.Path, "release", "RUNC=1.2.5"}, l.Args...)
	code, out := l.run(t)
	assert.Check(t, cmp.Equal(code, 0), "%s", out)
	assert.Check(t, cmp.Contains(out, "runc version 1.2.5 (go"))
	assert.Check(t, cmp.Contains(out, "build tags seccomp,"))
}

// A release that cannot be had is one clear error, and nothing is tested.
func TestRelease_WrongNumberStopsTheRun(t *testing.T) {
	for word, want := range map[string]string{
		"RUNC=1.2":          "all three numbers",
		"RUNC=latest":       "neither a version nor a program",
		"CONTAINERD=/usr":   "/usr/containerd is no program",
		"RUNC=/no/such/one": "/no/such/one is no program",
	} {
		t.Run(word, func(t *testing.T) {
			l := newLab("-test.run=WhatIsTheDifferenceBetweenCreateAndStart")
			l.Path = "./" + labCommand
			l.Args = append([]string{l.Path, "release", word}, l.Args...)
			code, out := l.run(t)
			assert.Check(t, code != 0)
			assert.Check(t, cmp.Contains(out, "lab: "+word+": "))
			assert.Check(t, cmp.Contains(out, want))
			assert.Check(t, !strings.Contains(out, "questions asked"), "%s", out)
		})
	}
}
