//go:build linux

package mutants

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/modfile"
)

// A Source is a copy of the target's modules, outside of the module cache: go build takes no -overlay for a file of the cache.
type Source struct {
	target Target
	module string // the root directory of the module cdblab
	dir    string // of the copies, and of what is built
	gocmd  string
	copies map[string]string // module → directory
}

// CopySource copies the modules of a target, as the module cdblab requires them, into the directory dir. A copy that is there is
// used again.
func CopySource(ctx context.Context, target Target, module, dir, gocmd string) (*Source, error) {
	s := &Source{target: target, module: module, dir: dir, gocmd: gocmd, copies: map[string]string{}}
	data, err := os.ReadFile(filepath.Join(module, "go.mod"))
	if err != nil {
		return nil, err
	}
	mod, err := modfile.Parse("go.mod", data, nil)
	if err != nil {
		return nil, err
	}
	for _, path := range target.Modules {
		if !slices.ContainsFunc(mod.Require, func(r *modfile.Require) bool { return r.Mod.Path == path }) {
			continue // an older release has the package in its own module
		}
		copied, err := s.copyModule(ctx, path)
		if err != nil {
			return nil, err
		}
		s.copies[path] = copied
		if err := mod.AddReplace(path, "", copied, ""); err != nil {
			return nil, err
		}
	}
	mod.Cleanup()
	out, err := mod.Format()
	if err == nil {
		err = os.WriteFile(s.modFile(), out, 0o644)
	}
	if err == nil {
		var sums []byte
		if sums, err = os.ReadFile(filepath.Join(module, "go.sum")); err == nil {
			err = os.WriteFile(strings.TrimSuffix(s.modFile(), ".mod")+".sum", sums, 0o644)
		}
	}
	return s, err
}

// modFile is the go.mod of the module cdblab with the copies in place of the modules.
func (s *Source) modFile() string { return filepath.Join(s.dir, "mutants.mod") }

// copyModule copies a module out of the module cache, and returns the directory of the copy.
func (s *Source) copyModule(ctx context.Context, path string) (string, error) {
	stdout, stderr, err := s.run(ctx, nil, "mod", "download", "-json", path)
	var answer struct{ Dir, Version, Error string }
	if err == nil {
		err = json.Unmarshal(stdout, &answer)
	}
	if err != nil || answer.Dir == "" {
		return "", fmt.Errorf("get the module %s: %v %s%s", path, err, answer.Error, stderr)
	}
	to := filepath.Join(s.dir, filepath.Base(answer.Dir))
	if _, err := os.Stat(to); err == nil {
		return to, nil
	}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp(s.dir, ".copy-*")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	if err := copyTree(answer.Dir, tmp); err != nil {
		return "", fmt.Errorf("copy the module %s: %w", path, err)
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return "", err
	}
	return to, os.Rename(tmp, to) // a copy that was stopped has another name
}

// copyTree copies directories and files. The files of the module cache cannot be written, but their copies can.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if d.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, data, 0o644)
	})
}

// path returns the path of a file in the copy: github.com/opencontainers/runc/create.go is .lab/…/runc@v1.5.2/create.go.
func (s *Source) path(file string) (string, error) {
	for module, dir := range s.copies {
		if rest, ok := strings.CutPrefix(file, module+"/"); ok {
			return filepath.Join(dir, rest), nil
		}
	}
	return "", fmt.Errorf("%s is in no module of %s", file, s.target.Name)
}

// run runs the go command in the module cdblab, and returns what it printed. GOFLAGS has a value, because go would take an empty one
// from `go env -w`.
func (s *Source) run(ctx context.Context, env []string, args ...string) (stdout, stderr []byte, err error) {
	c := exec.CommandContext(ctx, s.gocmd, args...)
	c.Dir = s.module
	c.Env = append(append(os.Environ(), "GOFLAGS=-mod=readonly", "GOWORK=off"), env...)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	c.WaitDelay = 10 * time.Second
	err = c.Run()
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = errors.Join(cause, err)
	}
	return out.Bytes(), errs.Bytes(), err
}
