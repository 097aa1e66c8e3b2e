//go:build linux && !vmlab

package cdblab

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

// The tests of this file read the sources of the questions, and demand what the compiler does not.

// A panic in a goroutine would end the run, because only a function of the same goroutine can recover it. So a question starts a
// goroutine by lab.Go, or calls lab.Catch in it.
func TestQuestions_CatchAPanicOfAGoroutine(t *testing.T) {
	for _, name := range questionFiles(t) {
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
		assert.NilError(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			starts := false
			switch n := n.(type) {
			case *ast.GoStmt:
				starts = true
			case *ast.CallExpr: // wg.Go, group.Go
				f, ok := n.Fun.(*ast.SelectorExpr)
				starts = ok && f.Sel.Name == "Go" && !isOfLab(f)
			}
			if starts && !callsCatch(n) {
				t.Errorf("%s: start this goroutine by lab.Go, or call lab.Catch in it", fset.Position(n.Pos()))
			}
			return true
		})
	}
}

// facts.json is the same in two runs of the same stack. Go ranges over a map in another order each time, so a table whose rows record
// something is a slice.
func TestQuestions_RecordInAFixedOrder(t *testing.T) {
	records := []string{"Fact", "Step", "Control", "Clause", "Covers"}
	for _, name := range questionFiles(t) {
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
		assert.NilError(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			loop, ok := n.(*ast.RangeStmt)
			if !ok || !isMap(loop.X) {
				return true
			}
			ast.Inspect(loop.Body, func(n ast.Node) bool {
				f, ok := n.(*ast.SelectorExpr)
				if ok && slices.Contains(records, f.Sel.Name) {
					t.Errorf("%s: %s in a loop over a map: make the map a slice", fset.Position(n.Pos()), f.Sel.Name)
				}
				return true
			})
			return true
		})
	}
}

// maxLines is how many lines a question may have, from func to its closing brace: a screen and a half.
const maxLines = 100

// A question is read as one story. So what a step does in detail is a function below the question, with a name.
func TestQuestions_AreAtMostAScreenAndAHalfLong(t *testing.T) {
	for _, name := range questionFiles(t) {
		for _, long := range longQuestions(t, name, nil) {
			t.Errorf("%s lines, and a question has at most %d: give the steps names, as CONTRIBUTING.md says, or begin the function with "+
				"the comment \"// Long: the reason\"", long, maxLines)
		}
	}
}

// longQuestions returns the questions of a file that have too many lines and no reason, each with its place and length. If src is not nil,
// it is the text of the file.
func longQuestions(t *testing.T, name string, src any) (long []string) {
	t.Helper()
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, src, parser.ParseComments|parser.SkipObjectResolution)
	assert.NilError(t, err)
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || !strings.HasPrefix(f.Name.Name, "Test") {
			continue
		}
		lines := fset.Position(f.Body.Rbrace).Line - fset.Position(f.Pos()).Line + 1
		if lines <= maxLines {
			continue
		}
		hasReason := slices.ContainsFunc(file.Comments, func(c *ast.CommentGroup) bool {
			return f.Body.Lbrace < c.Pos() && c.End() < f.Body.List[0].Pos() && longReason.MatchString(c.Text())
		})
		if !hasReason {
			long = append(long, fmt.Sprintf("%s: %s has %d", fset.Position(f.Pos()), f.Name.Name, lines))
		}
	}
	return long
}

// longReason matches the comment of a long question that says why it is long.
var longReason = regexp.MustCompile(`^Long: \w+ \w+`)

func TestLongQuestions_SayWhyTheyAreLong(t *testing.T) {
	question := func(comment string, lines int) string {
		return "package cdblab\n\n// The answer.\nfunc TestTask_A(t *testing.T) {\n" + comment + strings.Repeat("\tq.Step(\"\")\n", lines) + "}\n"
	}
	assert.Check(t, cmp.Len(longQuestions(t, "task_a_test.go", question("", maxLines-2)), 0))
	assert.Check(t, cmp.DeepEqual(longQuestions(t, "task_a_test.go", question("", maxLines-1)),
		[]string{"task_a_test.go:4:1: TestTask_A has 101"}))
	assert.Check(t, cmp.Len(longQuestions(t, "task_a_test.go", question("\t// Long: one experiment.\n", maxLines)), 0))
	assert.Check(t, cmp.Len(longQuestions(t, "task_a_test.go", question("\t// Long:\n", maxLines)), 1))
	assert.Check(t, cmp.Len(longQuestions(t, "task_a_test.go", question("\tq := 1 // Long: not at the beginning.\n", maxLines)), 1))
}

// isMap reports whether an expression is a map that is written there.
func isMap(x ast.Expr) bool {
	literal, ok := x.(*ast.CompositeLit)
	if !ok {
		return false
	}
	_, ok = literal.Type.(*ast.MapType)
	return ok
}

// questionFiles returns the names of the files that have questions.
func questionFiles(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, q := range questions(t) {
		names = append(names, q.File)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// remedy matches what a skip tells the reader to do: a command, a setting, another machine, or the question that asks the same. The names
// are those of constants and functions that have such a text.
var remedy = regexp.MustCompile(`make (lab|deps)|(CGROUP|KERNEL)=|unset |leave out|modprobe|swapoff|mount -t|\bset [a-z]+\.|` +
	`unload a module|ask it on an|sysctl|Test\w+ asks|the subtests say why|\belsewhere\b|\bhowto\b|\bnotBuilt\b|the reader ended the run`)

// The end of a run lists what was skipped. A reader wants to know there how to get the answer.
func TestSkips_NameTheirRemedy(t *testing.T) {
	helpers, err := filepath.Glob("helpers/*/*.go")
	assert.NilError(t, err)
	files, err := filepath.Glob("*_test.go")
	assert.NilError(t, err)
	for _, name := range helpers {
		if !strings.HasSuffix(name, "_test.go") {
			files = append(files, name)
		}
	}
	skips := 0
	for _, name := range files {
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
		assert.NilError(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || !isSkip(call.Fun) {
				return true
			}
			skips++
			var words strings.Builder
			for _, arg := range call.Args {
				ast.Inspect(arg, func(n ast.Node) bool {
					switch n := n.(type) {
					case *ast.BasicLit:
						if text, err := strconv.Unquote(n.Value); err == nil {
							words.WriteString(text)
						}
					case *ast.Ident:
						words.WriteString(" " + n.Name + " ")
					}
					return true
				})
			}
			if !remedy.MatchString(words.String()) {
				t.Errorf("%s: this skip does not say how to get the answer: %s", fset.Position(n.Pos()), words.String())
			}
			return true
		})
	}
	assert.Check(t, skips > 50, "found only %d skips: the test does not see them", skips)
}

// isSkip reports whether a function is q.Skip or q.Skipf of a question.
func isSkip(f ast.Expr) bool {
	selector, ok := f.(*ast.SelectorExpr)
	if !ok || selector.Sel.Name != "Skip" && selector.Sel.Name != "Skipf" {
		return false
	}
	switch x := selector.X.(type) {
	case *ast.Ident:
		return x.Name == "q"
	case *ast.SelectorExpr: // d.q
		return x.Sel.Name == "q"
	}
	return false
}

func isOfLab(f *ast.SelectorExpr) bool {
	x, ok := f.X.(*ast.Ident)
	return ok && x.Name == "lab"
}

func callsCatch(n ast.Node) (found bool) {
	ast.Inspect(n, func(n ast.Node) bool {
		f, ok := n.(*ast.SelectorExpr)
		found = found || ok && f.Sel.Name == "Catch" && isOfLab(f)
		return !found
	})
	return found
}
