//go:build linux

package mutants

import (
	"bytes"
	"go/ast"
	"go/token"
	"go/types"
	"strings"
)

// A candidate is a possible mutant. Whether the questions execute it is decided by the position at.
type candidate struct {
	Mutant
	at token.Position
}

// mutator collects the candidates of a file.
type mutator struct {
	fset *token.FileSet
	src  []byte
	info *types.Info
	file string // of the candidates
	fn   string // the function that is visited
	head int    // offset behind the imports
	out  []candidate
}

// candidates returns the faults that can be made in the functions of a file. file is what the mutants call it.
func candidates(fset *token.FileSet, f *ast.File, src []byte, info *types.Info, file string) []candidate {
	m := &mutator{fset: fset, src: src, info: info, file: file, head: fset.Position(f.Name.End()).Offset}
	for _, d := range f.Decls {
		if imports, ok := d.(*ast.GenDecl); ok && imports.Tok == token.IMPORT {
			m.head = fset.Position(imports.End()).Offset
		}
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Body == nil {
			continue // a table outside of functions may not be used
		}
		m.fn = fn.Name.Name
		if fn.Recv != nil && len(fn.Recv.List) == 1 {
			m.fn = "(" + m.text(fn.Recv.List[0].Type) + ")." + m.fn
		}
		ast.Inspect(fn.Body, m.visit)
	}
	return m.out
}

// visit adds the candidates of a node, and reports whether its children are visited.
func (m *mutator) visit(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.BlockStmt:
		m.statements(n.List)
	case *ast.CaseClause:
		m.statements(n.Body)
	case *ast.CommClause:
		m.statements(n.Body)
	case *ast.IfStmt:
		if !m.isErrorCheck(n.Cond) {
			m.add(ConditionNegated, n.Cond, "!("+m.text(n.Cond)+")")
		}
	case *ast.SwitchStmt:
		if n.Tag == nil {
			m.cases(n)
		}
	case *ast.ReturnStmt:
		return !m.returnsError(n)
	case *ast.BinaryExpr:
		m.binary(n)
	case *ast.CallExpr:
		// The words of errors and logs belong to a version, and the lab does not compare them.
		return !m.isMessage(n) && !m.isBuiltin(n, "make", "panic")
	case *ast.KeyValueExpr:
		key, ok := n.Key.(*ast.Ident)
		return !ok || !strings.HasPrefix(key.Name, "Usage") && key.Name != "ArgsUsage" && key.Name != "Description"
	case *ast.CompositeLit:
		t := m.info.TypeOf(n)
		return t == nil || !strings.HasSuffix(t.String(), ".PathError")
	case *ast.BasicLit:
		switch n.Kind {
		case token.INT:
			m.add(ConstantChanged, n, "("+n.Value+" + 1)")
		case token.STRING:
			quote := n.Value[len(n.Value)-1:]
			m.add(TextChanged, n, strings.TrimSuffix(n.Value, quote)+"X"+quote)
		}
	case *ast.Ident:
		if other := map[string]string{"true": "false", "false": "true"}[n.Name]; other != "" && m.info.Uses[n] == types.Universe.Lookup(n.Name) {
			m.add(ConstantChanged, n, other)
		}
	}
	return true
}

// statements adds the statements of a list that can be deleted.
func (m *mutator) statements(list []ast.Stmt) {
	for _, s := range list {
		m.delay(s)
		switch s := s.(type) {
		case *ast.ExprStmt:
			if call, ok := s.X.(*ast.CallExpr); ok && !m.isMessage(call) && !m.isBuiltin(call, "panic") {
				m.add(CallDeleted, s, "")
			}
		case *ast.DeferStmt:
			// The end of the process closes and unlocks as well. No question can tell.
			if name := calleeName(s.Call); !m.isMessage(s.Call) && name != "Close" && name != "Unlock" && name != "RUnlock" {
				m.add(CallDeleted, s, "")
			}
		case *ast.AssignStmt:
			if s.Tok != token.DEFINE && (s.Tok != token.ASSIGN || len(s.Lhs) == 1 && isField(s.Lhs[0])) {
				m.add(AssignmentDeleted, s, "")
			}
		case *ast.IfStmt:
			m.check(s)
		}
	}
}

// delay adds a delay before a statement. It takes a third of the statement's first executions in a process, ten at most: of a daemon
// that lives long, not only the first tasks are delayed, and no question waits for minutes.
func (m *mutator) delay(s ast.Stmt) {
	switch s := s.(type) {
	case *ast.CaseClause, *ast.CommClause, *ast.DeclStmt, *ast.DeferStmt, *ast.EmptyStmt, *ast.LabeledStmt, *ast.BranchStmt, *ast.IncDecStmt:
		return
	case *ast.ExprStmt:
		if call, ok := s.X.(*ast.CallExpr); ok && m.isMessage(call) {
			return
		}
	}
	start := m.fset.Position(s.Pos()).Offset
	mutant := Mutant{
		File: m.file, Line: m.fset.Position(s.Pos()).Line, Func: m.fn, Kind: Delayed, Start: m.head, End: start,
		New: "\nimport mutanttime \"time\"\nvar mutantDelays int\n" + string(m.src[m.head:start]) +
			"if mutantDelays++; mutantDelays%3 == 1 && mutantDelays < 30 { mutanttime.Sleep(mutanttime.Second) }\n",
		Change: "sleep 1 s before " + oneLine(m.text(s)),
	}
	m.out = append(m.out, candidate{mutant, m.fset.Position(s.Pos())})
}

// check adds an error check that can be deleted. With the call in the condition, the call goes as well. Without, the error is
// ignored, which can be noticed only where a question makes the call fail.
func (m *mutator) check(s *ast.IfStmt) {
	if s.Else != nil || len(s.Body.List) == 0 || !m.isErrorCheck(s.Cond) {
		return
	}
	cond := s.Cond.(*ast.BinaryExpr)
	if cond.Op != token.NEQ {
		return
	}
	if s.Init != nil {
		m.add(CheckDeleted, s, "")
		return
	}
	m.add(ErrorIgnored, s, "_ = "+m.text(cond.X))
	m.out[len(m.out)-1].at = m.fset.Position(s.Body.List[0].Pos())
}

// cases adds the conditions of a switch without a tag.
func (m *mutator) cases(s *ast.SwitchStmt) {
	for _, c := range s.Body.List {
		for _, cond := range c.(*ast.CaseClause).List {
			if !m.isErrorCheck(cond) {
				m.add(ConditionNegated, cond, "!("+m.text(cond)+")")
			}
		}
	}
}

var otherOperator = map[token.Token]token.Token{
	token.LSS: token.LEQ, token.LEQ: token.LSS, token.GTR: token.GEQ, token.GEQ: token.GTR,
	token.EQL: token.NEQ, token.NEQ: token.EQL, token.LAND: token.LOR, token.LOR: token.LAND,
}

// binary adds another operator, or the removal of a flag.
func (m *mutator) binary(n *ast.BinaryExpr) {
	left, right := m.text(n.X), m.text(n.Y)
	if n.Op == token.OR {
		m.add(FlagRemoved, n, left)
		if x, ok := n.X.(*ast.BinaryExpr); !ok || x.Op != token.OR { // otherwise the flags on the left are removed one by one
			m.add(FlagRemoved, n, right)
		}
		return
	}
	if other, ok := otherOperator[n.Op]; ok && !m.isErrorCheck(n) {
		start := m.fset.Position(n.OpPos).Offset
		m.addText(OperatorChanged, n, start, start+len(n.Op.String()), other.String())
	}
}

// isErrorCheck reports whether an expression compares an error with nil. Negated, it makes nearly every command fail at once, and
// says nothing about the questions.
func (m *mutator) isErrorCheck(e ast.Expr) bool {
	b, ok := e.(*ast.BinaryExpr)
	if !ok || b.Op != token.NEQ && b.Op != token.EQL {
		return false
	}
	y, ok := b.Y.(*ast.Ident)
	t := m.info.TypeOf(b.X)
	return ok && y.Name == "nil" && t != nil && types.Identical(t, types.Universe.Lookup("error").Type())
}

// returnsError reports whether a statement returns an error. If so, it visits the results except the literals: no caller looks at
// the "" of return "", err.
func (m *mutator) returnsError(s *ast.ReturnStmt) bool {
	if len(s.Results) < 2 {
		return false
	}
	last := s.Results[len(s.Results)-1]
	t := m.info.TypeOf(last)
	if id, ok := last.(*ast.Ident); t == nil || ok && id.Name == "nil" || !types.Implements(t, errorType) {
		return false
	}
	for _, r := range s.Results {
		_, literal := r.(*ast.BasicLit)
		if id, ok := r.(*ast.Ident); !literal && (!ok || id.Name != "true" && id.Name != "false") {
			ast.Inspect(r, m.visit)
		}
	}
	return true
}

var errorType = types.Universe.Lookup("error").Type().Underlying().(*types.Interface)

// messagePackages have the functions that write messages: errors, logs, and traces.
var messagePackages = []string{
	"errors", "log", "log/slog", "github.com/sirupsen/logrus", "github.com/pkg/errors", "github.com/containerd/log",
	"github.com/containerd/containerd/v2/pkg/tracing", "go.opentelemetry.io/otel",
}

// isMessage reports whether a call only makes or writes a message.
func (m *mutator) isMessage(call *ast.CallExpr) bool {
	fn := call.Fun
	if sel, ok := fn.(*ast.SelectorExpr); ok {
		fn = sel.Sel
	}
	id, ok := fn.(*ast.Ident)
	if !ok || m.info.Uses[id] == nil || m.info.Uses[id].Pkg() == nil {
		return false
	}
	path := m.info.Uses[id].Pkg().Path()
	if path == "fmt" {
		return id.Name == "Errorf"
	}
	for _, p := range messagePackages {
		if path == p || strings.HasPrefix(path, p+"/") {
			return true
		}
	}
	return false
}

func (m *mutator) isBuiltin(call *ast.CallExpr, names ...string) bool {
	id, ok := call.Fun.(*ast.Ident)
	if !ok {
		return false
	}
	_, ok = m.info.Uses[id].(*types.Builtin)
	for _, name := range names {
		if ok && id.Name == name {
			return true
		}
	}
	return false
}

func calleeName(call *ast.CallExpr) string {
	switch fn := call.Fun.(type) {
	case *ast.SelectorExpr:
		return fn.Sel.Name
	case *ast.Ident:
		return fn.Name
	}
	return ""
}

// isField reports whether an assignment changes something that outlives the function's own variables.
func isField(e ast.Expr) bool {
	switch e.(type) {
	case *ast.SelectorExpr, *ast.IndexExpr, *ast.StarExpr:
		return true
	}
	return false
}

func (m *mutator) text(n ast.Node) string {
	return string(m.src[m.fset.Position(n.Pos()).Offset:m.fset.Position(n.End()).Offset])
}

// add adds a candidate that replaces a node.
func (m *mutator) add(kind Kind, n ast.Node, text string) {
	m.addText(kind, n, m.fset.Position(n.Pos()).Offset, m.fset.Position(n.End()).Offset, text)
}

func (m *mutator) addText(kind Kind, n ast.Node, start, end int, text string) {
	at := m.fset.Position(n.Pos())
	mutant := Mutant{File: m.file, Line: at.Line, Func: m.fn, Kind: kind, Start: start, End: end, New: text}
	mutant.Change = m.change(mutant)
	m.out = append(m.out, candidate{mutant, at})
}

// change returns the changed text before and after, for a reader, and its line if there is more in it.
func (m *mutator) change(mu Mutant) string {
	old := oneLine(string(m.src[mu.Start:mu.End]))
	if mu.New == "" {
		return "delete " + old
	}
	out := old + " → " + oneLine(mu.New)
	begin := bytes.LastIndexByte(m.src[:mu.Start], '\n') + 1
	end := len(m.src)
	if i := bytes.IndexByte(m.src[mu.Start:], '\n'); i >= 0 {
		end = mu.Start + i
	}
	if line := oneLine(string(m.src[begin:end])); mu.Kind != ErrorIgnored && line != old {
		out += " in " + line
	}
	return out
}
