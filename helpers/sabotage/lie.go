//go:build linux

package sabotage

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"cdblab/helpers/mutants"
)

// A Lie is a way in which a program breaks one promise.
type Lie struct {
	Name     string `toml:"name"`
	Promise  string `toml:"promise"`  // that it breaks, in a sentence
	Program  string `toml:"program"`  // runc, ctr, shim or containerd
	Question string `toml:"question"` // the test that has to catch it
	Message  string `toml:"message"`  // a regular expression: the failure that shows the broken promise
	// Script is the shell script in which the program is wrapped. See [Wrapper].
	Script string `toml:"script"`
	// File, Old and New are an edit of the program's source: in a file, named by its package's import path, New replaces Old. Old is
	// there once.
	File string `toml:"file"`
	Old  string `toml:"old"`
	New  string `toml:"new"`
	// Undo is a shell command that root executes after the run. It removes what the lie leaves outside of the lab's places; "" for nothing.
	Undo string `toml:"undo"`
	// Unnoticed says why no question catches it; "" if one must.
	Unnoticed string `toml:"unnoticed"`
}

// wrapped are the programs that a script can stand for. The shim executes itself, past any wrapper, and the daemon answers over a
// socket.
var wrapped = []string{"runc", "ctr"}

// Edits reports whether the lie is an edit of the source.
func (l Lie) Edits() bool { return l.File != "" }

// Read reads the table. An error names the lie and the key.
func Read(in io.Reader) ([]Lie, error) {
	var table struct {
		Lie []Lie `toml:"lie"`
	}
	if err := toml.NewDecoder(in).DisallowUnknownFields().Decode(&table); err != nil {
		return nil, fmt.Errorf("the table of lies: %w", err)
	}
	seen := map[string]bool{}
	for _, l := range table.Lie {
		if err := l.check(); err != nil {
			return nil, fmt.Errorf("the table of lies: lie %q: %w", l.Name, err)
		}
		if seen[l.Name] {
			return nil, fmt.Errorf("the table of lies: lie %q is there twice", l.Name)
		}
		seen[l.Name] = true
	}
	return table.Lie, nil
}

var lieName = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

func (l Lie) check() error {
	if !lieName.MatchString(l.Name) { // it is the name of a directory as well
		return fmt.Errorf("the name has to be words of small letters and digits, with - between them")
	}
	if l.Promise == "" {
		return fmt.Errorf("the key promise is missing: say in a sentence which promise the lie breaks")
	}
	if _, err := mutants.FindTarget(l.Program); err != nil {
		return fmt.Errorf("program is %q, expected runc, ctr, shim or containerd", l.Program)
	}
	if !strings.HasPrefix(l.Question, "Test") {
		return fmt.Errorf("question is %q, expected the name of a question's test", l.Question)
	}
	switch {
	case l.Script == "" && !l.Edits():
		return fmt.Errorf("expected a script, or an edit: the keys file, old and new")
	case l.Script != "" && l.Edits():
		return fmt.Errorf("expected a script or an edit, and not both")
	case l.Script != "" && !slices.Contains(wrapped, l.Program):
		return fmt.Errorf("a script cannot stand for the program %s: edit its source, with the keys file, old and new", l.Program)
	case l.Edits() && (l.Old == "" || l.Old == l.New):
		return fmt.Errorf("expected the keys old and new to say what the edit changes")
	}
	if l.Message == "" && l.Unnoticed == "" {
		return fmt.Errorf("expected a message, or the key unnoticed with the reason")
	}
	_, err := regexp.Compile(l.Message)
	return err
}

// Select returns the lies that the words name, and of these the ones whose question matches. Without words it returns all.
func Select(lies []Lie, words []string, question *regexp.Regexp) ([]Lie, error) {
	for _, w := range words {
		if !slices.ContainsFunc(lies, func(l Lie) bool { return l.Name == w }) {
			return nil, fmt.Errorf("LIE=%s names no lie\n  what to do: name lies of testdata/sabotage.toml, separated by spaces", w)
		}
	}
	var out []Lie
	for _, l := range lies {
		if (len(words) == 0 || slices.Contains(words, l.Name)) && question.MatchString(l.Question) {
			out = append(out, l)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no lie is about a question that matches Q=%s\n  what to do: make syllabus lists the questions", question)
	}
	return out, nil
}

// Questions returns a regular expression for go test's -run that selects the questions of lies.
func Questions(lies []Lie) string {
	var names []string
	for _, l := range lies {
		if !slices.Contains(names, l.Question) {
			names = append(names, l.Question)
		}
	}
	return "^(" + strings.Join(names, "|") + ")$"
}
