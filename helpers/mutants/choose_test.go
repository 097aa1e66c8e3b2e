//go:build linux

package mutants

import (
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/go/packages"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

const sample = `package sample

func Use(n int) (sum int) {
	unused := func(int) {}
	unused(7)
	if n < 3 {
		sum = n | 4
	}
	for i := 0; i < 9; i++ {
		sum += i
	}
	return sum
}
`

// load writes a module with one file, and loads it.
func load(t *testing.T, profile *Profile) *Program {
	t.Helper()
	dir := t.TempDir()
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module example.com/sample\n\ngo 1.25\n"), 0o644))
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "sample.go"), []byte(sample), 0o644))
	loaded, err := packages.Load(&packages.Config{
		Dir: dir, Env: append(os.Environ(), "GOFLAGS=", "GOWORK=off"),
		Mode: packages.NeedName | packages.NeedFiles | packages.NeedCompiledGoFiles | packages.NeedImports | packages.NeedSyntax |
			packages.NeedTypes | packages.NeedTypesInfo | packages.NeedTypesSizes | packages.NeedModule,
	}, ".")
	assert.NilError(t, err)
	p, err := newProgram(loaded, profile)
	assert.NilError(t, err)
	return p
}

func draw(p *Program, seed uint64) (out []string) {
	for m := range p.Draw(seed, Faults) {
		out = append(out, m.String())
	}
	return out
}

func TestDraw_IsTheSameForASeed(t *testing.T) {
	p := load(t, nil)
	first := draw(p, 7)
	assert.Check(t, len(first) > 4, "%q", first)
	assert.Check(t, cmp.DeepEqual(draw(load(t, nil), 7), draw(p, 7)))
	assert.Check(t, strings.Join(draw(p, 8), "\n") != strings.Join(first, "\n"), "another seed draws in another order")
}

func TestDraw_LeavesOutWhatHasWrongTypesAndSecondMutantsOfALine(t *testing.T) {
	lines := map[string]bool{}
	for m := range load(t, nil).Draw(1, Faults) {
		assert.Check(t, !strings.Contains(m.Change, "delete unused(7)"), "the variable is not used, and the file does not compile")
		assert.Check(t, !lines[m.Place()], "two mutants of %s", m.Place())
		lines[m.Place()] = true
	}
}

func TestDraw_TakesOnlyLinesThatTheQuestionsExecute(t *testing.T) {
	path := filepath.Join(t.TempDir(), "profile.txt")
	const blocks = "mode: atomic\nexample.com/sample/sample.go:6.2,6.11 1 0\nexample.com/sample/sample.go:9.2,9.17 1 5\n"
	assert.NilError(t, os.WriteFile(path, []byte(blocks), 0o644))
	profile, err := ReadProfile(path, Target{})
	assert.NilError(t, err)
	for m := range load(t, profile).Draw(1, Faults) {
		assert.Check(t, m.Line == 9, "%s", m)
	}
	executed, byName := profile.Count()
	assert.Check(t, executed == 1 && byName == 0)
	assert.Check(t, (*Profile)(nil).Executes("any.go", token.Position{}), "without a profile, all lines count")
}

// The profile may miss runc init. Then its files count as executed.
func TestProfile_ExecutesByName(t *testing.T) {
	runc, err := FindTarget("runc")
	assert.NilError(t, err)
	const init, other = "github.com/opencontainers/runc/libcontainer/rootfs_linux.go", "github.com/opencontainers/runc/list.go"
	path := filepath.Join(t.TempDir(), "profile.txt")
	assert.NilError(t, os.WriteFile(path, []byte("mode: atomic\n"+init+":6.2,6.11 1 0\n"+other+":6.2,6.11 1 0\n"), 0o644))
	p, err := ReadProfile(path, runc)
	assert.NilError(t, err)
	assert.Check(t, p.Executes(init, token.Position{Line: 6, Column: 3}))
	assert.Check(t, !p.Executes(other, token.Position{Line: 6, Column: 3}))
	assert.NilError(t, os.WriteFile(path, []byte("mode: atomic\n"+init+":6.2,6.11 1 0\n"+runc.InitMain+":7.2,7.11 1 1\n"), 0o644))
	p, err = ReadProfile(path, runc)
	assert.NilError(t, err)
	assert.Check(t, !p.Executes(init, token.Position{Line: 6, Column: 3}), "runc init has written its counters, so the profile is believed")
}
