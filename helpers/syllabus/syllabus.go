// Package syllabus reads the questions of the lab out of its chapter files: the source is the list, and there is no
// other to keep in step with it.
package syllabus

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

// Sections of the chapter, in its order. A section's questions are in the files that begin with its name.
var Sections = []string{"Bundle", "Lifecycle", "Task", "Events"}

// Question is one question as it stands in the source.
type Question struct {
	Section string
	Test    string // name of the test function
	Text    string // what is asked
	Scope   string // the constant's name: MutatesVM, InspectsOnly, NoRoot
	Doc     string // the doc comment: the answer
	File    string
}

// Read lists the questions in the order of the chapter. A test of a chapter file that asks no question, or in the name
// of another section, is an error.
func Read(dir fs.FS) ([]Question, error) {
	var all []Question
	for _, section := range Sections {
		files, err := fs.Glob(dir, strings.ToLower(section)+"*_test.go")
		if err != nil {
			return nil, err
		}
		// The section's door (bundle_test.go) before its further rooms (bundle_mounts_test.go).
		slices.SortFunc(files, func(a, b string) int {
			return cmp.Or(len(strings.Split(a, "_"))-len(strings.Split(b, "_")), strings.Compare(a, b))
		})
		if len(files) == 0 {
			return nil, fmt.Errorf("no chapter file %s_test.go", strings.ToLower(section))
		}
		for _, file := range files {
			qs, err := readFile(dir, section, file)
			if err != nil {
				return nil, err
			}
			all = append(all, qs...)
		}
	}
	return all, nil
}

func readFile(dir fs.FS, section, file string) ([]Question, error) {
	src, err := fs.ReadFile(dir, file)
	if err != nil {
		return nil, err
	}
	tree, err := parser.ParseFile(token.NewFileSet(), file, src, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	var out []Question
	for _, d := range tree.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || !strings.HasPrefix(f.Name.Name, "Test") {
			continue
		}
		q := Question{Section: section, Test: f.Name.Name, Doc: strings.TrimSpace(f.Doc.Text()), File: file}
		if !strings.HasPrefix(q.Test, "Test"+section+"_") {
			return nil, fmt.Errorf("%s: %s: a question of this section is named Test%s_…", file, q.Test, section)
		}
		ast.Inspect(f.Body, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok && q.Text == "" && isQuestion(call) {
				q.Scope = call.Args[1].(*ast.SelectorExpr).Sel.Name
				q.Text, _ = strconv.Unquote(call.Args[2].(*ast.BasicLit).Value)
			}
			return q.Text == ""
		})
		if q.Text == "" {
			return nil, fmt.Errorf("%s: %s asks no lab.Question", file, q.Test)
		}
		if q.Doc == "" {
			return nil, fmt.Errorf("%s: %s has no doc comment: it is the question's answer", file, q.Test)
		}
		out = append(out, q)
	}
	return out, nil
}

// isQuestion recognises lab.Question(t, lab.Scope, "text").
func isQuestion(call *ast.CallExpr) bool {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || sel.Sel.Name != "Question" || len(call.Args) != 3 {
		return false
	}
	_, scope := call.Args[1].(*ast.SelectorExpr)
	_, text := call.Args[2].(*ast.BasicLit)
	return scope && text
}

// Markdown writes the questions as the README has them.
func Markdown(qs []Question) string {
	var b strings.Builder
	section := ""
	for _, q := range qs {
		if q.Section != section {
			section = q.Section
			fmt.Fprintf(&b, "\n**%s**\n\n", section)
		}
		fmt.Fprintf(&b, "* %s  \n  `%s`\n", q.Text, q.Test)
	}
	return strings.TrimSpace(b.String()) + "\n"
}

// Text writes the questions for a terminal, with the command that asks each.
func Text(qs []Question) string {
	var b strings.Builder
	section := ""
	for _, q := range qs {
		if q.Section != section {
			section = q.Section
			fmt.Fprintf(&b, "\n%s\n", section)
		}
		fmt.Fprintf(&b, "  %s\n      %s\n", q.Text, q.Test)
	}
	return b.String()
}
