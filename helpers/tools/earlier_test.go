//go:build linux

package tools

import (
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"testing"

	"golang.org/x/mod/semver"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

func TestEarlier_HasProgramsOfTheTable(t *testing.T) {
	for _, r := range Earlier {
		assert.Check(t, semver.Canonical("v"+r.Version) == "v"+r.Version, "%v: write all three numbers", r)
		assert.Check(t, len(r.Tools()) > 0, "%v: runc or containerd", r)
	}
	names := func(r Release) (names []string) {
		for _, t := range r.Tools() {
			names = append(names, t.Name)
		}
		return names
	}
	assert.DeepEqual(t, names(Release{"runc", "1.1.11"}), []string{"runc"})
	assert.DeepEqual(t, names(Release{"containerd", "1.7.29"}), []string{"containerd", "ctr", "containerd-shim-runc-v2"})
	assert.Equal(t, len(names(Release{"strace", "6.1.0"})), 0)
	assert.Equal(t, len(names(Release{"other", "1.0.0"})), 0)
}

func TestFindEarlier_ChecksTheBuildInformation(t *testing.T) {
	ctr := tool(t, "ctr")
	build := ctr.OfRelease("v1.7.29")
	levelName, level := level()
	info := &debug.BuildInfo{
		GoVersion: runtime.Version(), Path: "github.com/containerd/containerd/cmd/ctr",
		Main: debug.Module{Path: "github.com/containerd/containerd", Version: "v1.7.29"},
		Settings: []debug.BuildSetting{
			{Key: "-tags", Value: build.Tags}, {Key: "CGO_ENABLED", Value: "0"}, {Key: "GOARCH", Value: runtime.GOARCH},
			{Key: levelName, Value: level},
		},
	}
	root := fakeModule(t, info)
	dir := filepath.Join(root, ".lab/releases", build.ReleaseDir("v1.7.29"))
	path := executable(t, dir+"/ctr")
	p, err := ctr.FindEarlier(root, "1.7.29")
	assert.NilError(t, err)
	assert.Equal(t, p.Path, path)
	assert.Equal(t, p.Version, "1.7.29")
	assert.Check(t, !p.Pinned)
	assert.Check(t, p.Precedes("2.0.0") && !p.Precedes("1.7.29"))

	t.Setenv(ReleasesEnv, filepath.Dir(dir))
	p, err = ctr.FindEarlier("/no/such/module", "1.7.29")
	assert.NilError(t, err)
	assert.Equal(t, p.Path, path)

	info.Main.Version = "v1.7.28"
	_, err = ctr.FindEarlier(root, "1.7.29")
	assert.Check(t, cmp.ErrorContains(err, `the file has "v1.7.28", and should have "v1.7.29"`))
	assert.Check(t, cmp.ErrorContains(err, "make releases"))

	readBuildInfo = debugReadFile
	_, err = ctr.FindEarlier(root, "2.0.7")
	assert.Check(t, cmp.ErrorIs(err, os.ErrNotExist))
	assert.Check(t, cmp.ErrorContains(err, "ctr 2.0.7 is not built"))
}
