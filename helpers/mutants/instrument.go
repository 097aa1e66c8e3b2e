//go:build linux

package mutants

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// CoverBuild builds the target so that it writes which statements it executes into the directory GOCOVERDIR. It builds from a copy
// of its own, because go's cover tool takes no overlay. The caller removes the directory of the program.
func (s *Source) CoverBuild(ctx context.Context, logf func(string, ...any)) (program string, err error) {
	dir, err := s.buildDir()
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(dir)
		}
	}()
	own, err := CopySource(ctx, s.target, s.module, dir, s.gocmd)
	if err != nil {
		return "", err
	}
	if s.target.Init != nil {
		if err := own.instrumentInit(); err != nil {
			logf("the profile misses runc init, so its files count as executed: %v", err)
		}
	}
	var packages []string
	for module := range own.copies {
		packages = append(packages, module+"/...")
	}
	slices.Sort(packages)
	program = filepath.Join(dir, s.target.Tool.Name)
	env, args := own.build(program, "-cover", "-covermode=atomic", "-coverpkg="+strings.Join(packages, ","))
	return program, own.runBuild(ctx, env, args)
}

// initCounters is a file that is added to libcontainer. A Go program writes its counters when it exits. runc init does not exit: it
// executes the container's program, in a root filesystem that has no GOCOVERDIR. So it opens the file before it enters the
// container, and writes the counters before it closes all files.
const initCounters = `package libcontainer

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime/coverage"
	"strings"
	"time"
)

var labCounters *os.File

func labOpenCounters() {
	dir := os.Getenv("GOCOVERDIR")
	metas, _ := filepath.Glob(dir + "/covmeta.*")
	if len(metas) == 0 {
		return
	}
	_, hash, _ := strings.Cut(filepath.Base(metas[0]), ".")
	name := fmt.Sprintf("%s/covcounters.%s.%d.%d", dir, hash, os.Getpid(), time.Now().UnixNano())
	labCounters, _ = os.Create(name)
}

func labWriteCounters() {
	if labCounters != nil {
		var all bytes.Buffer
		if coverage.WriteCounters(&all) == nil {
			_, _ = labCounters.Write(all.Bytes()) // at once: it may be killed at any time
		}
		labCounters.Close()
		labCounters = nil
	}
}
`

// instrumentInit changes libcontainer so that runc init writes its counters. Where runc's source has another form, nothing is changed.
func (s *Source) instrumentInit() error {
	added, err := s.path(s.target.Modules[0] + "/libcontainer/lab_counters.go")
	if err != nil {
		return err
	}
	changed := map[string][]byte{added: []byte(initCounters)}
	const last = `(?m)^\tif err := utils\.UnsafeCloseFrom\(|^\treturn (system|linux)\.Exec\(`
	for _, c := range []struct{ file, before, add string }{
		// runc init has no variables of its caller. What it gets here, it clears before it runs anything.
		{"container_linux.go", `(?m)^\t+cmd\.Env = append\(cmd\.Env,`, `cmd.Env = append(cmd.Env, "GOCOVERDIR="+os.Getenv("GOCOVERDIR"));`},
		{"init_linux.go", `(?m)^\tenv(Sync|Init)Pipe := os\.Getenv\(`, "labOpenCounters(); defer labWriteCounters();"},
		{"standard_init_linux.go", last, "labWriteCounters();"},
		{"setns_init_linux.go", last, "labWriteCounters();"},
	} {
		path := filepath.Join(filepath.Dir(added), c.file)
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		at := regexp.MustCompile(c.before).FindIndex(src)
		if at == nil {
			return fmt.Errorf("%s has no line like %s", path, c.before)
		}
		// No line is added: the profile has the line numbers of the source.
		changed[path] = slices.Concat(src[:at[0]], []byte(c.add), src[at[0]:])
	}
	var errs []error
	for path, src := range changed {
		errs = append(errs, os.WriteFile(path, src, 0o644))
	}
	return errors.Join(errs...)
}

// WriteProfile turns the counters in a directory into a profile in the format of go tool cover.
func (s *Source) WriteProfile(ctx context.Context, counters, profile string) error {
	if err := removeEmpty(counters); err != nil {
		return err
	}
	tmp := profile + ".new"
	_, stderr, err := s.run(ctx, nil, "tool", "covdata", "textfmt", "-i="+counters, "-o="+tmp)
	if err != nil {
		return fmt.Errorf("read the counters of %s: %w\n%s", s.target.Name, err, lastLines(string(stderr)))
	}
	return os.Rename(tmp, profile)
}

// removeEmpty removes the empty files of a directory: runc init was killed before it had written its counters, as for a container
// that is deleted before it is started. The cover tool does not read a directory that has one.
func removeEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	errs := []error{err}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Size() == 0 {
			errs = append(errs, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}
