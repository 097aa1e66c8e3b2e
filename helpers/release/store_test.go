//go:build linux

package release

import (
	"archive/zip"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

// testStore is a store whose go command finds modules in a directory instead of the network.
type testStore struct {
	*store
	mu     sync.Mutex
	logged []string
}

func (s *testStore) count(text string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Count(strings.Join(s.logged, "\n"), text)
}

func newTestStore(t *testing.T, dir string) *testStore {
	s := &testStore{}
	s.store = &store{dir: dir, gocmd: "go", log: func(format string, args ...any) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.logged = append(s.logged, fmt.Sprintf(format, args...))
	}}
	return s
}

// A module of the proxy: its path, its version, the source of a program's main package, and the rest of its go.mod.
type published struct{ path, version, program, source, goMod string }

const emptyProgram = "package main\n\nfunc main() {}\n"

// useProxy lets go find these modules alone, in a module cache of the test's own.
func useProxy(t *testing.T, modules ...published) {
	t.Helper()
	proxy, cache := t.TempDir(), t.TempDir()
	write := func(path, content string) {
		assert.NilError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		assert.NilError(t, os.WriteFile(path, []byte(content), 0o644))
	}
	list := map[string]string{}
	for _, m := range modules {
		dir := filepath.Join(proxy, m.path, "@v")
		list[dir] += m.version + "\n"
		goMod := "module " + m.path + "\n\ngo 1.21\n" + m.goMod
		write(dir+"/"+m.version+".info", fmt.Sprintf(`{"Version":%q}`, m.version))
		write(dir+"/"+m.version+".mod", goMod)
		f, err := os.Create(dir + "/" + m.version + ".zip")
		assert.NilError(t, err)
		z := zip.NewWriter(f)
		for name, content := range map[string]string{"go.mod": goMod, m.program: m.source} {
			w, err := z.Create(m.path + "@" + m.version + "/" + name)
			assert.NilError(t, err)
			_, err = w.Write([]byte(content))
			assert.NilError(t, err)
		}
		assert.NilError(t, z.Close())
		assert.NilError(t, f.Close())
	}
	for dir, versions := range list {
		write(dir+"/list", versions)
	}
	t.Setenv("GOPROXY", "file://"+proxy)
	t.Setenv("GOSUMDB", "off")
	t.Setenv("GONOPROXY", "none")
	t.Setenv("GOMODCACHE", cache)
	t.Cleanup(func() { // the module cache is read-only
		out, err := exec.Command("go", "clean", "-modcache").CombinedOutput()
		assert.Check(t, err, "%s", out)
	})
}

const (
	v1 = "github.com/containerd/containerd"
	v2 = "github.com/containerd/containerd/v2"
)

func ctr(version, source, goMod string) published {
	path := v1
	if version >= "v2" {
		path = v2
	}
	return published{path, version, "cmd/ctr/main.go", source, goMod}
}

// wanted returns the program that a word names.
func wanted(t *testing.T, word string) program {
	t.Helper()
	spec, err := Parse([]string{word})
	assert.NilError(t, err)
	assert.Equal(t, len(spec.programs), 1)
	for _, p := range spec.programs {
		return p
	}
	panic("unreachable")
}

// A release is built once. What stands in go.mod, and what the user has set for other modules, does not prevent it.
func TestStore_BuildsARelease(t *testing.T) {
	useProxy(t,
		ctr("v1.7.27", emptyProgram, "\nexclude example.org/excluded v1.0.0\n\nreplace "+v1+"/api => ./api\n"),
		ctr("v2.0.5", emptyProgram, "\ngodebug default=go1.22\n\nreplace example.org/missing => example.org/other v1.0.0\n"))
	t.Setenv("GOFLAGS", "-mod=vendor -tags=none -modfile=/no/such/go.mod")
	t.Setenv("GOWORK", "/no/such/go.work")
	t.Setenv("GOARCH", "riscv64")
	t.Setenv("GOTOOLCHAIN", "local")
	s := newTestStore(t, t.TempDir())
	for _, version := range []string{"1.7.27", "2.0.5"} {
		p := wanted(t, "CTR="+version)
		path, err := s.get(t.Context(), p)
		assert.NilError(t, err)
		assert.Equal(t, filepath.Base(path), "ctr")
		assert.Assert(t, cmp.Contains(filepath.Dir(path), "containerd-"+version+"-go"))
		out, err := exec.Command(path).CombinedOutput()
		assert.NilError(t, err, "%s", out)
		entries, err := os.ReadDir(filepath.Dir(path))
		assert.NilError(t, err)
		assert.Equal(t, len(entries), 2, "the program and the lock, and nothing that the build needed: %v", entries)

		s.gocmd = "/no/such/go" // so a second time, also without a network, it is there
		again, err := s.get(t.Context(), p)
		assert.NilError(t, err)
		assert.Equal(t, again, path)
		s.gocmd = "go"
	}
	assert.Equal(t, s.count("building ctr"), 2)

	// make sweep removes the one that no run has used since.
	entries, err := os.ReadDir(s.dir)
	assert.NilError(t, err)
	assert.Equal(t, len(entries), 2)
	longAgo := time.Now().Add(-40 * 24 * time.Hour)
	for _, e := range entries {
		assert.NilError(t, os.Chtimes(filepath.Join(s.dir, e.Name()), longAgo, longAgo))
	}
	_, err = s.get(t.Context(), wanted(t, "CTR=2.0.5"))
	assert.NilError(t, err)
	removed, err := s.prune(30 * 24 * time.Hour)
	assert.NilError(t, err)
	assert.Equal(t, len(removed), 1)
	assert.Assert(t, cmp.Contains(removed[0], "containerd-1.7.27-go"))
}

// A file that is not what it should be is never used.
func TestStore_BuildsAgainWhatIsNoRelease(t *testing.T) {
	useProxy(t, ctr("v1.7.26", emptyProgram, ""), ctr("v1.7.27", emptyProgram, ""))
	s := newTestStore(t, t.TempDir())
	path, err := s.get(t.Context(), wanted(t, "CTR=1.7.27"))
	assert.NilError(t, err)
	other, err := s.get(t.Context(), wanted(t, "CTR=1.7.26"))
	assert.NilError(t, err)
	for reason, damage := range map[string]func() error{
		"unrecognized file format": func() error { return os.Truncate(path, 100) },
		"should have \"v1.7.27\"": func() error {
			content, err := os.ReadFile(other)
			if err != nil {
				return err
			}
			return os.WriteFile(path, content, 0o755)
		},
	} {
		assert.NilError(t, damage())
		killed := filepath.Join(filepath.Dir(path), ".new-of-a-killed-build")
		assert.NilError(t, os.MkdirAll(killed, 0o755))
		again, err := s.get(t.Context(), wanted(t, "CTR=1.7.27"))
		assert.NilError(t, err)
		assert.Equal(t, again, path)
		assert.Equal(t, s.count(reason), 1, "%q", s.logged)
		_, err = os.Stat(killed)
		assert.ErrorIs(t, err, os.ErrNotExist)
	}
	assert.Equal(t, s.count("building ctr 1.7.27"), 3)
}

func TestStore_TwoAtOnceBuildOnce(t *testing.T) {
	useProxy(t, ctr("v1.7.27", emptyProgram, ""))
	dir := t.TempDir()
	a, b := newTestStore(t, dir), newTestStore(t, dir)
	p := wanted(t, "CTR=1.7.27")
	var group errgroup.Group
	for _, s := range []*testStore{a, b} {
		group.Go(func() error {
			_, err := s.get(t.Context(), p)
			return err
		})
	}
	assert.NilError(t, group.Wait())
	assert.Equal(t, a.count("building ctr")+b.count("building ctr"), 1)
}

func TestStore_SaysWhyThereIsNoRelease(t *testing.T) {
	useProxy(t, ctr("v2.0.4", emptyProgram, ""), ctr("v2.0.5", "package main\n\nfunc main() { undefinedName() }\n", ""),
		ctr("v2.1.0", emptyProgram, "\ngodebug unknown=1\n"), ctr("v2.0.7", emptyProgram, ""))
	s := newTestStore(t, t.TempDir())
	for word, want := range map[string][]string{
		"CTR=2.0.6": {"CTR=2.0.6: get " + v2 + "@v2.0.6: ", "v2.0.6.info: no such file", "for example 2.0.4, 2.0.5, 2.0.7", "by its path"},
		"CTR=2.0.5": {"CTR=2.0.5: build ctr of " + v2 + "@v2.0.5", "main.go:3:15: undefined: undefinedName", "make deps", "2.0.4, 2.0.7"},
		"CTR=2.1.0": {"unknown godebug", "by its path"},
		"CTR=1.7.0": {"CTR=1.7.0: get " + v1 + "@v1.7.0", "go env GOPROXY"},
	} {
		_, err := s.get(t.Context(), wanted(t, word))
		for _, text := range want {
			assert.Check(t, cmp.ErrorContains(err, text))
		}
	}
	s.gocmd = "/no/such/go"
	_, err := s.get(t.Context(), wanted(t, "CTR=2.0.4"))
	assert.ErrorContains(t, err, "/no/such/go: no such file")
}

// A build that is stopped ends at once, and leaves nothing that a later run trusts.
func TestStore_AStoppedBuildLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	slow := filepath.Join(dir, "slow-go")
	assert.NilError(t, os.WriteFile(slow, []byte("#!/bin/sh\nexec sleep 1000\n"), 0o755))
	s := newTestStore(t, dir)
	s.gocmd = gocmd(slow)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := s.get(ctx, wanted(t, "CTR=1.7.27"))
	assert.ErrorIs(t, err, context.DeadlineExceeded)
	left, err := filepath.Glob(dir + "/containerd-*/*")
	assert.NilError(t, err)
	assert.Equal(t, len(left), 1, "the lock alone: %v", left)
}

func TestBuildOf(t *testing.T) {
	for word, want := range map[string]string{
		"RUNC=1.2.5": "github.com/opencontainers/runc github.com/opencontainers/runc -X main.version=1.2.5",
		"CTR=1.7.27": v1 + " " + v1 + "/cmd/ctr ",
		"CTR=2.0.5":  v2 + " " + v2 + "/cmd/ctr ",
		"CTR=10.0.0": v1 + "/v10 " + v1 + "/v10/cmd/ctr ",
	} {
		p := wanted(t, word)
		b := p.tool.OfRelease(p.version)
		assert.Check(t, cmp.Equal(b.Module+" "+b.Package+" "+b.LDFlags, want))
	}
}

// The name of the directory is the key of the cache.
func TestDirectory(t *testing.T) {
	key := func(word, tags string) string {
		p := wanted(t, word)
		b := p.tool.OfRelease(p.version)
		b.Tags += tags
		return b.ReleaseDir(p.version)
	}
	assert.Assert(t, strings.HasPrefix(key("CTR=1.7.27", ""), "containerd-1.7.27-go1."))
	assert.Equal(t, key("CTR=1.7.27", ""), key("SHIM=1.7.27", ""), "the programs of a release lie side by side")
	assert.Assert(t, key("CTR=1.7.27", "") != key("CTR=1.7.28", ""))
	assert.Assert(t, key("CTR=1.7.27", "") != key("CTR=1.7.27", ",more"))
	assert.Assert(t, key("RUNC=1.7.27", "") != key("CTR=1.7.27", ""))
}

func TestNearest(t *testing.T) {
	all := []string{"v1.2.10", "v1.2.0", "v1.2.9", "v1.2.5", "v1.2.0-rc.1", "v1.2.1", "v1.2.2", "v1.2.3", "v1.3.0", "v0.0.0-2020+incompatible"}
	for version, want := range map[string]string{
		"v1.2.4":  "1.2.1 1.2.2 1.2.3 1.2.5 1.2.9 1.2.10",
		"v1.2.99": "1.2.1 1.2.2 1.2.3 1.2.5 1.2.9 1.2.10",
		"v1.1.0":  "1.2.0-rc.1 1.2.0 1.2.1 1.2.2 1.2.3 1.2.5",
		"v9.9.9":  "1.2.2 1.2.3 1.2.5 1.2.9 1.2.10 1.3.0",
		"v1.3.0":  "1.2.1 1.2.2 1.2.3 1.2.5 1.2.9 1.2.10",
	} {
		assert.Check(t, cmp.Equal(strings.Join(nearest(all, version), " "), want), version)
	}
	assert.Equal(t, len(nearest(nil, "v1.0.0")), 0)
}
