package notebook

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"cdblab/helpers/results"
	"cdblab/helpers/syllabus"
)

const checkout = "../.."

// If a question gives another name to a fact, the page has a sentence where the picture was, and testdata still has the old name. A test
// without root can't ask the question. So this one reads its source: the name of each fact that a picture was drawn from is still in it.
func TestPictures_NeedFactsThatTheQuestionsStillRecord(t *testing.T) {
	all, err := syllabus.Read(os.DirFS(checkout))
	assert.NilError(t, err)
	run := recorded(t)
	for test, draws := range pictures {
		i := slices.IndexFunc(all, func(q syllabus.Question) bool { return q.Test == test })
		if !assert.Check(t, i >= 0, "picture.go has pictures of %s, and no question has this name", test) {
			continue
		}
		names := factNames(t, all[i].File)
		for _, draw := range draws {
			p, err := draw(run.Question(test))
			if !assert.Check(t, err, test) {
				continue
			}
			needed := needs(run.Question(test), draw)
			assert.Check(t, len(needed) > 0, "%s: the picture %q was drawn from no fact", test, p.Title)
			for _, name := range needed {
				known := slices.ContainsFunc(names, func(p *regexp.Regexp) bool { return p.MatchString(name) })
				assert.Check(t, known, "%s: the picture %q needs the fact %q, and no call of Fact in %s has this name.\n"+
					"  what to do: if it has another name now, use that in helpers/notebook, and record testdata again: CONTRIBUTING.md",
					test, p.Title, name, all[i].File)
			}
		}
	}
}

// needs returns the names of the facts without which a picture is another one.
func needs(q *results.Question, draw draw) []string {
	whole, _ := draw(q)
	var out []string
	for _, f := range q.Facts() {
		p, err := draw(without(q, func(other *results.Fact) bool { return other == f }))
		if err != nil || !cmp.DeepEqual(p.Table, whole.Table)().Success() {
			out = append(out, f.Name)
		}
	}
	return out
}

// without returns a question without some of its facts.
func without(q *results.Question, drop func(f *results.Fact) bool) *results.Question {
	out := *q
	out.Steps = nil
	for _, s := range q.Steps {
		s := *s
		s.Items = slices.DeleteFunc(slices.Clone(s.Items), func(i results.Item) bool { return i.Fact != nil && drop(i.Fact) })
		out.Steps = append(out.Steps, &s)
	}
	return &out
}

// factNames returns patterns of the names of facts that a question records: those in its file, and in the helpers that the file imports.
func factNames(t *testing.T, file string) []*regexp.Regexp {
	t.Helper()
	tree := parse(t, filepath.Join(checkout, file))
	out := factNamesIn(tree)
	for _, i := range tree.Imports {
		path, _ := strconv.Unquote(i.Path.Value)
		dir, ours := strings.CutPrefix(path, "cdblab/")
		if !ours {
			continue
		}
		files, err := filepath.Glob(filepath.Join(checkout, dir, "*.go"))
		assert.NilError(t, err)
		for _, f := range files {
			if !strings.HasSuffix(f, "_test.go") {
				out = append(out, factNamesIn(parse(t, f))...)
			}
		}
	}
	return out
}

func parse(t *testing.T, path string) *ast.File {
	t.Helper()
	tree, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	assert.NilError(t, err)
	return tree
}

// factNamesIn returns patterns of the first arguments of the calls of Fact in a file.
func factNamesIn(tree *ast.File) []*regexp.Regexp {
	var out []*regexp.Regexp
	for _, d := range tree.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) != 2 {
				return true
			}
			if method, ok := call.Fun.(*ast.SelectorExpr); ok && method.Sel.Name == "Fact" {
				for _, p := range namePatterns(call.Args[0], f) {
					out = append(out, regexp.MustCompile("^(?:"+p+")$"))
				}
			}
			return true
		})
	}
	return out
}

// part matches a part of a name that is not a literal. As a name is "subject: attribute", no such part has a colon.
const part = `[^:]+`

// namePatterns returns patterns of what an expression may be in a function.
func namePatterns(e ast.Expr, of *ast.FuncDecl) []string {
	variable, ok := e.(*ast.Ident)
	if !ok {
		return []string{namePattern(e)}
	}
	var out []string
	for _, v := range valuesOf(variable.Name, of) {
		out = append(out, namePattern(v))
	}
	return out
}

// valuesOf returns what is assigned to a variable in a function. Of a parameter of a function literal, that is what the literal is called
// with. Variables of the same name are one.
func valuesOf(name string, of *ast.FuncDecl) []ast.Expr {
	var out []ast.Expr
	parameter := map[string]int{} // function literal → which of its parameters has the name
	ast.Inspect(of, func(n ast.Node) bool {
		assign, ok := n.(*ast.AssignStmt)
		if !ok || len(assign.Lhs) != len(assign.Rhs) {
			return true
		}
		for i, left := range assign.Lhs {
			to, ok := left.(*ast.Ident)
			if !ok {
				continue
			}
			if to.Name == name {
				out = append(out, assign.Rhs[i])
			}
			if f, ok := assign.Rhs[i].(*ast.FuncLit); ok {
				n := 0
				for _, field := range f.Type.Params.List {
					for _, p := range field.Names {
						if p.Name == name {
							parameter[to.Name] = n
						}
						n++
					}
				}
			}
		}
		return true
	})
	ast.Inspect(of, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			if f, ok := call.Fun.(*ast.Ident); ok {
				if i, ok := parameter[f.Name]; ok && i < len(call.Args) {
					out = append(out, call.Args[i])
				}
			}
		}
		return true
	})
	return out
}

func namePattern(e ast.Expr) string {
	if text, ok := literal(e); ok {
		return regexp.QuoteMeta(text)
	}
	switch e := e.(type) {
	case *ast.BinaryExpr:
		return namePattern(e.X) + namePattern(e.Y)
	case *ast.CallExpr: // fmt.Sprintf, or a function that adds to a name
		for _, arg := range e.Args {
			if text, ok := literal(arg); ok {
				if fmt.Sprint(e.Fun) == "&{fmt Sprintf}" {
					return format(text)
				}
				return ".*" + regexp.QuoteMeta(text) + ".*"
			}
		}
	}
	return part
}

func literal(n ast.Node) (text string, ok bool) {
	lit, ok := n.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(lit.Value)
	return text, err == nil
}

var formatVerb = regexp.MustCompile(`%[a-z]`)

// format returns a pattern of what a format of package fmt may give.
func format(text string) string { return formatVerb.ReplaceAllString(regexp.QuoteMeta(text), part) }

func TestFactNamesIn_AreThoseOfTheCallsOfFact(t *testing.T) {
	for _, c := range []struct {
		source, name string
		want         bool
	}{
		{`q.Fact("a: b", 1)`, "a: b", true},
		{`q.Fact("a: b", "c")`, "c", false},
		{`q.Facts("a: b", 1)`, "a: b", false},
		{`v.q.Fact(v.String()+": b "+when, 1)`, "shim KILL, running: b after", true},
		{`v.q.Fact(v.String()+": b "+when, 1)`, "shim KILL, running: c after", false},
		{`q.Fact(fmt.Sprintf("layer %d: files (all)", n), 1)`, "layer 1: files (all)", true},
		{`q.Fact(fmt.Sprintf("layer %d: files", n), 1)`, "layer 1: directory", false},
		{`q.Fact(d.name("answers after"), 1)`, "a second containerd: answers after", true},
		{`q.Fact(d.name("answers after"), 1)`, "in the upper directory", false},
		{`name := v.String() + ": b"; q.Fact(name, 1); log("%s: %s")`, "shim KILL, running: b", true},
		{`name := v.String() + ": b"; q.Fact(name, 1); log("%s: %s")`, "shim KILL, running: c", false},
		{`record := func(n int, name string) { q.Fact(name, n) }; record(1, "created"); check("running")`, "created", true},
		{`record := func(n int, name string) { q.Fact(name, n) }; record(1, "created"); check("running")`, "running", false},
	} {
		tree, err := parser.ParseFile(token.NewFileSet(), "x.go", "package x\nfunc f() { "+c.source+" }", 0)
		assert.NilError(t, err)
		got := slices.ContainsFunc(factNamesIn(tree), func(p *regexp.Regexp) bool { return p.MatchString(c.name) })
		assert.Check(t, got == c.want, "%s has the name %q: %v", c.source, c.name, got)
	}
}
