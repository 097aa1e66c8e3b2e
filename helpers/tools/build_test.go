//go:build linux

package tools

import (
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// upToDate is the build information of a runc that the test's go.mod describes.
func upToDate() *debug.BuildInfo {
	levelName, level := level()
	return &debug.BuildInfo{
		GoVersion: runtime.Version(), Path: "github.com/opencontainers/runc",
		Main: debug.Module{Path: "github.com/opencontainers/runc", Version: "v1.5.2"},
		Settings: []debug.BuildSetting{
			{Key: "-tags", Value: runcBuild.Tags}, {Key: "CGO_ENABLED", Value: "1"}, {Key: "GOARCH", Value: runtime.GOARCH},
			{Key: levelName, Value: level},
		},
	}
}

// fakeModule returns a module's directory with a go.mod and a .lab/bin/runc, which has this build information.
func fakeModule(t *testing.T, info *debug.BuildInfo) string {
	t.Helper()
	was := readBuildInfo
	readBuildInfo = func(string) (*debug.BuildInfo, error) { return info, nil }
	t.Cleanup(func() { readBuildInfo = was })
	dir := t.TempDir()
	assert.NilError(t, os.WriteFile(dir+"/go.mod", []byte("module cdblab\n\nrequire (\n\tgithub.com/opencontainers/runc v1.5.2\n)\n"), 0o644))
	executable(t, dir+"/.lab/bin/runc")
	return dir
}

func TestFind_RefusesAStaleTool(t *testing.T) {
	runc := tool(t, "runc")
	for name, c := range map[string]struct {
		change func(*debug.BuildInfo)
		seen   string
	}{
		"version":    {func(i *debug.BuildInfo) { i.Main.Version = "v1.5.1" }, `the file has "v1.5.1", and should have "v1.5.2"`},
		"build tags": {func(i *debug.BuildInfo) { i.Settings[0].Value = "seccomp" }, `the build tags: the file has "seccomp"`},
		"no cgo":     {func(i *debug.BuildInfo) { i.Settings[1].Value = "0" }, "CGO_ENABLED"},
		"Go":         {func(i *debug.BuildInfo) { i.GoVersion = "go1.2" }, `the version of Go: the file has "go1.2"`},
		"package":    {func(i *debug.BuildInfo) { i.Path = "example.com/runc" }, "the package"},
		"level":      {func(i *debug.BuildInfo) { i.Settings[3].Value = "v9" }, `the file has "v9"`},
		"replaced":   {func(i *debug.BuildInfo) { i.Main.Replace = &debug.Module{Path: "../runc"} }, "replacement"},
	} {
		t.Run(name, func(t *testing.T) {
			info := upToDate()
			c.change(info)
			dir := fakeModule(t, info)
			_, err := runc.Find(dir)
			assert.ErrorContains(t, err, "is stale")
			assert.ErrorContains(t, err, c.seen)
			assert.ErrorContains(t, err, "make tools")
			assert.ErrorContains(t, runc.Stale(dir), c.seen)
		})
	}
	dir := fakeModule(t, upToDate())
	_, err := runc.Find(dir)
	assert.NilError(t, err)
	assert.NilError(t, runc.Stale(dir))
	assert.NilError(t, tool(t, "strace").Stale(dir))

	// A program that the environment names may be anything.
	t.Setenv("CDB_RUNC", executable(t, t.TempDir()+"/runc"))
	_, err = runc.Find(fakeModule(t, &debug.BuildInfo{}))
	assert.NilError(t, err)
}

// A replacement is compared as a whole. What a directory has today, only go knows.
func TestStale_OfAReplacedModule(t *testing.T) {
	runc := tool(t, "runc")
	for name, c := range map[string]struct {
		goMod        string
		built        *debug.Module
		stale, found string // the errors of Stale and of Find; "" for none
	}{
		"the same version": {
			"replace MODULE => example.com/fork v1.0.1", &debug.Module{Path: "example.com/fork", Version: "v1.0.1"}, "", "",
		},
		"another requirement": {"replace MODULE v1.5.1 => example.com/fork v1.0.1", nil, "", ""},
		"another version": {
			"replace MODULE => example.com/fork v1.0.1", &debug.Module{Path: "example.com/fork", Version: "v1.0.0"},
			`the file has "example.com/fork@v1.0.0", and should have "example.com/fork@v1.0.1"`, "is stale",
		},
		"the same directory": {
			"replace MODULE => ../runc", &debug.Module{Path: "../runc", Version: "(devel)"}, "only go knows what changed there", "",
		},
		"another directory": {
			"replace MODULE => ../runc", &debug.Module{Path: "../old", Version: "(devel)"}, `the file has "../old"`, "is stale",
		},
	} {
		t.Run(name, func(t *testing.T) {
			info := upToDate()
			info.Main.Replace = c.built
			dir := fakeModule(t, info)
			goMod := "module cdblab\n\nrequire MODULE v1.5.2\n" + c.goMod + "\n"
			goMod = strings.ReplaceAll(goMod, "MODULE", info.Main.Path)
			assert.NilError(t, os.WriteFile(dir+"/go.mod", []byte(goMod), 0o644))
			_, found := runc.Find(dir)
			for _, check := range []struct {
				got  error
				want string
			}{{runc.Stale(dir), c.stale}, {found, c.found}} {
				if check.want == "" {
					assert.NilError(t, check.got)
				} else {
					assert.ErrorContains(t, check.got, check.want)
				}
			}
		})
	}
}

func TestStale_MissingToolAndNoGoProgram(t *testing.T) {
	dir := fakeModule(t, upToDate())
	readBuildInfo = debugReadFile
	assert.ErrorContains(t, tool(t, "runc").Stale(dir), "unrecognized file format")
	assert.ErrorIs(t, tool(t, "ctr").Stale(dir), os.ErrNotExist)
	_, err := tool(t, "runc").Find(dir)
	assert.ErrorContains(t, err, "is stale")
}

var debugReadFile = readBuildInfo

func TestRequired(t *testing.T) {
	const goMod = "require (\n\texample.com/a v1.0.0\n\texample.com/a/v2 v2.1.0 // indirect\n)\nrequire example.com/c v0.1.0\nreplace example.com/c => ../c\n"
	for module, want := range map[string]string{"example.com/a": "v1.0.0", "example.com/a/v2": "v2.1.0", "example.com/c": "v0.1.0", "example.com/b": ""} {
		version, replacement, err := required([]byte(goMod), module)
		assert.NilError(t, err)
		assert.Equal(t, version, want, module)
		assert.Equal(t, replacement, map[string]string{"example.com/c": "../c"}[module], module)
	}
	b, err := os.ReadFile("../../go.mod")
	assert.NilError(t, err)
	for _, tool := range All {
		if tool.Build != nil {
			version, _, err := required(b, tool.Build.Module)
			assert.NilError(t, err)
			assert.Assert(t, version != "", tool.Name)
		}
	}
}

// The table of tools is the one home of the build tags.
func TestBuildTags_AreNotInTheMakefile(t *testing.T) {
	for _, name := range []string{"Makefile", "vm.mk"} {
		b, err := os.ReadFile(filepath.Join("../..", name))
		assert.NilError(t, err)
		assert.Assert(t, !strings.Contains(string(b), "no_cri") && !strings.Contains(string(b), "urfave"), name)
	}
}
