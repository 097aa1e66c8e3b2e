//go:build linux

package release

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

// programs makes a directory with files that can be executed, and returns its path.
func programs(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		assert.NilError(t, os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"), 0o755))
	}
	return dir
}

// described returns what a spec names, as "ctr 1.7.27" or "ctr /usr/bin/ctr".
func described(s Spec) []string {
	var out []string
	for _, t := range tested() {
		if p, ok := s.programs[t.Name]; ok {
			out = append(out, t.Name+" "+number(p.version)+p.path)
		}
	}
	return append(out, s.settings...)
}

func TestParse(t *testing.T) {
	whole := programs(t, "containerd", "ctr", "containerd-shim-runc-v2", "my-runc")
	noShim := programs(t, "containerd", "ctr")
	t.Setenv("PATH", whole)
	t.Chdir(whole)
	const shim = "containerd-shim-runc-v2"
	for _, row := range []struct {
		given string
		want  []string
	}{
		{"", nil},
		{"RUNC=1.2.5", []string{"runc 1.2.5"}},
		{"RUNC=v1.2.5", []string{"runc 1.2.5"}},
		{"RUNC=1.6.0-rc.1", []string{"runc 1.6.0-rc.1"}},
		{"RUNC=my-runc", []string{"runc " + whole + "/my-runc"}},
		{"RUNC=./my-runc", []string{"runc " + whole + "/my-runc"}},
		{"CONTAINERD=1.7.27", []string{"containerd 1.7.27", "ctr 1.7.27", shim + " 1.7.27"}},
		{"SHIM=1.7.27", []string{shim + " 1.7.27"}},
		{"SHIM=1.7.27 CONTAINERD=2.1.5", []string{"containerd 2.1.5", "ctr 2.1.5", shim + " 1.7.27"}},
		{"CONTAINERD=2.1.5 CTR=ctr", []string{"containerd 2.1.5", "ctr " + whole + "/ctr", shim + " 2.1.5"}},
		{"CONTAINERD=containerd", []string{"containerd " + whole + "/containerd", "ctr " + whole + "/ctr", shim + " " + whole + "/" + shim}},
		{"CONTAINERD=" + whole, []string{"containerd " + whole + "/containerd", "ctr " + whole + "/ctr", shim + " " + whole + "/" + shim}},
		{"CONTAINERD=" + noShim + "/containerd SHIM=1.7.27",
			[]string{"containerd " + noShim + "/containerd", "ctr " + noShim + "/ctr", shim + " 1.7.27"}},
		{"RUNC=1.2.5 CGROUP=v1 KERNEL=6.12", []string{"runc 1.2.5", "CDB_CGROUP=v1", "CDB_KERNEL=6.12"}},
	} {
		t.Run(row.given, func(t *testing.T) {
			spec, err := Parse(strings.Fields(row.given))
			assert.NilError(t, err)
			assert.DeepEqual(t, described(spec), row.want)
		})
	}
}

func TestParse_RefusesAWrongValue(t *testing.T) {
	half := programs(t, "containerd", "ctr")
	plain := filepath.Join(half, "plain")
	assert.NilError(t, os.WriteFile(plain, nil, 0o644))
	for _, row := range []struct{ given, seen, do string }{
		{"RUNC=1.2", "no complete version", "all three numbers"},
		{"RUNC=1.2.x", "no complete version", "all three numbers"},
		{"RUNC=1.2.5+unknown", "no complete version", "all three numbers"},
		{"RUNC=01.2.5", "no complete version", "all three numbers"},
		{"RUNC=1.2.5 1.3.4", "no complete version", "all three numbers"},
		{"RUNC=latest", "neither a version nor a program on PATH", "RUNC=1.2.5"},
		{"RUNC=$(id)", "neither a version nor a program on PATH", "RUNC=1.2.5"},
		{"CONTAINERD=latest", "neither a version nor a program on PATH", "CONTAINERD=/usr/bin/containerd"},
		{"RUNC=", "the value is empty", "unset RUNC"},
		{"CGROUP=", "the value is empty", "unset CGROUP"},
		{"RUNC=/no/such/runc", "/no/such/runc is no program", "a file that can be executed"},
		{"RUNC=" + plain, "permission denied", "a file that can be executed"},
		{"RUNC=" + half, "is a directory", "a file that can be executed"},
		{"CONTAINERD=" + half, half + "/containerd-shim-runc-v2 is no program", "SHIM="},
		{"CONTAINERD=" + half + "/containerd", half + "/containerd-shim-runc-v2 is no program", "SHIM="},
		{"RUNNC=1.2.5", "expected a variable and its value", "the variables are RUNC, CONTAINERD"},
		{"1.2.5", "expected a variable and its value", "RUNC=1.2.5"},
	} {
		t.Run(row.given, func(t *testing.T) {
			_, err := Parse([]string{row.given})
			assert.ErrorContains(t, err, row.given+": ")
			assert.ErrorContains(t, err, row.seen)
			_, do, _ := strings.Cut(err.Error(), "\n  what to do: ")
			assert.Check(t, cmp.Contains(do, row.do))
		})
	}
	_, err := Parse([]string{"RUNC=1.2.5", "RUNC=1.3.4"})
	assert.ErrorContains(t, err, "RUNC has a value already")
}

func TestEnviron(t *testing.T) {
	dir := programs(t, "runc", "ctr")
	spec, err := Parse([]string{"RUNC=" + dir + "/runc", "CGROUP=v1"})
	assert.NilError(t, err)
	base := []string{"HOME=/root", "RUNC=1.1.15 1.2.5", "SHIM=1.7.27", "CDB_RUNC=", "CDB_CGROUP=v2", "CDB_CTR=/usr/bin/ctr"}
	environ, err := spec.Environ(t.Context(), base)
	assert.NilError(t, err)
	assert.DeepEqual(t, environ, []string{"HOME=/root", "CDB_CTR=/usr/bin/ctr", "CDB_CGROUP=v1", "CDB_RUNC=" + dir + "/runc"})

	again, err := spec.Environ(t.Context(), environ)
	assert.NilError(t, err, "the same program is named twice")
	slices.Sort(environ)
	slices.Sort(again)
	assert.DeepEqual(t, again, environ)

	_, err = spec.Environ(t.Context(), []string{"CDB_RUNC=/usr/sbin/runc"})
	assert.ErrorContains(t, err, "the environment names another runc: CDB_RUNC=/usr/sbin/runc")
	assert.ErrorContains(t, err, "unset CDB_RUNC")

	pinned, err := Parse(nil)
	assert.NilError(t, err)
	assert.Equal(t, pinned.String(), "pinned")
	environ, err = pinned.Environ(t.Context(), []string{"CDB_RUNC=/usr/sbin/runc"})
	assert.NilError(t, err)
	assert.DeepEqual(t, environ, []string{"CDB_RUNC=/usr/sbin/runc"})
}

func TestResolve(t *testing.T) {
	dir := programs(t, "my-runc", "my-ctr")
	for _, name := range CDBVariables() {
		t.Setenv(name, "")
	}
	t.Setenv("RUNC", dir+"/my-runc")
	t.Setenv("CTR", "/no/such/ctr")
	assert.ErrorContains(t, Resolve(t.Context()), "CTR=/no/such/ctr")
	assert.Equal(t, os.Getenv("CDB_RUNC"), "", "after an error the environment is as it was")

	words := []string{"CTR=" + dir + "/my-ctr", "go", "test"}
	assert.NilError(t, Resolve(t.Context(), words[:1]...), "what is typed replaces what is exported")
	assert.DeepEqual(t, words[1:], []string{"go", "test"}) // the command of lab release
	assert.Equal(t, os.Getenv("CDB_RUNC"), dir+"/my-runc")
	assert.Equal(t, os.Getenv("CDB_CTR"), dir+"/my-ctr")
	_, stillThere := os.LookupEnv("RUNC")
	assert.Assert(t, !stillThere)
	assert.NilError(t, Resolve(t.Context()), "a second time there is nothing to do")
}
