//go:build linux

package dist

import (
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"al.essio.dev/pkg/shellescape"

	"cdblab/helpers/tools"
)

//go:embed README
var readme []byte

// A Build of the tarball, in a checkout of the lab.
type Build struct {
	Module string // the root directory of the checkout
	Go     string // the command go
	Arch   string // amd64 or arm64
	Log    func(format string, args ...any)
	Stderr io.Writer // what go prints

	// Earlier builds a program of an earlier release as the file out: helpers/release BuildStripped. It is a field because that package
	// imports helpers/vm, which imports this one.
	Earlier func(ctx context.Context, goCommand string, t tools.Tool, version string, env []string, out string) error

	dir   string   // for what is built
	env   []string // further variables of the builds
	cross *cross   // nil: for the architecture of this machine
}

// Name returns the name of the tarball.
func (b *Build) Name() string { return fmt.Sprintf("%s-linux-%s.tar.gz", Top, b.Arch) }

// Write builds what the tarball has, and writes it.
func (b *Build) Write(ctx context.Context, w io.Writer) (err error) {
	if b.dir, err = os.MkdirTemp("", "cdblab-dist-*"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if b.Arch != runtime.GOARCH {
		if b.cross, err = newCross(ctx, b.Arch, filepath.Join(b.Module, ".lab", "dist", "cross-"+b.Arch)); err != nil {
			return err
		}
	}
	version, modified, err := b.version(ctx)
	if err != nil {
		return err
	}
	files := map[string]File{"README": {0o644, b.readme()}, VersionFile: {0o644, []byte(version)}}
	if err := b.addChapter(files); err != nil {
		return err
	}
	if err := b.addBuilt(ctx, files); err != nil {
		return err
	}
	if err := b.addEarlier(ctx, files); err != nil {
		return err
	}
	return Write(w, files, modified)
}

// withChanges ends the commit in the line of a checkout that is not the commit.
const withChanges = "+changes"

// readme returns the text for the reader of the tarball. The program of another architecture cannot say itself why it does not start.
func (b *Build) readme() []byte { return bytes.ReplaceAll(readme, []byte("@ARCH@"), []byte(b.Arch)) }

// version returns the line of [VersionFile], and the time of the commit. Each change that is not committed shows in the line.
func (b *Build) version(ctx context.Context) (line string, modified time.Time, err error) {
	git := func(args ...string) (string, error) {
		c := exec.CommandContext(ctx, "git", append([]string{"-C", b.Module}, args...)...)
		out, err := c.Output()
		if err != nil {
			return "", fmt.Errorf("%s: %w: the tarball has the commit's name and time, so build it in a clone made by git", c, err)
		}
		return strings.TrimSpace(string(out)), nil
	}
	commit, err := git("describe", "--always", "--abbrev=12")
	if err != nil {
		return "", time.Time{}, err
	}
	// Not describe --dirty, which ignores a new file. The build takes it.
	changes, err := git("status", "--porcelain")
	if err != nil {
		return "", time.Time{}, err
	}
	if changes != "" {
		commit += withChanges
	}
	seconds, err := git("log", "-1", "--format=%ct")
	if err != nil {
		return "", time.Time{}, err
	}
	n, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("git log prints no time: %q", seconds)
	}
	modified = time.Unix(n, 0).UTC()
	return fmt.Sprintf("cdblab %s of %s, linux/%s, %s\n", commit, modified.Format(time.DateOnly), b.Arch, runtime.Version()), modified, nil
}

// chapterFiles are the source of the questions, and the tables that the questions read when they run.
var chapterFiles = []string{"*_test.go", "doc.go", "testdata/*.golden"}

// addChapter adds the files of the questions.
func (b *Build) addChapter(files map[string]File) error {
	module := os.DirFS(b.Module) // not filepath.Glob: the checkout's path may contain characters of a pattern
	for _, pattern := range chapterFiles {
		names, err := fs.Glob(module, pattern)
		if err != nil || len(names) == 0 {
			return errors.Join(err, fmt.Errorf("%s has no %s", b.Module, pattern))
		}
		for _, name := range names {
			content, err := fs.ReadFile(module, name)
			if err != nil {
				return err
			}
			dir := ChapterDir
			if filepath.Ext(name) == ".golden" {
				dir = WorkDir
			}
			files[filepath.Join(dir, name)] = File{0o644, content}
		}
	}
	return nil
}

// static links a program with cgo statically.
const static = "-s -w -linkmode external -extldflags -static"

// addBuilt builds the programs, and adds them.
func (b *Build) addBuilt(ctx context.Context, files map[string]File) error {
	for name, args := range map[string][]string{
		Program:   {"build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", b.out(Program), "./cmd/lab"},
		Init:      {"build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", b.out(Init), "./cmd/lab-init"},
		Test2JSON: {"build", "-trimpath", "-ldflags", "-s -w", "-o", b.out(Test2JSON), "cmd/test2json"},
	} {
		if err := b.add(ctx, files, name, "CGO_ENABLED=0", args); err != nil {
			return err
		}
	}
	// The questions import libcontainer, which needs cgo.
	questions := []string{
		"test", "-c", "-vet=off", "-trimpath", "-tags", "vmlab,netgo,osusergo", "-ldflags", static, "-o", b.out(TestBinary), ".",
	}
	if err := b.add(ctx, files, TestBinary, "CGO_ENABLED=1", questions); err != nil {
		return err
	}
	for _, t := range tools.All {
		name := filepath.Join(BinDir, t.Name)
		switch {
		case t.Build != nil:
			env, args := t.Build.Command(b.out(name))
			if err := b.add(ctx, files, name, env, args); err != nil {
				return err
			}
		case t.Need == tools.Required:
			path, err := b.busybox(t)
			if err != nil {
				return err
			}
			if files[name], err = program(path); err != nil {
				return err
			}
		}
	}
	return nil
}

// addEarlier builds the earlier releases that questions compare with, and adds them. All must be there: two builds of one commit have the
// same bytes.
func (b *Build) addEarlier(ctx context.Context, files map[string]File) error {
	env := slices.Concat(tools.Levels, b.env, []string{"GOEXPERIMENT=", "GOARCH=" + b.Arch})
	if b.cross != nil {
		env = append(env, b.cross.env...)
	}
	for _, r := range tools.Earlier {
		for _, t := range r.Tools() {
			release := t.OfRelease("v" + r.Version)
			name := filepath.Join(ReleasesDir, release.ReleaseDirFor("v"+r.Version, b.Arch), t.Name)
			b.Log("%s %s, an earlier release", t.Name, r.Version)
			err := b.Earlier(ctx, b.Go, t, r.Version, env, b.out(name))
			if err == nil {
				files[name], err = program(b.out(name))
			}
			if err != nil {
				return fmt.Errorf("build %s %s: %w", t.Name, r.Version, err)
			}
		}
	}
	return nil
}

// busybox returns the static busybox of this machine, or of the other architecture.
func (b *Build) busybox(t tools.Tool) (string, error) {
	if b.cross != nil {
		return b.cross.busybox(), nil
	}
	p, err := t.Find(b.Module)
	return p.Path, err
}

// out returns where a program is built.
func (b *Build) out(name string) string { return filepath.Join(b.dir, filepath.Base(name)) }

// usualBuild are the variables with which go builds the same program for each user, and one that runs on each machine of
// the architecture. GOFLAGS has a value, because go would take an empty one from `go env -w`.
var usualBuild = append([]string{"GOFLAGS=-mod=readonly", "GOWORK=off", "GOEXPERIMENT="}, tools.Levels...)

// add builds a program, and adds it.
func (b *Build) add(ctx context.Context, files map[string]File, name, env string, args []string) error {
	c := exec.CommandContext(ctx, cmp.Or(b.Go, "go"), args...)
	c.Dir, c.Stderr = b.Module, b.Stderr
	// TMPDIR is removed with the directory: go leaves its files when it is stopped while it compiles.
	c.Env = slices.Concat(os.Environ(), usualBuild, b.env, []string{"TMPDIR=" + b.dir, "GOOS=linux", "GOARCH=" + b.Arch, env})
	if b.cross != nil {
		c.Env = append(c.Env, b.cross.env...)
	}
	b.Log("%s go %s", env, shellescape.QuoteCommand(args))
	err := c.Run()
	if err == nil {
		files[name], err = program(b.out(name))
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("build %s: %w", name, err)
	}
	return nil
}

func program(path string) (File, error) {
	content, err := os.ReadFile(path)
	return File{0o755, content}, err
}
