//go:build linux

package tools

import (
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"

	"golang.org/x/mod/modfile"
)

// Build says how `make tools` builds a program under test. The version is the one that go.mod requires.
type Build struct {
	Module  string // the module in go.mod
	Package string // the program's package
	Tags    string // build tags, separated by commas
	Cgo     bool   // with cgo, and then linked statically by the C compiler's linker
	LDFlags string // further flags for the linker; "" for none
}

var (
	runcBuild = Build{
		Module: "github.com/opencontainers/runc", Package: "github.com/opencontainers/runc",
		Tags: "seccomp,netgo,osusergo,urfave_cli_no_docs", Cgo: true,
	}
	// The build tags leave out what no question needs. CRI is the largest part, with all of Kubernetes that it imports:
	// without it the daemon starts in 1.05 s instead of 2.5 s under emulation. Each run prints the tags of the tools.
	containerdBuild = Build{
		Module: "github.com/containerd/containerd/v2", Package: "github.com/containerd/containerd/v2/cmd/",
		Tags: "no_cri,no_btrfs,no_devmapper,no_zfs,no_tracing",
	}
)

// Command returns the environment variable and the go command that build the program as the file out.
//
// It is static, so that the same file runs on any distribution and in a bare VM. -trimpath, so that two machines build
// the same bytes, and the digests of two runs can be compared.
func (b *Build) Command(out string) (env string, args []string) {
	args = []string{"build", "-trimpath", "-tags", b.Tags}
	ldflags := b.LDFlags
	if b.Cgo {
		ldflags = strings.TrimSpace(ldflags + " -linkmode external -extldflags -static")
	}
	if ldflags != "" {
		args = append(args, "-ldflags", ldflags)
	}
	return "CGO_ENABLED=" + b.cgoEnabled(), append(args, "-o", out, b.Package)
}

// Levels are the environment variables by which a build uses only instructions that each processor of the architecture has. The
// emulated processor of the VM has no others, so a program that is built with GOAMD64=v3 ends there at once.
var Levels = []string{"GOAMD64=v1", "GOARM64=v8.0"}

// level returns the variable of Levels for this architecture, and its value. Both are "" on another one.
func level() (name, value string) {
	for _, l := range Levels {
		if name, value, _ := strings.Cut(l, "="); name == "GO"+strings.ToUpper(runtime.GOARCH) {
			return name, value
		}
	}
	return "", ""
}

func (b *Build) cgoEnabled() string {
	if b.Cgo {
		return "1"
	}
	return "0"
}

// ErrDirectory is the error of [Tool.Stale] for a tool that go.mod replaces by a directory. The build information has no version of the
// files in it, so only go finds out whether they have changed.
var ErrDirectory = errors.New("go.mod replaces its module by a directory, and only go knows what changed there")

// Stale returns why the tool in .lab/bin has to be built: it is missing, or it is not what go.mod and the table of tools
// describe. It returns nil for a tool that is up to date, and for a tool of the distribution.
func (t Tool) Stale(module string) error {
	if t.Build == nil {
		return nil
	}
	replacement, err := t.Build.compare(filepath.Join(module, t.Search[0]), module)
	if err == nil && modfile.IsDirectoryPath(replacement) {
		return ErrDirectory
	}
	return err
}

// readBuildInfo reads the build information of a Go program. A variable, so that a test can replace it.
var readBuildInfo = buildinfo.ReadFile

// check compares the build information in the program path with go.mod and with the Go that built this lab.
func (b *Build) check(path, module string) error {
	_, err := b.compare(path, module)
	return err
}

// compare is check. It also returns what go.mod replaces the module by: "", a directory, or a module and its version.
func (b *Build) compare(path, module string) (replacement string, err error) {
	goMod, err := os.ReadFile(filepath.Join(module, "go.mod"))
	if err != nil {
		return "", err
	}
	version, replacement, err := required(goMod, b.Module)
	if err != nil {
		return "", err
	}
	if err := b.Check(path, version, replacement != ""); err != nil || replacement == "" {
		return replacement, err
	}
	info, err := readBuildInfo(path)
	if err != nil {
		return "", err
	}
	// Go writes (devel) in place of the version that a directory does not have.
	if got := strings.TrimSuffix(info.Main.Replace.Path+"@"+info.Main.Replace.Version, "@(devel)"); got != replacement {
		return "", fmt.Errorf("the replacement of %s: the file has %q, and should have %q", b.Module, got, replacement)
	}
	return replacement, nil
}

// Check compares the build information in the program path with the version of the module that it should have, and with the
// Go that built this lab.
func (b *Build) Check(path, version string, replaced bool) error {
	info, err := readBuildInfo(path)
	if err != nil {
		return err
	}
	levelName, wantLevel := level()
	for _, c := range []struct{ what, got, want string }{
		{"the package", info.Path, b.Package},
		{"the version of " + b.Module, info.Main.Version, version},
		{"a replacement of the module in go.mod", fmt.Sprint(info.Main.Replace != nil), fmt.Sprint(replaced)},
		{"the version of Go", info.GoVersion, runtime.Version()},
		{"the build tags", setting(info, "-tags"), b.Tags},
		{"CGO_ENABLED", setting(info, "CGO_ENABLED"), b.cgoEnabled()},
		{"GOARCH", setting(info, "GOARCH"), runtime.GOARCH},
		{levelName, setting(info, levelName), wantLevel},
	} {
		if c.got != c.want {
			return fmt.Errorf("%s: the file has %q, and should have %q", c.what, c.got, c.want)
		}
	}
	return nil
}

// required returns the version of a module that go.mod requires, and what it replaces the module by.
func required(goMod []byte, module string) (version, replacement string, err error) {
	file, err := modfile.Parse("go.mod", goMod, nil)
	if err != nil {
		return "", "", err
	}
	for _, r := range file.Require {
		if r.Mod.Path == module {
			version = r.Mod.Version
		}
	}
	for _, r := range file.Replace {
		if r.Old.Path == module && (r.Old.Version == "" || r.Old.Version == version) {
			replacement = r.New.String()
		}
	}
	return version, replacement, nil
}

func setting(info *debug.BuildInfo, key string) string {
	for _, s := range info.Settings {
		if s.Key == key {
			return strings.ReplaceAll(s.Value, " ", ",")
		}
	}
	return ""
}
