// Package syllabus reads the questions of the lab out of its chapter files: the source is the list, and there is no
// other to keep in step with it.
package syllabus

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

// Section is a part of the chapter. Its questions are in the file of its name, the section's door (bundle_test.go), and
// in its rooms (bundle_mounts_test.go), in the order in which they are read.
type Section struct {
	Name  string
	Rooms []string
}

// Sections of the chapter, in its order.
var Sections = []Section{
	{"Bundle", []string{"spec", "rootfs", "namespaces", "mounts", "process", "seccomp", "limits", "userns", "refused", "edited", "containerd", "libcontainer"}},
	{"Lifecycle", []string{"states", "place", "kill", "delete", "run", "exec", "pause", "hooks", "failed", "refused", "libcontainer", "update", "record", "terminal", "checkpoint"}},
	{"Task", []string{"created", "parents", "socket", "runc", "daemon", "shim", "program", "down", "stopped", "files", "pull", "snapshotter", "garbage", "namespaces", "group", "cgroup", "exec", "order", "client", "cost"}},
	{"Events", []string{"silence", "listeners", "replay", "slow", "exec", "oom", "failure", "logs", "strace", "metrics", "output"}},
}

// files lists the section's files that are there, in order; one that is no room of the section's is an error.
func (s Section) files(dir fs.FS) ([]string, error) {
	name := strings.ToLower(s.Name)
	found, err := fs.Glob(dir, name+"*_test.go")
	if err != nil {
		return nil, err
	}
	files := []string{name + "_test.go"}
	for _, room := range s.Rooms {
		files = append(files, name+"_"+room+"_test.go")
	}
	for _, f := range found {
		if !slices.Contains(files, f) {
			return nil, fmt.Errorf("%s is no file of section %s: say in helpers/syllabus where it stands in the chapter", f, s.Name)
		}
	}
	files = slices.DeleteFunc(files, func(f string) bool { return !slices.Contains(found, f) })
	if len(files) == 0 || files[0] != name+"_test.go" {
		return nil, fmt.Errorf("no chapter file %s_test.go", name)
	}
	return files, nil
}

// Question is one question as it stands in the source.
type Question struct {
	Section string
	Test    string // name of the test function
	Text    string // what is asked
	Scope   string // the constant's name: MutatesVM, InspectsOnly, NoRoot
	Doc     string // the doc comment: the answer
	File    string
	Clauses []Clause // what it says of the runtime specification's demands
	Words   []string // every string that the file has: the fields that a table of it follows are among them
}

// Clause is a demand of the specification that a question asks about, with q.Proves or q.Deviates.
type Clause struct {
	Text string // "Heading: sentence"
	Seen string // what was seen instead, where it is not kept
}

// Read lists the questions in the order of the chapter. A test of a chapter file that asks no question, or in the name
// of another section, is an error.
func Read(dir fs.FS) ([]Question, error) {
	var all []Question
	for _, section := range Sections {
		files, err := section.files(dir)
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			qs, err := readFile(dir, section.Name, file)
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
	words := literals(tree)
	var out []Question
	for _, d := range tree.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || !strings.HasPrefix(f.Name.Name, "Test") {
			continue
		}
		q := Question{Section: section, Test: f.Name.Name, Doc: strings.TrimSpace(f.Doc.Text()), File: file, Words: words}
		if !strings.HasPrefix(q.Test, "Test"+section+"_") {
			return nil, fmt.Errorf("%s: %s: a question of this section is named Test%s_…", file, q.Test, section)
		}
		ast.Inspect(f.Body, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok && q.Text == "" && isQuestion(call) {
				q.Scope = call.Args[1].(*ast.SelectorExpr).Sel.Name
				q.Text, _ = strconv.Unquote(call.Args[2].(*ast.BasicLit).Value)
			} else if ok {
				q.Clauses = append(q.Clauses, clauses(call)...)
			}
			return true
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
	if !ok || sel.Sel.Name != "Question" || len(call.Args) < 3 {
		return false
	}
	_, scope := call.Args[1].(*ast.SelectorExpr)
	_, text := call.Args[2].(*ast.BasicLit)
	return scope && text
}

// clauses reads q.Proves("clause"), q.Demands("clause", met, "otherwise"), q.Deviates("clause", "seen") and
// q.DeviatesUnless(met, "clause", "seen"); another call has none. The first two are about what is kept.
func clauses(call *ast.CallExpr) []Clause {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || !slices.Contains([]string{"Proves", "Demands", "Deviates", "DeviatesUnless"}, sel.Sel.Name) {
		return nil
	}
	var args [2]string
	n := 0
	for _, a := range call.Args {
		if lit, ok := a.(*ast.BasicLit); ok && n < len(args) {
			args[n], _ = strconv.Unquote(lit.Value)
			n++
		}
	}
	if sel.Sel.Name == "Demands" {
		args[1] = ""
	}
	return []Clause{{args[0], args[1]}}
}

// literals lists the strings of a file.
func literals(tree *ast.File) []string {
	var out []string
	ast.Inspect(tree, func(n ast.Node) bool {
		if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if s, err := strconv.Unquote(lit.Value); err == nil {
				out = append(out, s)
			}
		}
		return true
	})
	return out
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
