//go:build linux

package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/host"
	"cdblab/helpers/howto"
	"cdblab/helpers/tools"
)

func TestUse_ReplacesAProgramUntilTheEnd(t *testing.T) {
	dir := t.TempDir()
	program := func(version string) tools.Program {
		path := filepath.Join(dir, "runc-"+version)
		assert.NilError(t, os.WriteFile(path, []byte("#!/bin/sh\necho "+version+"\n"), 0o755))
		return tools.Program{Name: "runc", Path: path, Version: version, Pinned: version == "1.5.2"}
	}
	underTest := program("1.5.2")
	var q *Q
	t.Run("question", func(t *testing.T) {
		q, _, _ = recordedQuestion(t)
		q.session.run = &host.Run{Owner: host.NewOwner("1", "")}
		q.Dir, q.env, q.session.tools = t.TempDir(), &environment{}, map[string]tools.Program{"runc": underTest}
		typed := func() string { // by its name, and by the PATH of a daemon
			t.Helper()
			direct, err := q.Cmd(t.Context(), "runc").Output()
			assert.NilError(t, err)
			byPath, err := q.Cmd(t.Context(), "/bin/sh", "-c", "runc").Output()
			assert.NilError(t, err)
			assert.Equal(t, string(direct), string(byPath))
			return string(direct)
		}
		assert.Equal(t, q.UnderTest("runc").Version, "1.5.2")
		assert.Check(t, q.Pinned())
		for _, version := range []string{"1.1.11", "1.2.5"} {
			q.Use(program(version))
			assert.Equal(t, typed(), version+"\n")
			assert.Equal(t, q.UnderTest("runc").Version, version)
			assert.Check(t, !q.Pinned())
		}
		q.UseUnderTest()
		assert.Equal(t, typed(), "1.5.2\n")
	})
	assert.Equal(t, q.UnderTest("runc"), underTest)
	assert.Check(t, q.Pinned(), "the question is over")
}

func TestEarlier_SkipsWhatIsNotBuilt(t *testing.T) {
	t.Setenv(howto.Env, "")
	t.Setenv(tools.ReleasesEnv, t.TempDir())
	r := tools.Earlier[0]
	var q *Q
	t.Run("subtest", func(t *testing.T) {
		q, _, _ = recordedQuestion(t)
		q.Earlier(r.Name, r.Version)
		t.Error("it goes on without the release")
	})
	skipped := q.session.skips.sorted()
	assert.Assert(t, cmp.Len(skipped, 1))
	assert.Check(t, cmp.Contains(skipped[0].reason, fmt.Sprintf("%s %s is not built", r.Name, r.Version)))
	assert.Check(t, cmp.Contains(skipped[0].reason, "make releases"))

	t.Setenv(howto.Env, "/opt/cdblab/cdblab")
	_, err := r.Tools()[0].FindEarlier(".", r.Version)
	assert.Check(t, cmp.Contains(notBuilt(err), "unpack the tarball again"))
}
