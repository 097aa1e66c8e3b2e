//go:build linux && vmlab && selftest

package selftest

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

// The control of the saboteurs: a wrapper that breaks no promise, as nvidia-container-runtime is one. The lab must not fail. These are
// the questions that look at the runtime itself: at its bytes, its processes, its system calls, and its parent. The control of make
// sabotage is the whole test: it asks the questions of all lies with a wrapper of runc and of ctr, and each question has a lie.
func TestSaboteur_AnHonestWrapperPasses(t *testing.T) {
	real := tool(t, "runc")
	path := filepath.Join(t.TempDir(), "honest-runtime")
	assert.NilError(t, os.WriteFile(path, []byte("#!/bin/sh\nexec "+real+" \"$@\"\n"), 0o755))
	code, out := newLab("CDB_RUNC="+path,
		"-test.run=WhatIsTheDifferenceBetweenCreateAndStart|IsRuncMoreThanLibcontainer|WhoIsTheParent|WhatDoesStraceSee|WhereIsRunc").run(t)
	assert.Check(t, code == 0, "the lab fails with a wrapper that only executes runc:\n%s", out)
	assert.Check(t, strings.Contains(out, path), "the wrapper was not under test:\n%s", out)
	assert.Check(t, strings.Contains(out, "5 questions asked: 5 answered"), "%s", out)
}

// test2json returns the path of the program that go tool test2json runs.
func test2json(t *testing.T) string {
	t.Helper()
	goCommand, err := exec.LookPath("go")
	if err != nil {
		t.Skipf("the output of the questions is read with go tool test2json, and there is no go command for root: %v\n"+
			"Run: sudo env PATH=\"$PATH\" make selftest", err)
	}
	path, err := exec.Command(goCommand, "tool", "-n", "test2json").Output()
	assert.NilError(t, err)
	return strings.TrimSpace(string(path))
}

// sabotage runs lab sabotage, and returns its exit code and its output.
func sabotage(t *testing.T, args ...string) (int, string) {
	t.Helper()
	l := newLab()
	l.Path = "./" + labCommand
	l.Args = append([]string{l.Path, "sabotage", "-test2json", test2json(t)}, args...)
	return l.run(t)
}

// make sabotage tries all lies. Here are three: of runc under the lab's hands, of runc under the shim, and of ctr.
func TestSaboteur_IsCaught(t *testing.T) {
	before := takeInventory(t)
	code, out := sabotage(t, "-lies", "create-starts a-task-is-easier-to-kill a-failed-start-is-successful")
	assert.Check(t, cmp.Equal(code, 0), "%s", out)
	assert.Check(t, cmp.Contains(out, "3 of 3 lies caught by the question whose promise they break, with the expected message"))
	assertHostUnchanged(t, before)
}

// What a saboteur does to the machine ends with its run, and the next one is unharmed. What is not caught, or not for the right
// reason, is reported.
func TestSaboteur_HarmsNothingAndIsReported(t *testing.T) {
	before := takeInventory(t)
	var table strings.Builder
	lies := []struct{ name, message, script, want string }{
		{"tells-the-truth", "no such message", ":", "NOT CAUGHT"},
		{"says-something-else", "no such message", "[ $verb != start ] || exit 1", "OTHER MESSAGE"},
		{"hangs", "the command had not ended after", "[ $verb != create ] || exec sleep 1000", "its question"},
		{"kills-its-caller", "It did not end", "[ $verb != create ] || kill -9 -1", "its question"},
		{"forks-without-end", "no such message", "[ $verb != create ] || { exec 2>/dev/null; f() { f | f & }; f; sleep 3600; }", "CUT OFF"},
		{"leaves-a-mount", "left something behind: mount left", "[ $verb != create ] || { mkdir $root/../left && mount -t tmpfs none $root/../left; }",
			"its question"},
		{"gives-the-null-device-away", "device left: /dev/null", "[ $verb != create ] || chown 1234:1234 /dev/null", "its question"},
		{"starts-at-create", "state.Status", `"$real" "$@" || exit; [ $verb != create ] || exec "$real" --root "$root" start "$id"; exit 0`,
			"its question"},
	}
	for _, l := range lies {
		table.WriteString("[[lie]]\nprogram = \"runc\"\nquestion = \"TestLifecycle_WhatIsTheDifferenceBetweenCreateAndStart\"\n" +
			"promise = \"x\"\nname = \"" + l.name + "\"\nmessage = '" + l.message + "'\nscript = '''" + l.script + "'''\n")
	}
	path := filepath.Join(t.TempDir(), "lies.toml")
	assert.NilError(t, os.WriteFile(path, []byte(table.String()), 0o644))
	code, out := sabotage(t, "-table", path, "-others=false")
	assert.Check(t, cmp.Equal(code, 1))
	for _, l := range lies {
		row := regexp.MustCompile(`(?m)^` + l.name + ` .*$`).FindString(out)
		assert.Check(t, cmp.Contains(row, l.want), "what is reported of the saboteur that %s:\n%s", strings.ReplaceAll(l.name, "-", " "), out)
	}
	assertHostUnchanged(t, before)
}
