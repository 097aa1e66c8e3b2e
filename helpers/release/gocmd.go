//go:build linux

package release

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/semver"

	"cdblab/helpers/tools"
)

// A gocmd is the go command, by its name or its path.
type gocmd string

// build builds a program of a release as the file out. It writes a module into the empty directory dir, and builds there: `go
// install` refuses a module whose go.mod replaces or excludes something, as many releases of containerd do. environ has further variables.
func (g gocmd) build(ctx context.Context, p program, b *tools.Build, dir, out string, environ ...string) error {
	// Already for the download, so that go finds no other module above the directory.
	err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module scratch\n"), 0o644)
	var goMod []byte
	if err == nil {
		if goMod, err = g.download(ctx, p, b, dir); err != nil {
			return err
		}
		if goMod, err = scratchModule(b.Module, p.version, goMod); err == nil {
			err = os.WriteFile(filepath.Join(dir, "go.mod"), goMod, 0o644)
		}
	}
	if err != nil {
		return &Error{p.given + ": write a module that requires the release", err.Error(), "make room on the disk"}
	}
	env, args := b.Command(out)
	args = slices.Insert(args, 1, "-mod=mod", "-buildvcs=false")
	_, stderr, err := g.run(ctx, dir, append(slices.Clone(environ), env), args...)
	if err != nil {
		return &Error{fmt.Sprintf("%s: build %s of %s@%s", p.given, p.tool.Name, b.Module, p.version), lastLines(stderr, err),
			"run `make deps` if a compiler or a library is missing. Otherwise this Go cannot build the release: take another one" +
				g.nearby(ctx, dir, b.Module, p.version) + ", or name a binary by its path"}
	}
	return nil
}

// download gets the module of a release, and returns the content of its go.mod.
func (g gocmd) download(ctx context.Context, p program, b *tools.Build, dir string) ([]byte, error) {
	stdout, stderr, err := g.run(ctx, dir, nil, "mod", "download", "-json", b.Module+"@"+p.version)
	var answer struct{ GoMod, Error string }
	_ = json.Unmarshal(stdout, &answer) // without an answer, stderr says why
	if err == nil && answer.GoMod != "" {
		var content []byte
		if content, err = os.ReadFile(answer.GoMod); err == nil {
			return content, nil
		}
	}
	seen := answer.Error
	if seen == "" {
		seen = lastLines(stderr, err)
	}
	return nil, &Error{
		fmt.Sprintf("%s: get %s@%s", p.given, b.Module, p.version), seen,
		"take a release that can be had" + g.nearby(ctx, dir, b.Module, p.version) + ", or name a binary by its path. " +
			"If none can be had, check the network and `go env GOPROXY`",
	}
}

// nearby returns the releases that are nearest to a version, as the end of a sentence, or "" if they cannot be listed.
func (g gocmd) nearby(ctx context.Context, dir, module, version string) string {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	stdout, _, err := g.run(ctx, dir, nil, "list", "-m", "-versions", "-json", module)
	var answer struct{ Versions []string }
	if err != nil || json.Unmarshal(stdout, &answer) != nil {
		return ""
	}
	near := nearest(answer.Versions, version)
	if len(near) == 0 {
		return ""
	}
	return " (for example " + strings.Join(near, ", ") + ")"
}

// nearest returns at most six versions: those with the same major and minor number, or else the newest ones.
func nearest(all []string, version string) []string {
	others := slices.DeleteFunc(slices.Clone(all), func(v string) bool { return v == version || semver.Canonical(v) != v })
	semver.Sort(others)
	same := slices.DeleteFunc(slices.Clone(others), func(v string) bool { return semver.MajorMinor(v) != semver.MajorMinor(version) })
	if len(same) == 0 {
		same = others
	}
	// The window of six around the place where the version would be.
	at, _ := slices.BinarySearchFunc(same, version, semver.Compare)
	begin := max(0, min(at-3, len(same)-6))
	near := same[begin:min(len(same), begin+6)]
	for i, v := range near {
		near[i] = number(v)
	}
	return near
}

// scratchModule returns the go.mod of a module that requires a release and builds it as the release itself would be built: with
// the same versions of all dependencies, and the same settings of the Go runtime. The main module alone decides about these, so
// the lines are copied from the release's go.mod. A replacement by a directory is not copied: the directory is not published.
func scratchModule(modulePath, version string, releaseMod []byte) ([]byte, error) {
	release, err := modfile.Parse("go.mod", releaseMod, nil)
	if err != nil {
		return nil, err
	}
	scratch := new(modfile.File)
	err = errors.Join(scratch.AddModuleStmt("scratch"), scratch.AddRequire(modulePath, version))
	if release.Go != nil {
		err = errors.Join(err, scratch.AddGoStmt(release.Go.Version))
	}
	for _, g := range release.Godebug {
		err = errors.Join(err, scratch.AddGodebug(g.Key, g.Value))
	}
	for _, e := range release.Exclude {
		err = errors.Join(err, scratch.AddExclude(e.Mod.Path, e.Mod.Version))
	}
	for _, r := range release.Replace {
		if r.New.Version != "" {
			err = errors.Join(err, scratch.AddReplace(r.Old.Path, r.Old.Version, r.New.Path, r.New.Version))
		}
	}
	if err != nil {
		return nil, err
	}
	return scratch.Format()
}

// plainGo is the version of a Go that GOTOOLCHAIN can name.
var plainGo = regexp.MustCompile(`^go1\.[0-9.]+$`)

// run runs the go command, and returns what it printed.
func (g gocmd) run(ctx context.Context, dir string, env []string, args ...string) (stdout, stderr []byte, err error) {
	c := exec.CommandContext(ctx, string(g), args...)
	c.Dir = dir
	// What a user has set for other modules must not change this build. An empty value would not do: then `go env -w` holds.
	c.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off", "GO111MODULE=on", "GOOS=linux", "GOARCH="+runtime.GOARCH)
	if plainGo.MatchString(runtime.Version()) {
		c.Env = append(c.Env, "GOTOOLCHAIN="+runtime.Version())
	}
	c.Env = append(c.Env, env...)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	// go ends what it has started when it is interrupted. If it does not, the wait ends.
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	c.WaitDelay = 10 * time.Second
	err = c.Run()
	return out.Bytes(), errs.Bytes(), err
}

// lastLines returns the last lines of what go printed, without its progress; or the error, if it printed nothing.
func lastLines(output []byte, err error) string {
	var lines []string
	for line := range strings.Lines(string(output)) {
		if line = strings.TrimRight(line, "\n"); line != "" && !strings.HasPrefix(line, "go: downloading ") {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		return fmt.Sprint(err)
	}
	return fmt.Sprintf("%v\n    | %s", err, strings.Join(lines[max(0, len(lines)-12):], "\n    | "))
}
