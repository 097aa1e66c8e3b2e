//go:build linux

package dist

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/tools"
)

var someTime = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

// unpack makes a small tarball and unpacks it with tar(1), as a user does.
func unpack(t *testing.T) Tree {
	t.Helper()
	files := map[string]File{
		Program: {0o755, []byte("#!/bin/sh\n")}, TestBinary: {0o755, []byte("questions")}, VersionFile: {0o644, []byte("cdblab 1\n")},
		BinDir + "/runc": {0o755, []byte("runc")}, BinDir + "/busybox": {0o755, []byte("busybox")},
	}
	var tarball bytes.Buffer
	assert.NilError(t, Write(&tarball, files, someTime))
	dir := t.TempDir()
	c := exec.Command("tar", "-C", dir, "-xpzf", "-") // -p: whatever the umask is
	c.Stdin = &tarball
	out, err := c.CombinedOutput()
	assert.NilError(t, err, "%s", out)
	return Tree(filepath.Join(dir, Top))
}

func TestWrite_TheSameFilesMakeTheSameBytes(t *testing.T) {
	write := func() []byte {
		var b bytes.Buffer
		files := map[string]File{}
		for i := range 50 {
			files[fmt.Sprintf("d%d/f%d", i%7, i)] = File{0o644, []byte{byte(i)}}
		}
		assert.NilError(t, Write(&b, files, someTime.In(time.FixedZone("", 3600))))
		return b.Bytes()
	}
	assert.Check(t, bytes.Equal(write(), write()))
}

// The build takes a file that git does not know.
func TestVersion_ShowsEachChange(t *testing.T) {
	dir := t.TempDir()
	git := func(args ...string) {
		args = append([]string{"-C", dir, "-c", "user.name=a", "-c", "user.email=a@example.org"}, args...)
		out, err := exec.Command("git", args...).CombinedOutput()
		assert.NilError(t, err, "%s", out)
	}
	git("init", "--quiet")
	git("commit", "--quiet", "--allow-empty", "--message=a", "--no-gpg-sign")
	b := Build{Module: dir, Arch: "amd64"}
	line, _, err := b.version(t.Context())
	assert.NilError(t, err)
	assert.Check(t, !strings.Contains(line, "+changes"), line)
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "new.go"), nil, 0o644))
	line, _, err = b.version(t.Context())
	assert.NilError(t, err)
	assert.Check(t, cmp.Contains(line, "+changes of "))
}

func TestVerify_FindsWhatIsDamaged(t *testing.T) {
	for name, c := range map[string]struct {
		change func(Tree) error
		want   string
	}{
		"changed": {func(t Tree) error { return os.WriteFile(t.path(TestBinary), []byte("other"), 0o755) }, "lib/lab.test is damaged"},
		"missing": {func(t Tree) error { return os.Remove(t.path("bin/runc")) }, "bin/runc: no such file"},
		"cut":     {func(t Tree) error { return os.WriteFile(t.path(SumsFile), nil, 0o644) }, "is empty"},
		"no sums": {func(t Tree) error { return os.WriteFile(t.path(SumsFile), []byte("x\n"), 0o644) }, "line 1 is no digest"},
	} {
		t.Run(name, func(t *testing.T) {
			tree := unpack(t)
			assert.NilError(t, tree.Verify())
			assert.NilError(t, c.change(tree))
			err := tree.Verify()
			assert.Check(t, cmp.ErrorContains(err, c.want))
			assert.Check(t, cmp.ErrorContains(err, "unpack"))
		})
	}
}

// The digests can be verified by the usual program, too.
func TestWrite_SumsAreThoseOfSha256sum(t *testing.T) {
	tree := unpack(t)
	c := exec.Command("sha256sum", "--strict", "--check", SumsFile)
	c.Dir = string(tree)
	out, err := c.CombinedOutput()
	assert.Check(t, err, "%s", out)
	info, err := os.Stat(tree.path(Program))
	assert.NilError(t, err)
	assert.Check(t, cmp.Equal(info.Mode().Perm(), os.FileMode(0o755)))
	assert.Check(t, info.ModTime().Equal(someTime))
}

// machine makes a PATH of a machine that has these programs.
func machine(t *testing.T, programs ...string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for _, name := range programs {
		assert.NilError(t, os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\nexit 1\n"), 0o755))
	}
	t.Setenv("PATH", dir)
	for _, tool := range tools.All {
		if tool.Env != "" {
			t.Setenv(tool.Env, "")
		}
	}
	t.Setenv(tools.ReleasesEnv, "")
	t.Setenv(tools.PinnedEnv, "")
	standardDirs = nil
	t.Cleanup(func() { standardDirs = usualDirs })
	return dir
}

func TestChoose_TheMachinesOwnThenThoseOfTheTarball(t *testing.T) {
	dir := machine(t, "runc", "ctr", "busybox")
	t.Setenv("CDB_CONTAINERD", "/opt/containerd")
	tree := Tree("/unpacked/cdblab")
	env := strings.Join(tree.Environ(tree.Choose(t.Context(), false)), " ")
	assert.Equal(t, env, "CDB_RUNC="+dir+"/runc CDB_CONTAINERD=/opt/containerd CDB_CTR="+dir+"/ctr "+
		"CDB_SHIM=/unpacked/cdblab/bin/containerd-shim-runc-v2 CDB_BUSYBOX=/unpacked/cdblab/bin/busybox CDB_PINNED=CDB_SHIM,CDB_BUSYBOX CDB_RELEASES=/unpacked/cdblab/releases")

	env = strings.Join(tree.Environ(tree.Choose(t.Context(), true)), " ")
	assert.Equal(t, env, "CDB_RUNC=/unpacked/cdblab/bin/runc CDB_CONTAINERD=/opt/containerd CDB_CTR=/unpacked/cdblab/bin/ctr "+
		"CDB_SHIM=/unpacked/cdblab/bin/containerd-shim-runc-v2 CDB_BUSYBOX=/unpacked/cdblab/bin/busybox "+
		"CDB_PINNED=CDB_RUNC,CDB_CTR,CDB_SHIM,CDB_BUSYBOX CDB_RELEASES=/unpacked/cdblab/releases")

	t.Setenv(tools.ReleasesEnv, "/opt/releases")
	env = strings.Join(tree.Environ(tree.Choose(t.Context(), true)), " ")
	assert.Check(t, cmp.Contains(env, "CDB_RELEASES=/opt/releases"))
}

// The questions run in a directory of the tarball. A path is relative to that of the user.
func TestChoose_TakesARelativePath(t *testing.T) {
	dir := machine(t, "own-runc")
	t.Chdir(dir)
	t.Setenv("CDB_RUNC", "./own-runc")
	t.Setenv("CDB_SHIM", "./no-such-shim")
	t.Setenv(tools.ReleasesEnv, "releases")
	tree := Tree("/unpacked/cdblab")
	env := tree.Environ(tree.Choose(t.Context(), false))
	for _, want := range []string{"CDB_RUNC=" + dir + "/own-runc", "CDB_SHIM=./no-such-shim", "CDB_RELEASES=" + dir + "/releases"} {
		assert.Check(t, cmp.Contains(env, want))
	}
}

func TestEnviron_PinsWhatTheUserPins(t *testing.T) {
	machine(t, "runc", "containerd")
	t.Setenv(tools.PinnedEnv, "CDB_RUNC,CDB_CONTAINERD")
	tree := Tree("/unpacked/cdblab")
	env := tree.Environ(tree.Choose(t.Context(), false))
	assert.Check(t, cmp.Contains(env, "CDB_PINNED=CDB_CTR,CDB_SHIM,CDB_BUSYBOX,CDB_RUNC,CDB_CONTAINERD"))
}

func TestDescribe_SaysWhereEachProgramComesFrom(t *testing.T) {
	dir := machine(t, "runc", "containerd", "ctr")
	script := func(name, script string) {
		assert.NilError(t, os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755))
	}
	script("dpkg-query", `case "$1 $2" in
"--search `+dir+`/runc") echo "runc: `+dir+`/runc";;
"--show --showformat") echo "$4 1.1.15+ds1-2";;
*) exit 1;; esac`)
	script("rpm", `case $4 in *ctr) echo containerd.io 1.7.29-1.el9;; *) echo "file $4 is not owned by any package"; exit 1;; esac`)
	text := Describe("cdblab 1", Tree("/unpacked").Choose(t.Context(), false))
	for _, want := range []string{
		"cdblab 1\n", dir + "/runc (runc 1.1.15+ds1-2)", dir + "/ctr (containerd.io 1.7.29-1.el9)", dir + "/containerd (of no package)",
		"/unpacked/bin/containerd-shim-runc-v2 (this machine has none, so the one of the tarball is asked about)",
		"/unpacked/bin/busybox (of the tarball)",
	} {
		assert.Check(t, cmp.Contains(text, want))
	}
}

// The questions look for an earlier release in the directory that its build names.
func TestAddEarlier_HasEachReleaseWhereTheQuestionsLookForIt(t *testing.T) {
	other := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	for _, arch := range []string{runtime.GOARCH, other} {
		b := &Build{Arch: arch, Log: t.Logf, dir: t.TempDir()}
		b.Earlier = func(_ context.Context, _ string, tool tools.Tool, version string, env []string, out string) error {
			assert.Check(t, slices.Contains(env, "GOARCH="+arch) && slices.Contains(env, "GOAMD64=v1"), "%v", env)
			return os.WriteFile(out, []byte(tool.Name+" "+version), 0o755)
		}
		files := map[string]File{}
		assert.NilError(t, b.addEarlier(t.Context(), files))
		count := 0
		for _, r := range tools.Earlier {
			for _, tool := range r.Tools() {
				count++
				build := tool.OfRelease("v" + r.Version)
				dir := build.ReleaseDir("v" + r.Version)
				if arch == other {
					dir = build.ReleaseDirFor("v"+r.Version, other)
					assert.Check(t, dir != build.ReleaseDir("v"+r.Version))
				}
				f := files[filepath.Join("releases", dir, tool.Name)]
				assert.Check(t, cmp.Equal(string(f.Content), tool.Name+" "+r.Version))
				assert.Check(t, cmp.Equal(f.Mode, os.FileMode(0o755)))
			}
		}
		assert.Equal(t, len(files), count)
	}

	b := &Build{Arch: runtime.GOARCH, Log: t.Logf, dir: t.TempDir()}
	b.Earlier = func(context.Context, string, tools.Tool, string, []string, string) error {
		return os.ErrDeadlineExceeded
	}
	err := b.addEarlier(t.Context(), map[string]File{})
	assert.ErrorIs(t, err, os.ErrDeadlineExceeded, "a tarball without a release is made")
	assert.ErrorContains(t, err, "build "+tools.Earlier[0].Name+" "+tools.Earlier[0].Version)
}
