//go:build linux

package tools

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
)

// A Release is a release of runc or containerd.
type Release struct {
	Name    string // "runc" or "containerd"
	Version string // without a v: "1.7.29"
}

// Earlier are the releases that questions use beside the programs under test: [Tool.FindEarlier]. `make releases` builds them, the
// throw-away VM has those that are built, and the tarball of `make dist` has all of them.
var Earlier = []Release{
	{"runc", "1.1.11"}, // the last one before the fix of CVE-2024-21626; it has CVE-2025-31133 as well
	{"containerd", "1.7.29"},
	{"containerd", "2.0.7"},
}

// Tools returns the tools that a release has: runc, or containerd, ctr and the shim.
func (r Release) Tools() []Tool {
	i := slices.IndexFunc(All, func(t Tool) bool { return t.Name == r.Name })
	if i < 0 || All[i].Build == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(All), func(t Tool) bool { return t.Build == nil || t.Build.Module != All[i].Build.Module })
}

// ReleasesEnv is the environment variable that names the directory of the releases, where it is not .lab/releases.
const ReleasesEnv = "CDB_RELEASES"

// FindEarlier finds the program t of an earlier release, which `make releases` has built. The build information of the file has to
// say that it is this release. The error is a [*NotFoundError].
func (t Tool) FindEarlier(root, version string) (Program, error) {
	dir := os.Getenv(ReleasesEnv)
	if dir == "" {
		dir = filepath.Join(root, ".lab/releases")
	}
	b := t.OfRelease("v" + version)
	path, err := filepath.Abs(filepath.Join(dir, b.ReleaseDir("v"+version), t.Name))
	if err == nil {
		err = b.Check(path, "v"+version, false)
	}
	if err != nil {
		return Program{}, &NotFoundError{
			Seen: fmt.Sprintf("%s %s is not built: %v", t.Name, version, err), Do: "run `make releases`", cause: err,
		}
	}
	return Program{Name: t.Name, Path: path, Version: version}, nil
}

// OfRelease returns how a release of the tool is built, by its version with a v: as the table says for the release that go.mod pins.
// The path of the module ends with the major version, from 2 on.
func (t Tool) OfRelease(version string) Build {
	b := *t.Build
	prefix, _, _ := module.SplitPathVersion(b.Module)
	newModule := prefix
	if major := semver.Major(version); semver.Compare(major, "v2") >= 0 {
		newModule += "/" + major
	}
	b.Package = newModule + strings.TrimPrefix(b.Package, b.Module)
	b.Module = newModule
	if t.Name == "runc" {
		// Up to 1.2 the Makefile of runc sets the version, and without it the program prints "unknown". Later releases
		// embed it, and the flag is without effect.
		b.LDFlags = "-X main.version=" + strings.TrimPrefix(version, "v")
	}
	return b
}

// ReleaseDir returns the name of the directory of a release that is built so, for the architecture of this machine. It says what the
// release is, and has a digest of how it is built.
func (b *Build) ReleaseDir(version string) string { return b.ReleaseDirFor(version, runtime.GOARCH) }

// ReleaseDirFor is [Build.ReleaseDir] for another architecture.
func (b *Build) ReleaseDirFor(version, arch string) string {
	env, args := b.Command("")
	args = args[:len(args)-1] // not the package: the programs of a release lie side by side, as containerd expects it
	digest := sha256.Sum256(fmt.Append(nil, runtime.Version(), arch, env, args))
	goVersion, _, _ := strings.Cut(runtime.Version(), " ") // without experiments
	prefix, _, _ := module.SplitPathVersion(b.Module)
	return fmt.Sprintf("%s-%s-%s-%x", filepath.Base(prefix), strings.TrimPrefix(version, "v"), goVersion, digest[:4])
}
