//go:build linux

package release

import (
	"debug/buildinfo"
	"debug/elf"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/tools"
)

// One release that cannot be had does not prevent another one from being built.
func TestBuildAll_GoesOnAfterAnError(t *testing.T) {
	useProxy(t, ctr("v2.0.7", emptyProgram, ""))
	s := newTestStore(t, t.TempDir())
	err := s.buildAll(t.Context(), []tools.Release{{Name: "containerd", Version: "2.0.6"}, {Name: "containerd", Version: "2.0.7"}})
	assert.Check(t, cmp.ErrorContains(err, "containerd 2.0.6: get "+v2+"@v2.0.6"))
	assert.Check(t, cmp.ErrorContains(err, "build containerd of "+v2+"@v2.0.7"), "the proxy has only ctr of it")
	assert.Check(t, !strings.Contains(err.Error(), "build ctr of"), "%v", err)

	t.Setenv(tools.ReleasesEnv, s.dir)
	p, err := (tools.Release{Name: "containerd"}).Tools()[1].FindEarlier(".", "2.0.7")
	assert.NilError(t, err)
	assert.Equal(t, p.Name, "ctr")
	assert.Equal(t, p.Version, "2.0.7")
}

// The tarball has earlier releases without their symbol tables, also for another architecture.
func TestBuildStripped_IsTheReleaseForTheArchitecture(t *testing.T) {
	useProxy(t, ctr("v2.0.7", emptyProgram, ""))
	other := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	out := filepath.Join(t.TempDir(), "ctr")
	tool := (tools.Release{Name: "containerd"}).Tools()[1]
	env := append(slices.Clone(tools.Levels), "GOARCH="+other)
	assert.NilError(t, BuildStripped(t.Context(), "", tool, "2.0.7", env, out))
	info, err := buildinfo.ReadFile(out)
	assert.NilError(t, err)
	assert.Equal(t, info.Main.Version, "v2.0.7")
	assert.Check(t, slices.Contains(info.Settings, debug.BuildSetting{Key: "GOARCH", Value: other}), "%v", info.Settings)
	f, err := elf.Open(out)
	assert.NilError(t, err)
	defer f.Close()
	assert.Check(t, f.Section(".symtab") == nil, "the program has a symbol table")

	err = BuildStripped(t.Context(), "", tool, "2.0.6", env, out)
	assert.Check(t, cmp.ErrorContains(err, "ctr 2.0.6: get "+v2+"@v2.0.6"))
}
