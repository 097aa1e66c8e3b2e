//go:build linux

package mutants

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path"
	"regexp"
	"strings"
)

// A Mutant is a program with one fault: in one file, the bytes from Start to End are replaced by New.
type Mutant struct {
	File   string `json:"file"` // the package's import path, and the name of the file
	Line   int    `json:"line"`
	Func   string `json:"func"` // (*Container).start
	Kind   Kind   `json:"kind"`
	Start  int    `json:"start"`
	End    int    `json:"end"`
	New    string `json:"new"`
	Change string `json:"change"` // for a reader: the changed text before and after
}

// A Kind is a kind of faults.
type Kind string

// The kinds. Every kind has the same chance to be chosen: otherwise most mutants would have another text or number.
const (
	CallDeleted       Kind = "call deleted"       // f(x), defer f(x)
	AssignmentDeleted Kind = "assignment deleted" // a.b = x, flags |= x
	CheckDeleted      Kind = "check deleted"      // if err := f(x); err != nil { return err }
	ErrorIgnored      Kind = "error ignored"      // if err != nil { return err }, where a question makes f fail
	ConditionNegated  Kind = "condition negated"  // if !(a), and the cases of a switch without a tag
	OperatorChanged   Kind = "operator changed"   // < and <=, > and >=, == and !=, && and ||
	FlagRemoved       Kind = "flag removed"       // a|b becomes a, or b
	ConstantChanged   Kind = "constant changed"   // 7 becomes (7 + 1), true becomes false
	TextChanged       Kind = "text changed"       // "cgroup.procs" becomes "cgroup.procsX"

	// Delayed is no fault: the program sleeps before a statement. See [Campaign.Slow].
	Delayed Kind = "delayed"
)

// Faults are all kinds of faults, in the order in which they are drawn.
var Faults = []Kind{
	CallDeleted, AssignmentDeleted, CheckDeleted, ErrorIgnored, ConditionNegated, OperatorChanged, FlagRemoved, ConstantChanged, TextChanged,
}

// ID returns a short name that is the same in every run.
func (m Mutant) ID() string {
	digest := sha256.Sum256(fmt.Append(nil, m.File, m.Start, m.End, m.New))
	return fmt.Sprintf("%x", digest[:4])
}

// Apply returns the source of the file with the fault.
func (m Mutant) Apply(src []byte) []byte {
	return append(append(append([]byte(nil), src[:m.Start]...), m.New...), src[m.End:]...)
}

var (
	major = regexp.MustCompile(`/v[0-9]+/`)
	owner = regexp.MustCompile(`^[^/]+\.[^/]+/[^/]+/`)
)

// ShortFile returns the file without host, owner and major version: runc/libcontainer/rootfs_linux.go.
func (m Mutant) ShortFile() string {
	return owner.ReplaceAllString(major.ReplaceAllString(m.File, "/"), "")
}

// Place returns where the fault is: runc/libcontainer/rootfs_linux.go:12.
func (m Mutant) Place() string { return fmt.Sprintf("%s:%d", m.ShortFile(), m.Line) }

func (m Mutant) String() string {
	return fmt.Sprintf("%s, %s, %s: %s", m.Place(), m.Func, m.Kind, m.Change)
}

// dir returns the import path of the package.
func (m Mutant) dir() string { return path.Dir(m.File) }

// oneLine returns source text in one line that is not too long for a table.
func oneLine(text string) string { return clip(text, 120) }

// clip returns text in one line of at most so many characters.
func clip(text string, most int) string {
	text = strings.Join(strings.Fields(text), " ")
	if r := []rune(text); len(r) > most {
		text = string(r[:most-1]) + "…"
	}
	return text
}

// Edit returns the mutant in which text of a file is replaced. The text has to be there once: an edit that has lost its place, after
// an update of go.mod, is an error.
func (s *Source) Edit(file, before, after string) (Mutant, error) {
	path, err := s.path(file)
	if err != nil {
		return Mutant{}, err
	}
	src, err := os.ReadFile(path)
	if err != nil {
		return Mutant{}, err
	}
	if n := strings.Count(string(src), before); n != 1 {
		return Mutant{}, fmt.Errorf("%s has this text %d times, expected it once: %q\n"+
			"  what to do: look at the file, and adapt the edit to this version", path, n, before)
	}
	start := strings.Index(string(src), before)
	return Mutant{File: file, Line: 1 + strings.Count(string(src[:start]), "\n"), Start: start, End: start + len(before), New: after}, nil
}
