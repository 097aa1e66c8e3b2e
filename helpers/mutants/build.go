//go:build linux

package mutants

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A BuildError says that the source of a mutant does not compile.
type BuildError struct{ Output string }

func (e *BuildError) Error() string { return "the go command cannot build it: " + e.Output }

// build returns the variable and the arguments of the go command that build the target from the copies, as `make tools` builds it.
func (s *Source) build(out string, flags ...string) (env string, args []string) {
	env, args = s.target.Tool.Build.Command(out)
	args = slices.Insert(args, 1, "-modfile="+s.modFile(), "-buildvcs=false")
	if out == "" { // for go list, which has no -o
		i := slices.Index(args, "-o")
		args = slices.Delete(args, i, i+2)
	}
	return env, slices.Insert(args, 1, flags...)
}

// Build builds the target with the fault into a new directory, and returns the path of the program. Without a mutant it is the
// honest build. The copies stay as they are, so that several builds at once can use them. The caller removes the directory.
func (s *Source) Build(ctx context.Context, m *Mutant) (program string, err error) {
	dir, err := s.buildDir()
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(dir)
		}
	}()
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	if m != nil {
		path, err := s.path(m.File)
		if err != nil {
			return "", err
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		overlay.Replace[path] = filepath.Join(dir, filepath.Base(path))
		if err := os.WriteFile(overlay.Replace[path], m.Apply(src), 0o644); err != nil {
			return "", err
		}
	}
	data, err := json.Marshal(overlay)
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, data, 0o644); err != nil {
		return "", err
	}
	program = filepath.Join(dir, s.target.Tool.Name) // containerd finds the shim by this name
	env, args := s.build(program, "-overlay="+file)
	return program, s.runBuild(ctx, env, args)
}

func (s *Source) runBuild(ctx context.Context, env string, args []string) error {
	_, stderr, err := s.run(ctx, []string{env}, args...)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return &BuildError{fmt.Sprintf("%v\n%s", err, lastLines(string(stderr)))}
	}
	return nil
}

// Sweep removes the builds of a killed run. The caller holds the lock of the campaign.
func (s *Source) Sweep() error {
	var errs []error
	for _, pattern := range []string{"build-*", ".copy-*", "counters-*"} {
		left, _ := filepath.Glob(filepath.Join(s.dir, pattern))
		for _, dir := range left {
			errs = append(errs, os.RemoveAll(dir))
		}
	}
	return errors.Join(errs...)
}

func lastLines(output string) string {
	lines := strings.Split(strings.TrimSpace(output), "\n")
	return strings.Join(lines[max(0, len(lines)-8):], "\n")
}

// buildDir makes the directory of a build, which the questions' processes can enter.
func (s *Source) buildDir() (string, error) {
	dir, err := os.MkdirTemp(s.dir, "build-*")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755)
}
