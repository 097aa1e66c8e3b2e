//go:build linux

package dist

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/retry"
	"cdblab/helpers/tools"
)

// A checkout with a go command that writes the value of the variable IN_PROGRAM, expanded by the shell, into each program.
func newCheckout(t *testing.T) *Build {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{
		"a_test.go": "package a\n", "doc.go": "package a\n", "testdata/a.golden": "a\n", ".gitignore": "/.lab\n",
		".lab/go": "#!/bin/sh\nwhile [ $# -gt 0 ]; do [ \"$1\" != -o ] || out=$2; shift; done\neval echo program \"$IN_PROGRAM\" >\"$out\"\n",
	} {
		assert.NilError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		assert.NilError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o755))
	}
	for _, args := range [][]string{{"init"}, {"add", "."}, {"commit", "--message=a", "--no-gpg-sign"}} {
		args = append([]string{"-C", dir, "-c", "user.name=a", "-c", "user.email=a@example.org"}, args...)
		out, err := exec.Command("git", args...).CombinedOutput()
		assert.NilError(t, err, "%s", out)
	}
	return &Build{
		Module: dir, Go: filepath.Join(dir, ".lab/go"), Arch: runtime.GOARCH, Log: func(string, ...any) {},
		Earlier: func(_ context.Context, _ string, _ tools.Tool, _ string, _ []string, out string) error {
			return os.WriteFile(out, []byte("release"), 0o755)
		},
	}
}

func TestAgain_FindsWhatDependsOnThePlaceOfTheBuild(t *testing.T) {
	if _, err := busyboxTool().Find("."); err != nil {
		t.Skipf("there is no static busybox: run make deps: %v", err)
	}
	for name, c := range map[string]struct{ inProgram, want string }{
		"nothing":                 {"", ""},
		"directory of the source": {"$PWD", "two builds of one commit differ in 8 files: cdblab/bin/containerd, "},
		"build cache":             {"$GOCACHE", "two builds of one commit differ in 8 files: cdblab/bin/containerd, "},
	} {
		t.Run(name, func(t *testing.T) {
			b := newCheckout(t)
			assert.NilError(t, b.Committed(t.Context()))
			t.Setenv("IN_PROGRAM", c.inProgram)
			t.Setenv("GOCACHE", t.TempDir())
			var first bytes.Buffer
			assert.NilError(t, b.Write(t.Context(), &first))
			err := b.Again(t.Context(), first.Bytes())
			if c.want == "" {
				assert.NilError(t, err)
			} else {
				assert.Check(t, cmp.ErrorContains(err, c.want))
			}
			left, err := filepath.Glob(filepath.Join(b.Module, ".lab/dist/*"))
			assert.NilError(t, err)
			assert.Equal(t, len(left), 0, "%v is left", left)

			assert.NilError(t, os.WriteFile(filepath.Join(b.Module, "new.go"), nil, 0o644))
			assert.ErrorContains(t, b.Again(t.Context(), first.Bytes()), "commit them first")
			assert.ErrorContains(t, b.Committed(t.Context()), "commit them first")
		})
	}
}

// A go command that is stopped while it compiles leaves its files, whatever signal it gets.
func TestWrite_LeavesNothingWhenItIsStopped(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	b := newCheckout(t)
	begun := filepath.Join(t.TempDir(), "begun")
	assert.NilError(t, os.WriteFile(b.Go, []byte("#!/bin/sh\nmktemp -d && touch '"+begun+"' && exec sleep 1000\n"), 0o755))
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		retry.Until(time.Minute, func() bool { _, err := os.Stat(begun); return err == nil })
		cancel(errors.New("interrupt signal received"))
	}()
	err := b.Write(ctx, io.Discard)
	assert.ErrorContains(t, err, ": interrupt signal received")
	left, err := filepath.Glob(filepath.Join(tmp, "*"))
	assert.NilError(t, err)
	assert.Equal(t, len(left), 0, "%v is left", left)
}

func TestReadme_NamesTheArchitecture(t *testing.T) {
	text := string((&Build{Arch: "arm64"}).readme())
	assert.Check(t, strings.HasPrefix(text, "cdblab for linux/arm64: "), "%.80s", text)
	assert.Check(t, cmp.Contains(text, "Exec format error"))
	assert.Check(t, !strings.Contains(text, "@"), text)
}

func busyboxTool() tools.Tool {
	for _, t := range tools.All {
		if t.Name == "busybox" {
			return t
		}
	}
	panic("the table has no busybox")
}

func TestDifferences_AreFilesWithAnotherContentOrMode(t *testing.T) {
	write := func(files map[string]File) []byte {
		var b bytes.Buffer
		assert.NilError(t, Write(&b, files, someTime))
		return b.Bytes()
	}
	a := write(map[string]File{"same": {0o644, nil}, "content": {0o644, []byte("a")}, "mode": {0o644, nil}, "only/a": {0o644, nil}})
	b := write(map[string]File{"same": {0o644, nil}, "content": {0o644, []byte("b")}, "mode": {0o755, nil}})
	differ, err := differences(a, b)
	assert.NilError(t, err)
	assert.DeepEqual(t, differ, []string{"cdblab/content", "cdblab/mode", "cdblab/only", "cdblab/only/a"})
	differ, err = differences(a, a)
	assert.NilError(t, err)
	assert.Equal(t, len(differ), 0)
	_, err = differences(a, b[:len(b)/2])
	assert.ErrorContains(t, err, "EOF")
}
