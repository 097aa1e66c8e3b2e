//go:build linux

package mutants

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

// mutate returns the candidates of a function's body.
func mutate(t *testing.T, body string) []candidate {
	t.Helper()
	src := `package p
import "github.com/sirupsen/logrus"
type object struct{ field, flags int; next *object }
func fails() error { return nil }
func two() (int, error) { return 0, nil }
func use(...any) {}
const A, B, C = 1, 2, 4
var _ = logrus.Debug
func (o *object) method(n int, name string, ok bool) (int, error) {
` + body + `
return 0, nil
}`
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "p.go", src, parser.SkipObjectResolution)
	assert.NilError(t, err)
	info := &types.Info{Uses: map[*ast.Ident]types.Object{}, Types: map[ast.Expr]types.TypeAndValue{}, Defs: map[*ast.Ident]types.Object{}}
	_, err = (&types.Config{Importer: logrus{}}).Check("example.com/p", fset, []*ast.File{f}, info)
	assert.NilError(t, err)
	var out []candidate
	for _, c := range candidates(fset, f, []byte(src), info, "example.com/p/p.go") {
		if c.Func == "(*object).method" && c.Line < strings.Count(src, "\n") { // not the last return
			_, err := parser.ParseFile(fset, "mutant.go", c.Apply([]byte(src)), parser.SkipObjectResolution)
			assert.NilError(t, err, "%s", c.Mutant)
			out = append(out, c)
		}
	}
	return out
}

// logrus imports a package with one function.
type logrus struct{}

func (logrus) Import(path string) (*types.Package, error) {
	if path != "github.com/sirupsen/logrus" {
		return nil, errors.New("not imported: " + path)
	}
	p := types.NewPackage(path, "logrus")
	args := types.NewTuple(types.NewVar(token.NoPos, p, "args", types.NewSlice(types.Universe.Lookup("any").Type())))
	p.Scope().Insert(types.NewFunc(token.NoPos, p, "Debug", types.NewSignatureType(nil, nil, nil, args, nil, true)))
	p.MarkComplete()
	return p, nil
}

func TestCandidates_OfEachKind(t *testing.T) {
	for name, row := range map[string]struct {
		body string
		want []string
	}{
		"call":            {"use()", []string{"call deleted: delete use()"}},
		"deferred call":   {"defer use()", []string{"call deleted: delete defer use()"}},
		"message":         {`logrus.Debug("text", 7)`, nil},
		"field":           {"o.next = o", []string{"assignment deleted: delete o.next = o"}},
		"flags are added": {"n |= B", []string{"assignment deleted: delete n |= B"}},
		"variable":        {"n = B", nil},
		"check": {"if err := fails(); err != nil {\nreturn B, err\n}", []string{
			"check deleted: delete if err := fails(); err != nil { return B, err }",
		}},
		"error is ignored": {"err := fails()\nif err != nil {\nreturn 0, err\n}", []string{
			"error ignored: if err != nil { return 0, err } → _ = err",
		}},
		"condition":          {"if ok {\n}", []string{"condition negated: ok → !(ok) in if ok {"}},
		"switch without tag": {"switch {\ncase ok:\n}", []string{"condition negated: ok → !(ok) in case ok:"}},
		"flag": {"n = A | B | C", []string{
			"flag removed: A | B | C → A | B in n = A | B | C", "flag removed: A | B → A in n = A | B | C",
			"flag removed: A | B → B in n = A | B | C",
		}},
		"number": {"use(o, n, 0x1f)\nfor {\n}", []string{
			"call deleted: delete use(o, n, 0x1f)", "constant changed: 0x1f → (0x1f + 1) in use(o, n, 0x1f)",
		}},
		"bool":                {"ok = true", []string{"constant changed: true → false in ok = true"}},
		"text":                {`name = "a"`, []string{`text changed: "a" → "aX" in name = "a"`}},
		"comparison":          {"ok = n < B", []string{"operator changed: < → <= in ok = n < B"}},
		"and":                 {"ok = ok && ok", []string{"operator changed: && → || in ok = ok && ok"}},
		"pointer":             {"ok = o.next == nil", []string{"operator changed: == → != in ok = o.next == nil"}},
		"error in expression": {"ok = fails() == nil", nil},
		"capacity":            {"use := make([]int, 7)\n_ = use", nil},
		"results of an error": {`return 7, fails()`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, c := range mutate(t, row.body) {
				if c.Kind != Delayed {
					got = append(got, string(c.Kind)+": "+c.Change)
				}
			}
			assert.Check(t, cmp.DeepEqual(got, row.want))
		})
	}
}

// An error that no question provokes can be ignored, and nothing shows it. So the line that counts is the one in the body.
func TestCandidates_AnIgnoredErrorHasToOccur(t *testing.T) {
	all := slices.DeleteFunc(mutate(t, "err := fails()\nif err != nil {\n\nreturn 0, err\n}"),
		func(c candidate) bool { return c.Kind == Delayed })
	assert.Assert(t, cmp.Len(all, 1))
	assert.Equal(t, all[0].at.Line, all[0].Line+2)
}

// A delay needs an import and a variable, so it replaces the text from the imports to the statement. Its place is the statement's.
func TestCandidates_DelaysBeforeStatements(t *testing.T) {
	var got []string
	for _, c := range mutate(t, "n = B\nif ok {\nuse()\nlogrus.Debug()\n}\ndefer use()") {
		if c.Kind == Delayed {
			got = append(got, fmt.Sprintf("%d: %s", c.Line, c.Change))
		}
	}
	assert.DeepEqual(t, got, []string{
		"10: sleep 1 s before n = B", "11: sleep 1 s before if ok { use() logrus.Debug() }", "12: sleep 1 s before use()",
	})
}

func TestMutant_Names(t *testing.T) {
	m := Mutant{File: "github.com/containerd/containerd/v2/core/runtime/v2/shim.go", Line: 7}
	assert.Equal(t, m.Place(), "containerd/core/runtime/shim.go:7")
	assert.Equal(t, Mutant{File: "github.com/opencontainers/runc/create.go"}.ShortFile(), "runc/create.go")
	assert.Check(t, m.ID() != Mutant{File: m.File, Start: 1}.ID())
	assert.Equal(t, m.ID(), m.ID())
}
