// Package syllabus reads the list of the lab's questions from their source files, so there is no other list to keep in step.
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

// Section is a section of the chapter. Its first question, the chapter's own, is in the file of the section's name
// (bundle_test.go). Its further questions are in a file for each topic (bundle_mounts_test.go), in the order in which they
// are read.
type Section struct {
	Name   string
	About  string // what the section is about, as one phrase
	Topics []string
}

// Sections of the chapter, in its order.
var Sections = []Section{
	{"Bundle", "what an OCI bundle is: built by hand, and made by containerd", []string{
		"spec", "rootfs", "namespaces", "mounts", "process", "seccomp", "apparmor", "limits", "userns", "refused",
		"edit_after_create", "containerd", "libcontainer",
	}},
	{"Lifecycle", "what runc does with a bundle, from create to delete", []string{
		"states", "isolation", "kill", "delete", "run", "exec", "pause", "hooks", "failed_create", "refused",
		"libcontainer", "update", "state_json", "features", "terminal", "checkpoint", "rootless", "systemd",
	}},
	{"Task", "what containerd adds, and which process holds what, also when something dies", []string{
		"container_created", "parents", "socket", "runc", "containerd_dies", "shim_dies", "process_dies",
		"containerd_down", "upgrade", "node_config", "stopped", "files", "pull", "platforms", "snapshotter", "garbage", "namespaces",
		"shared_shim", "slow_runtime",
		"cgroup", "exec", "terminal", "delete_order", "client", "apparmor", "checkpoint", "cost", "systemd",
	}},
	{"Events", "what containerd reports by itself, and what an operator has to ask for", []string{
		"without_task", "listeners", "replay", "twice", "slow_listener", "exec", "execs", "oom", "failure", "logs", "strace",
		"metrics", "output", "last_bytes", "input",
	}},
}

// files lists the section's existing files, in order. A file that is none of the section's topics is an error.
func (s Section) files(dir fs.FS) ([]string, error) {
	name := strings.ToLower(s.Name)
	found, err := fs.Glob(dir, name+"*_test.go")
	if err != nil {
		return nil, err
	}
	files := []string{name + "_test.go"}
	for _, topic := range s.Topics {
		files = append(files, name+"_"+topic+"_test.go")
	}
	for _, f := range found {
		if !slices.Contains(files, f) {
			return nil, fmt.Errorf("%s is no file of section %s: add its topic to Sections in helpers/syllabus, where it belongs in the chapter",
				f, s.Name)
		}
	}
	files = slices.DeleteFunc(files, func(f string) bool { return !slices.Contains(found, f) })
	if len(files) == 0 || files[0] != name+"_test.go" {
		return nil, fmt.Errorf("no chapter file %s_test.go", name)
	}
	return files, nil
}

// Question is one question, as its source has it.
type Question struct {
	Section string
	Test    string // name of the test function
	Text    string // the question itself
	Scope   string // the constant's name: MutatesVM, InspectsOnly, NoRoot
	Doc     string // the doc comment: the answer
	File    string
	Answers []string // what it answers, by q.Answer: see answer
	Clauses []Clause // the clauses of the runtime specification that it tests
	Covers  []string // the fields of config.json that it follows to the kernel
}

// Clause is a clause of the runtime specification that a question tests, by q.Clause.
type Clause struct {
	Text string // "Heading: sentence"
	Seen string // what is seen if the pinned runtime is known to deviate; "" if it meets the clause
}

// Read lists the questions in the order of the chapter. It is an error if a test of a chapter file asks no question, or if it
// has the name of another section.
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

// readFile lists the questions of one file.
func readFile(dir fs.FS, section, file string) ([]Question, error) {
	src, err := fs.ReadFile(dir, file)
	if err != nil {
		return nil, err
	}
	tree, err := parser.ParseFile(token.NewFileSet(), file, src, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	tables := fieldTables(tree)
	var out []Question
	var bad error // the first call of q.Clause that cannot be read
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
			} else if ok {
				c, err := clauses(call)
				if err != nil && bad == nil {
					bad = fmt.Errorf("%s: %s: %w", file, q.Test, err)
				}
				q.Clauses = append(q.Clauses, c...)
				q.Answers = append(q.Answers, answer(call)...)
			}
			q.Covers = append(q.Covers, covers(n)...)
			if id, ok := n.(*ast.Ident); ok {
				q.Covers = append(q.Covers, tables[id.Name]...)
			}
			return true
		})
		if bad != nil {
			return nil, bad
		}
		if q.Text == "" {
			return nil, fmt.Errorf("%s: %s asks no session.Question", file, q.Test)
		}
		if q.Doc == "" {
			return nil, fmt.Errorf("%s: %s has no doc comment: it is the question's answer", file, q.Test)
		}
		out = append(out, q)
	}
	return out, nil
}

// isQuestion reports whether the call is session.Question(t, lab.Scope, "text").
func isQuestion(call *ast.CallExpr) bool {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || sel.Sel.Name != "Question" || len(call.Args) < 3 {
		return false
	}
	_, scope := call.Args[1].(*ast.SelectorExpr)
	_, text := call.Args[2].(*ast.BasicLit)
	return scope && text
}

// clauses returns the clause of a call q.Clause("clause", outcome). Other calls have no clauses. It is an error if the text of a known
// deviation is no literal: the table of the clauses would not show the deviation.
func clauses(call *ast.CallExpr) ([]Clause, error) {
	if !isMethod(call, "Clause") || len(call.Args) != 2 {
		return nil, nil
	}
	c := Clause{Text: literal(call.Args[0])}
	if outcome, ok := call.Args[1].(*ast.CallExpr); ok && isMethod(outcome, "DeviatesUnless") {
		if c.Seen = literal(outcome.Args[1]); c.Seen == "" {
			return nil, fmt.Errorf("DeviatesUnless of the clause %q: expected the deviation as a string literal, "+
				"because the table in doc.go takes it from the source. Record what varies with q.Fact", c.Text)
		}
	}
	return []Clause{c}, nil
}

// covers returns the fields of a call q.Covers("field", …), or of a lab.Fields{"field", …} in a table. Other nodes have no fields.
func covers(n ast.Node) []string {
	switch n := n.(type) {
	case *ast.CallExpr:
		if isMethod(n, "Covers") {
			return literals(n.Args)
		}
	case *ast.CompositeLit:
		if sel, ok := n.Type.(*ast.SelectorExpr); ok && sel.Sel.Name == "Fields" {
			return literals(n.Elts)
		}
	}
	return nil
}

// fieldTables returns the fields in those declarations of a file that are no tests: in tables, and in the functions that return
// tables. The key is the name of the declaration. A question that uses this name covers its fields.
func fieldTables(tree *ast.File) map[string][]string {
	out := map[string][]string{}
	add := func(name string, n ast.Node) {
		ast.Inspect(n, func(n ast.Node) bool {
			out[name] = append(out[name], covers(n)...)
			return true
		})
	}
	for _, d := range tree.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if !strings.HasPrefix(d.Name.Name, "Test") {
				add(d.Name.Name, d)
			}
		case *ast.GenDecl:
			for _, s := range d.Specs {
				if v, ok := s.(*ast.ValueSpec); ok {
					add(v.Names[0].Name, v)
				}
			}
		}
	}
	return out
}

// isMethod reports whether the call is of a method, or of a function of a package, with this name.
func isMethod(call *ast.CallExpr, name string) bool {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	return ok && sel.Sel.Name == name
}

// literal returns the value of a string literal, or of string literals joined by +. It returns "" for another expression.
func literal(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		s, _ := strconv.Unquote(e.Value)
		return s
	case *ast.BinaryExpr:
		if left, right := literal(e.X), literal(e.Y); e.Op == token.ADD && left != "" && right != "" {
			return left + right
		}
	}
	return ""
}

func literals(es []ast.Expr) []string {
	var out []string
	for _, e := range es {
		if s := literal(e); s != "" {
			out = append(out, s)
		}
	}
	return out
}

// Markdown returns the list of questions in the form that the README has: each section can be folded.
func Markdown(questions []Question) string {
	var b strings.Builder
	for _, section := range Sections {
		rows, n := "", 0
		for _, q := range questions {
			if q.Section == section.Name {
				rows += fmt.Sprintf("* %s  \n  [`%s`](%s)\n", q.Text, q.Test, q.File)
				n++
			}
		}
		fmt.Fprintf(&b, "<details><summary><b>%s</b>: %s (%d questions)</summary>\n\n%s\n</details>\n", section.Name, section.About, n, rows)
	}
	return b.String()
}

// TopicTable returns, as lines of a doc comment, the sections with their topics.
func TopicTable() string {
	var b strings.Builder
	for _, s := range Sections {
		fmt.Fprintf(&b, "//   - %s (%s_test.go): %s.\n//     Topics:", s.Name, strings.ToLower(s.Name), s.About)
		width := 14
		for i, t := range s.Topics {
			if i < len(s.Topics)-1 {
				t += ","
			} else {
				t += "."
			}
			if width += 1 + len(t); width > 118 {
				b.WriteString("\n//    ")
				width = 7 + len(t)
			}
			b.WriteString(" " + t)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// Text returns the list of questions in the form for a terminal.
func Text(questions []Question) string {
	var b strings.Builder
	section := ""
	for _, q := range questions {
		if q.Section != section {
			section = q.Section
			fmt.Fprintf(&b, "\n%s\n", section)
		}
		fmt.Fprintf(&b, "  %s\n      %s\n", q.Text, q.Test)
	}
	return b.String()
}
